//! The flags and arguments of each command.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::parse_duration;

/// `hms up`.
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
#[derive(Debug, Clone, Args)]
pub(crate) struct Up {
    /// Only these services [default: all]
    #[arg(value_name = "SVC")]
    pub(crate) services: Vec<String>,
    /// Return to the shell once everything is ready
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Longest wait until everything is healthy
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_value = "60s", default_missing_value = "60s", value_parser = parse_duration)]
    pub(crate) wait: std::time::Duration,
    /// The mesh file, or a Compose file whose containers are joined [default: mesh.yaml of the project]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// `auto` takes free ports everywhere
    #[arg(long, value_name = "PORTS", default_value = "named")]
    pub(crate) ports: PortChoice,
    /// Port of the gateway [default: 8443]
    #[arg(long, value_name = "PORT")]
    pub(crate) https: Option<u16>,
    /// How programs get to the mesh [default: `intercept:` of mesh.yaml, else auto]
    #[arg(long, value_name = "WAY")]
    pub(crate) intercept: Option<InterceptChoice>,
    /// Print how the containers of a Compose file would be joined, and start nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Control plane and gateway only.
    #[arg(long, hide = true)]
    pub(crate) bare: bool,
    /// This process is the detached half of `up -d`.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// How ports are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum PortChoice {
    /// 15014, 15012 and 8443, or free ones where another project has them.
    #[default]
    Named,
    /// Free ones.
    Auto,
}

/// `hms down`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Down {
    /// Also delete the project's state: registry, certificates, keys, logs
    #[arg(long)]
    pub(crate) purge: bool,
}

/// `hms run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// The service's name
    pub(crate) name: String,
    /// The port the program listens on [default: a free one, in $PORT]
    #[arg(short, long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// The version of the workload, such as v2
    #[arg(long = "version", value_name = "V")]
    pub(crate) workload_version: Option<String>,
    /// Its failure domain, such as eu-1a
    #[arg(long, value_name = "ZONE")]
    pub(crate) zone: Option<String>,
    /// How programs get to the mesh [default: `intercept:` of mesh.yaml, else auto]
    #[arg(long, value_name = "WAY")]
    pub(crate) intercept: Option<InterceptChoice>,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// `hms control`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Control {
    /// Where the registry is kept
    #[arg(long, value_name = "STORE", default_value = "sqlite")]
    pub(crate) store: Store,
    /// Address of REST, health and metrics [default: 127.0.0.1:15014]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) rest: Option<std::net::SocketAddr>,
    /// Address of gRPC [default: 127.0.0.1:15012]
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) grpc: Option<std::net::SocketAddr>,
    /// Folder of the registry and the certificate authority [default: the project's state]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Life of workload certificates, such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) validity: Option<std::time::Duration>,
    /// Return to the shell once it serves
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// This process is the detached half.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// Where the registry is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// In a file that survives crashes.
    Sqlite,
    /// In memory, gone at the end.
    Memory,
}

/// A list of files.
#[derive(Debug, Clone, Args)]
pub(crate) struct Files {
    /// Route files, YAML or JSON
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
}

/// One service.
#[derive(Debug, Clone, Args)]
pub(crate) struct OneService {
    /// The service
    #[arg(value_name = "SVC")]
    pub(crate) service: String,
}

/// `hms shift`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shift {
    /// The service
    #[arg(value_name = "SVC")]
    pub(crate) service: String,
    /// A version with its percent of the calls; the others keep their proportions in what is left
    #[arg(value_name = "VERSION=PERCENT", conflicts_with = "clear")]
    pub(crate) shares: Vec<String>,
    /// Let every version be called again, each instance as much as the others
    #[arg(long)]
    pub(crate) clear: bool,
}

/// `hms set`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Set {
    /// mtls, jwt, rate-limit, retry or tracing; without one all are shown
    #[arg(value_name = "STAMP", requires = "to")]
    pub(crate) stamp: Option<String>,
    /// On or off.
    #[arg(value_name = "on|off", value_enum, ignore_case = true)]
    pub(crate) to: Option<OnOff>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOff {
    /// It holds.
    On,
    /// It does not.
    Off,
}

/// `hms why`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Why {
    /// The caller, the service, the method and the path; after `gateway` its routes may say which service
    #[arg(value_name = "FROM [TO] METHOD PATH", required_unless_present = "trace", num_args = 2..=4)]
    pub(crate) words: Vec<String>,
    /// Tell what did become of the requests of a trace instead: its id, or the first 6 digits of it
    #[arg(long, value_name = "ID", conflicts_with_all = ["words", "headers", "port"])]
    pub(crate) trace: Option<String>,
    /// A header field of the request
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub(crate) headers: Vec<String>,
    /// The port of the service [default: its first]
    #[arg(short, long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
}

/// `hms proxy`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Proxy {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: ProxyVerb,
}

/// What to do with proxies.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum ProxyVerb {
    /// Replace a proxy's process by a new one without losing a request
    Restart(ProxyRestart),
    /// Run a proxy by a static file of Envoy's, without a control plane
    Run(ProxyRun),
}

/// `hms proxy run`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyRun {
    /// The file: `static_resources` with listeners and clusters, in YAML or JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Only say what is found in the file
    #[arg(long)]
    pub(crate) check: bool,
    /// Where health and metrics are served, instead of what the file says
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) admin: Option<std::net::SocketAddr>,
    /// A line of JSON per request; - is standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// Further arguments for hms-proxy, after --
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// `hms proxy restart`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyRestart {
    /// The services whose proxies are restarted; the gateway is gateway.hms-system
    #[arg(value_name = "SVC", required_unless_present = "all")]
    pub(crate) services: Vec<String>,
    /// Every proxy of the project, one after the other
    #[arg(long, conflicts_with = "services")]
    pub(crate) all: bool,
}

/// `hms breaker`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Breaker {
    /// What to show.
    #[command(subcommand)]
    pub(crate) verb: BreakerVerb,
}

/// What of breakers to show.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum BreakerVerb {
    /// One service's breaker: phase, reason, who sees it, when it probes
    Show(OneService),
    /// Every service's breaker
    Ls,
}

/// `hms jwt`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Jwt {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: JwtVerb,
}

/// What to do with tokens.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum JwtVerb {
    /// Issue a token
    Issue(JwtIssue),
    /// Decode a token and check it against the mesh's keys
    Inspect {
        /// The token, or - for stdin [default: $JWT]
        token: Option<String>,
    },
}

/// `hms jwt issue`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JwtIssue {
    /// Who it is for [default: your login name]
    #[arg(long)]
    pub(crate) sub: Option<String>,
    /// A role; may be repeated
    #[arg(long = "role")]
    pub(crate) roles: Vec<String>,
    /// The audience
    #[arg(long = "aud")]
    pub(crate) audience: Option<String>,
    /// How long it is valid, such as 1h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) ttl: Option<std::time::Duration>,
}

/// `hms env`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Env {
    /// Variables of this service's programs instead of the gateway's clients
    #[arg(value_name = "SVC")]
    pub(crate) service: Option<String>,
    /// The shell to write for
    #[arg(long, value_name = "SHELL", default_value = "posix")]
    pub(crate) shell: ShellKind,
    /// How long the token is valid
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
    pub(crate) jwt_ttl: std::time::Duration,
}

/// The shells `hms env` can write for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ShellKind {
    /// sh, bash, zsh, dash.
    #[value(aliases = ["bash", "zsh", "sh"])]
    Posix,
    /// fish.
    Fish,
    /// `PowerShell`.
    Powershell,
    /// `NAME=value` lines, for `docker --env-file`.
    Dotenv,
}

/// `hms check`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Check {
    /// Only these groups
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    pub(crate) only: Vec<CheckGroup>,
    /// Not these groups
    #[arg(long, value_delimiter = ',', value_name = "GROUP")]
    pub(crate) skip: Vec<CheckGroup>,
}

/// The groups of `hms check`, in the order they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum CheckGroup {
    /// Binary, folders, leftovers.
    Laptop,
    /// Reachable, serving, proxies in step.
    ControlPlane,
    /// Root, workloads, rotation.
    Certificates,
    /// Healthy endpoints, breakers.
    Services,
    /// Listening, trusted, token issuer.
    Gateway,
    /// Findings about the configuration.
    Configuration,
}

/// `hms tap`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tap {
    /// The service called [default: all]
    #[arg(value_name = "SVC")]
    pub(crate) service: Option<String>,
    /// Only calls from this service
    #[arg(long, value_name = "SVC")]
    pub(crate) from: Option<String>,
    /// Only this method
    #[arg(long)]
    pub(crate) method: Option<String>,
    /// Only this path; a last * matches any rest
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Only this status, such as 404 or 5xx
    #[arg(long)]
    pub(crate) status: Option<String>,
    /// Only answers of 400 and above
    #[arg(long)]
    pub(crate) errors: bool,
    /// Only traces whose id starts so (at least 6 hex digits)
    #[arg(long, value_name = "ID")]
    pub(crate) trace: Option<String>,
    /// End after so many requests
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
}

/// `hms certificates`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Certificates {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: CertificatesVerb,
}

/// What to do with certificates.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CertificatesVerb {
    /// List workload certificates
    Ls,
    /// Renew now, with new keys
    Rotate(Rotate),
}

/// `hms certificates rotate`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rotate {
    /// Only this service [default: all]
    #[arg(value_name = "SVC")]
    pub(crate) service: Option<String>,
    /// Life of the new certificates, such as 24h
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) validity: Option<std::time::Duration>,
}

/// `hms enforce`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Enforce {
    /// What to hold the mesh to.
    #[command(subcommand)]
    pub(crate) rule: EnforceRule,
}

/// The rules that can be enforced.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum EnforceRule {
    /// Mutual TLS between every two proxies
    Mtls {
        /// STRICT refuses plaintext
        #[arg(long, ignore_case = true, value_name = "MODE")]
        mode: MtlsMode,
    },
}

/// How strictly mutual TLS is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum MtlsMode {
    /// Plaintext between proxies is refused.
    #[value(name = "STRICT")]
    Strict,
    /// Plaintext is taken while services migrate.
    #[value(name = "PERMISSIVE")]
    Permissive,
}

/// `hms lint`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Lint {
    /// Files [default: those `hms up` would read]
    #[arg(value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Do not mention this habit; may be given several times
    #[arg(long, value_name = "NAME", value_parser = parse_lint)]
    pub(crate) suppress: Vec<hms_formats::lints::Lint>,
}

/// `hms convert`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Convert {
    /// Files with objects
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Whose objects they must be
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) from: Origin,
    /// What is written
    #[arg(long, value_name = "FORMAT", default_value = "gateway-api")]
    pub(crate) to: Target,
}

/// Whose objects are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Origin {
    /// Whatever they say they are.
    Auto,
    /// AWS App Mesh's.
    Appmesh,
    /// Consul's.
    Consul,
    /// The Gateway API's.
    GatewayApi,
    /// Istio's.
    Istio,
    /// Linkerd's.
    Linkerd,
    /// SMI's.
    Smi,
}

/// What objects are converted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The Gateway API's.
    GatewayApi,
}

/// A lint by its name.
fn parse_lint(text: &str) -> Result<hms_formats::lints::Lint, String> {
    use hms_formats::lints::Lint;
    Lint::ALL.into_iter().find(|lint| lint.as_str() == text).ok_or_else(|| {
        let names = Lint::ALL.map(Lint::as_str);
        format!("known: {}", names.join(", "))
    })
}

/// `hms sim`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sim {
    /// The scenario
    #[arg(value_name = "SCENARIO")]
    pub(crate) file: PathBuf,
    /// Seed of its dice; the same gives the same bytes [default: the scenario's]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

/// `hms routes`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Routes {
    /// Which way.
    #[command(subcommand)]
    pub(crate) verb: RoutesVerb,
}

/// Which way routes go.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum RoutesVerb {
    /// Print every route in the shape of routes.json
    Export,
    /// Take routes from a file in that shape, all or nothing
    Import {
        /// The file, or - for stdin
        file: PathBuf,
    },
}

/// `hms explain`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Explain {
    /// A code such as HMS-1101 [default: list all]
    pub(crate) code: Option<String>,
}

/// `hms completion`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Completion {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// `hms help`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Help {
    /// A command, or exit-codes
    pub(crate) topic: Vec<String>,
}

/// The arguments of another name of this program.
#[derive(Debug, Clone, Args)]
pub(crate) struct Alias {
    /// The name.
    pub(crate) name: String,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<std::ffi::OsString>,
}

/// `hms exec`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Exec {
    /// The service
    #[arg(value_name = "SVC")]
    pub(crate) service: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<std::ffi::OsString>,
}

/// How applications are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InterceptChoice {
    /// The best this machine allows.
    Auto,
    /// In namespaces of their own.
    Netns,
    /// By notifications of their system calls.
    Notify,
    /// By `HTTP_PROXY` and `<NAME>_URL`.
    Env,
    /// By `<NAME>_URL` alone.
    Port,
    /// Not at all.
    None,
}
