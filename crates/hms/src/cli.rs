//! The command line: one declaration for the parser, the help and the completions.

mod changing;
mod options;

use std::path::PathBuf;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub(crate) use changing::{Apply, Canary, CanaryStart, CanaryVerb, Delete, Get, Rollback};
pub(crate) use options::{
    Alias, Breaker, BreakerVerb, Certificates, CertificatesVerb, Check, CheckGroup, Completion, Control, Convert, Down,
    Enforce, EnforceRule, Env, Exec, Explain, Files, Help, InterceptChoice, Jwt, JwtIssue, JwtVerb, Lint, MtlsMode,
    OnOff, OneService, Origin, PortChoice, Proxy, ProxyRestart, ProxyRun, ProxyVerb, Rotate, Routes, RoutesVerb, Run,
    Set, ShellKind, Shift, Sim, Store, Tap, Target, Up, Why,
};

/// Examples come first, then what the command does, then its flags: `-h` fits one screen.
const TEMPLATE: &str = "{before-help}{about}\n\n{usage-heading} {usage}\n\n{all-args}{after-help}";

const EXAMPLES: &str = "\
  hms up                                  start everything in this folder
  eval \"$(hms env)\"                       make curl and $JWT work in this shell
  curl -H \"Authorization: Bearer $JWT\" https://gateway.local/sum/2/3
  hms stop calc-svc                       break it; hms breaker show calc-svc
  hms down                                stop everything
";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "hms",
    version,
    about = "A service mesh on one command line: mutual TLS, retries, breakers, a gateway",
    before_help = EXAMPLES,
    help_template = TEMPLATE,
    max_term_width = 110,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true,
    args_override_self = true
)]
pub(crate) struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub(crate) globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags that every command understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub(crate) struct Globals {
    /// The project's folder [default: the nearest upward with a mesh]
    #[arg(long, global = true, env = "HMS_PROJECT", hide_env = true, hide_short_help = true, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
    /// Control plane to talk to, such as `http://127.0.0.1:15014`
    #[arg(long, global = true, env = "HMS_SERVER", hide_env = true, hide_short_help = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Namespace of a bare service name
    #[arg(
        short,
        long,
        global = true,
        env = "HMS_NAMESPACE",
        hide_env = true,
        hide_short_help = true,
        value_name = "NAME"
    )]
    pub(crate) namespace: Option<String>,
    /// Shape of the answer
    #[arg(short, long, global = true, env = "HMS_OUTPUT", hide_env = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// Only data and errors
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) quiet: bool,
    /// More on stderr; twice for debugging
    #[arg(short, long, global = true, hide_short_help = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// When to use colour
    #[arg(long, global = true, env = "HMS_COLOR", hide_env = true, hide_short_help = true, value_name = "WHEN")]
    pub(crate) color: Option<Colour>,
    /// Longest wait for the control plane, such as 5s
    #[arg(long, global = true, env = "HMS_TIMEOUT", hide_env = true, hide_short_help = true, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) timeout: Option<std::time::Duration>,
    /// Answer every question with yes
    #[arg(short, long, global = true, hide_short_help = true)]
    pub(crate) yes: bool,
}

/// The shape of the answer on stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens.
    Wide,
    /// One document, with `apiVersion` and `kind`; streams are one document per line.
    Json,
    /// The same document as YAML.
    Yaml,
    /// Names only, one per line.
    Name,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Colour {
    /// On a terminal, unless the environment says otherwise.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the control plane, the gateway, and every service with its sidecar
    #[command(before_help = "  hms up\n  hms up -d --wait\n  hms up calc-svc -f mesh.yaml --https 9443\n", help_template = TEMPLATE)]
    Up(Up),
    /// Stop everything `up`, `run` and `register` started
    #[command(before_help = "  hms down\n  hms down --purge -y\n", help_template = TEMPLATE)]
    Down(Down),
    /// Run one program as a service, with its sidecar
    #[command(
        before_help = "  hms run calc-svc -p 8000 -- uvicorn app:app --port 8000\n  hms run load -- python3 client.py\n",
        help_template = TEMPLATE
    )]
    Run(Run),
    /// Run a program beside a service's own, with the same view of the network
    #[command(before_help = "  hms exec calc-svc -- curl http://hello-svc/\n  hms exec calc-svc -- sh\n", help_template = TEMPLATE)]
    Exec(Exec),
    /// Run the control plane alone
    #[command(before_help = "  hms control\n  hms control --store memory --rest 127.0.0.1:0\n", help_template = TEMPLATE)]
    Control(Control),
    /// Tell the mesh about services by their route files
    #[command(before_help = "  hms register hello_svc/route.yaml calc_svc/route.yaml\n", help_template = TEMPLATE)]
    Register(Files),
    /// List services with their endpoints
    #[command(before_help = "  hms services\n  hms services -o json\n", help_template = TEMPLATE)]
    Services,
    /// Show what runs and how it fares
    #[command(alias = "ps", before_help = "  hms status\n  hms ps -o wide\n", help_template = TEMPLATE)]
    Status,
    /// Stop a service's program; its sidecar and registration stay
    #[command(before_help = "  hms stop calc-svc\n", help_template = TEMPLATE)]
    Stop(OneService),
    /// Start a stopped service's program again
    #[command(before_help = "  hms start calc-svc\n", help_template = TEMPLATE)]
    Start(OneService),
    /// Stop and start a service's program
    #[command(before_help = "  hms restart calc-svc\n", help_template = TEMPLATE)]
    Restart(OneService),
    /// Restart proxies without losing a request
    #[command(before_help = "  hms proxy restart calc-svc\n  hms proxy restart --all\n", help_template = TEMPLATE)]
    Proxy(Proxy),
    /// Show circuit breakers
    #[command(before_help = "  hms breaker ls\n  hms breaker show calc-svc\n", help_template = TEMPLATE)]
    Breaker(Breaker),
    /// Apply route files and Kubernetes' routing objects, all together or none
    #[command(before_help = "  hms apply canary-split.yaml\n  hms apply calc_svc/route.yaml canary-split.yaml\n  hms apply --dry-run canary-split.yaml\n", help_template = TEMPLATE)]
    Apply(Apply),
    /// Show what applying files would change, line by line
    #[command(before_help = "  hms diff canary-split.yaml\n  hms diff calc_svc/route.yaml || echo differs\n", help_template = TEMPLATE)]
    Diff(Files),
    /// Show what is configured: declarations, routes, splits, …
    #[command(before_help = "  hms get\n  hms get splits\n  hms get split payment-svc -o json\n", help_template = TEMPLATE)]
    Get(Get),
    /// Remove something that is configured, by name or by its file
    #[command(before_help = "  hms delete split payment-svc\n  hms delete -f canary-split.yaml\n", help_template = TEMPLATE)]
    Delete(Delete),
    /// List the revisions of the configuration, with what each changed
    #[command(before_help = "  hms history\n  hms history -o wide\n", help_template = TEMPLATE)]
    History,
    /// Make the configuration what it was at an earlier revision
    #[command(before_help = "  hms rollback\n  hms rollback --to 42\n  hms rollback --dry-run\n", help_template = TEMPLATE)]
    Rollback(Rollback),
    /// Divide a service's calls among its versions, or show how they are divided
    #[command(before_help = "  hms shift payment-svc v2=10\n  hms shift payment-svc\n  hms shift payment-svc --clear\n", help_template = TEMPLATE)]
    Shift(Shift),
    /// Give a new version more and more of the calls, as long as it is good
    #[command(before_help = "  hms canary start payment-svc --to v2 --steps 1,10,50,100 --hold 5m --max-5xx 1% --max-p95 300ms\n  hms canary status payment-svc\n  hms canary abort payment-svc\n", help_template = TEMPLATE)]
    Canary(Canary),
    /// Switch what the mesh does to every request on or off: jwt, rate-limit, retry, tracing
    #[command(before_help = "  hms set\n  hms set retry off\n  hms set rate-limit on\n", help_template = TEMPLATE)]
    Set(Set),
    /// Play a scenario on virtual time: load, failures, and the bounds that must hold
    #[command(before_help = "  hms sim retry-storm.yaml\n  hms sim retry-storm.yaml --seed 7 -o json\n", help_template = TEMPLATE)]
    Sim(Sim),
    /// Tell what would become of a request, and which rule decides
    #[command(before_help = "  hms why hello-svc calc-svc DELETE /sum/2/3\n  hms why gateway GET /sum/2/3\n  hms why --trace 7f23ab\n", help_template = TEMPLATE)]
    Why(Why),
    /// Show what may leave the mesh, and which hosts outside were called
    #[command(before_help = "  hms egress\n  hms egress -o json\n", help_template = TEMPLATE)]
    Egress,
    /// Issue or inspect tokens of the built-in issuer
    #[command(before_help = "  hms jwt issue --sub lena --role admin --ttl 1h\n  hms jwt inspect \"$JWT\"\n", help_template = TEMPLATE)]
    Jwt(Jwt),
    /// Print the shell variables that make clients trust and find the gateway
    #[command(before_help = "  eval \"$(hms env)\"\n  hms env --shell fish | source\n", help_template = TEMPLATE)]
    Env(Env),
    /// Look for trouble, and say how to mend it
    #[command(before_help = "  hms check\n  hms check --only certificates,services\n", help_template = TEMPLATE)]
    Check(Check),
    /// Watch requests live
    #[command(before_help = "  hms tap calc-svc\n  hms tap calc-svc --errors\n  hms tap --path '/sum/*' -o json\n", help_template = TEMPLATE)]
    Tap(Tap),
    /// List and rotate workload certificates
    #[command(before_help = "  hms certificates ls\n  hms certificates rotate --validity 24h\n", help_template = TEMPLATE)]
    Certificates(Certificates),
    /// Hold the mesh to a rule
    #[command(before_help = "  hms enforce mtls --mode STRICT\n", help_template = TEMPLATE)]
    Enforce(Enforce),
    /// Check route files and mesh.yaml without applying them
    #[command(before_help = "  hms lint\n  hms lint calc_svc/route.yaml mesh.yaml\n", help_template = TEMPLATE)]
    Lint(Lint),
    /// Write other meshes' objects as the Gateway API's
    #[command(before_help = "  hms convert virtual-service.yaml > routes.yaml\n  hms convert --from consul --to gateway-api *.json\n", help_template = TEMPLATE)]
    Convert(Convert),
    /// Carry routes in and out as routes.json
    #[command(before_help = "  hms routes export > routes.json\n  hms routes import /var/hms/routes.json\n", help_template = TEMPLATE)]
    Routes(Routes),
    /// Explain an HMS code
    #[command(before_help = "  hms explain HMS-1101\n  hms explain\n", help_template = TEMPLATE)]
    Explain(Explain),
    /// Print versions
    #[command(help_template = TEMPLATE)]
    Version,
    /// Print a completion script
    #[command(before_help = "  hms completion bash > ~/.local/share/bash-completion/completions/hms\n", help_template = TEMPLATE)]
    Completion(Completion),
    /// Print help: of a command, or `hms help exit-codes`
    #[command(help_template = TEMPLATE)]
    Help(Help),
    /// The verbs of another name of this program.
    #[command(name = "__as", hide = true)]
    As(Alias),
}

/// Commands that `hms -h` only names, so that it fits one screen; `hms --help` lists them with the others.
const MORE: [&str; 11] =
    ["convert", "diff", "get", "delete", "history", "rollback", "set", "exec", "routes", "version", "completion"];

/// The command line as `hms -h` shows it.
pub(crate) fn brief() -> clap::Command {
    let command = MORE.iter().fold(Cli::command(), |command, name| command.mut_subcommand(*name, |own| own.hide(true)));
    command.after_help(format!("More: {} (hms --help)", MORE.join(", ")))
}

/// Reads the command line; what is asked for in full is shown in full.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let full = arguments.get(1).is_some_and(|first| first == "--help");
    let mut command = if full { Cli::command() } else { brief() };
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Reads `500ms`, `5s`, `10m`, `24h`, `7d`; a bare number is refused, because people mean different units by it.
pub(crate) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let wrong = || format!("`{text}` is no duration; write 500ms, 5s, 10m, 24h or 7d");
    let count: u64 = digits.parse().map_err(|_not_a_number| wrong())?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let total = count.checked_mul(milliseconds).ok_or_else(wrong)?;
    if total == 0 {
        return Err("a duration must be longer than nothing".to_owned());
    }
    Ok(std::time::Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_fits_one_screen_and_starts_with_examples() {
        let help = brief().render_help().to_string();
        assert!(help.trim_start().starts_with("hms up"), "{help}");
        assert!(help.lines().count() <= 48, "{} lines\n{help}", help.lines().count());
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "5", "-5s", "1h61m", "999999999999999999h", "0s", "s", "5 s", "1e3s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_commands_of_the_seeds_are_understood() {
        for line in [
            "hms up -d --wait",
            "hms up -d --wait=10s --ports auto",
            "hms run calc-svc -p 8000 --version v2 -- uvicorn app:app --port 8000",
            "hms certificates rotate --validity 24h",
            "hms enforce mtls --mode STRICT",
            "hms enforce mtls --mode strict",
            "hms status -o wide",
            "hms ps",
            "hms __as hms-api register calc_svc/route.yaml",
            "hms breaker show calc-svc -o json",
            "hms --project /tmp services",
            "hms canary start calc-svc --to v2 --weight 10",
            "hms canary start calc-svc --to v2 --steps 1,10,50,100 --hold 30s --max-5xx 1% --max-p95 300ms --max-errors 5 -y",
            "hms rollback --to 42",
            "hms delete -f a.yaml b.yaml",
            "hms help exit-codes",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}: {:?}", Cli::try_parse_from(line.split(' ')));
        }
    }
}
