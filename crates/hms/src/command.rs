//! The commands, one file each. A command takes the settings and the printer, and returns how it ended.

mod apply;
mod breaker;
mod canary;
mod certificates;
mod changes;
mod check;
mod completion;
mod control;
mod convert;
mod delete;
mod diff;
mod down;
mod egress;
mod enforce;
mod env;
mod exec;
mod explain;
mod get;
mod help;
mod history;
mod jwt;
mod lint;
mod proxy;
mod proxy_run;
mod register;
mod rollback;
mod routes;
mod services;
mod set;
mod shift;
mod sim;
mod status;
mod stop;
mod taken;
mod tap;
mod version;
mod why;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop;
use crate::output::Output;
use crate::project::Project;
use crate::settings::Settings;

/// What every command is given.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// What was asked for.
    pub(crate) settings: &'a Settings,
    /// The printer.
    pub(crate) output: &'a Output,
}

impl Context<'_> {
    /// The project this is about.
    pub(crate) fn project(&self) -> Result<Project, Failure> {
        Project::find(self.settings)
    }

    /// The control plane of that project.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::find(self.settings, &self.project()?)
    }

    /// A service's name as the control plane lists it, from any accepted spelling (ruling R7).
    pub(crate) fn service(&self, text: &str) -> Result<String, Failure> {
        hms_model::names::ServiceName::from_host(text, &self.settings.namespace).map(|name| name.to_string()).map_err(
            |error| Failure::new(Exit::Usage, 1017, format!("`{text}` is no service name")).because(error.to_string()),
        )
    }

    /// The name of a program: its service's, or one version of several after an `@`.
    pub(crate) fn program(&self, text: &str) -> Result<String, Failure> {
        match text.split_once('@') {
            Some((service, version)) => Ok(format!("{}@{version}", self.service(service)?)),
            None => self.service(text),
        }
    }
}

/// Runs a command.
pub(crate) async fn run(command: Command, settings: &Settings, output: &Output) -> Result<Exit, Failure> {
    let context = Context { settings, output };
    match command {
        Command::Up(options) => {
            logging(settings);
            Box::pin(laptop::up::up(settings, &options, output)).await
        }
        Command::Run(options) => {
            logging(settings);
            laptop::run::run(settings, &options, output).await
        }
        Command::Control(options) => {
            logging(settings);
            control::run(context, &options).await
        }
        Command::Down(options) => down::run(context, &options).await,
        Command::Exec(options) => exec::run(context, &options).await,
        Command::Register(options) => register::run(context, &options.files).await,
        Command::Services => services::run(context).await,
        Command::Status => status::run(context).await,
        Command::Stop(options) => stop::run(context, &options.service, stop::Verb::Stop).await,
        Command::Start(options) => stop::run(context, &options.service, stop::Verb::Start).await,
        Command::Restart(options) => stop::run(context, &options.service, stop::Verb::Restart).await,
        Command::Proxy(options) => proxy::run(context, &options.verb).await,
        Command::Breaker(options) => breaker::run(context, &options.verb).await,
        Command::Apply(options) => apply::run(context, &options).await,
        Command::Diff(options) => diff::run(context, &options.files).await,
        Command::Get(options) => get::run(context, &options).await,
        Command::Delete(options) => delete::run(context, &options).await,
        Command::History => history::run(context).await,
        Command::Rollback(options) => rollback::run(context, &options).await,
        Command::Shift(options) => shift::run(context, &options).await,
        Command::Canary(options) => canary::run(context, &options.verb).await,
        Command::Set(options) => set::run(context, &options).await,
        Command::Sim(options) => sim::run(context, &options),
        Command::Why(options) => why::run(context, &options).await,
        Command::Egress => egress::run(context).await,
        Command::Jwt(options) => jwt::run(context, &options.verb).await,
        Command::Env(options) => env::run(context, &options).await,
        Command::Check(options) => check::run(context, &options).await,
        Command::Tap(options) => tap::run(context, &options).await,
        Command::Certificates(options) => certificates::run(context, &options.verb).await,
        Command::Enforce(options) => enforce::run(context, &options.rule).await,
        Command::Lint(options) => lint::run(context, &options),
        Command::Convert(options) => convert::run(context, &options),
        Command::Routes(options) => routes::run(context, &options.verb).await,
        Command::Explain(options) => explain::run(context, options.code.as_deref()),
        Command::Version => version::run(context).await,
        Command::Completion(options) => Ok(completion::run(context, options.shell)),
        Command::Help(options) => help::run(context, &options.topic),
        Command::As(alias) => Box::pin(under_another_name(alias, settings)).await,
    }
}

/// `hms-api` and `envoyctl`: exactly the verbs of the seeds, nothing else (ruling R18).
async fn under_another_name(alias: crate::cli::Alias, settings: &Settings) -> Result<Exit, Failure> {
    let words = std::iter::once(alias.name.clone().into()).chain(alias.arguments);
    let cli = match Cli::try_parse_from(words) {
        Ok(cli) => cli,
        Err(error) => {
            drop(error.print());
            return Ok(if error.use_stderr() { Exit::Usage } else { Exit::Ok });
        }
    };
    let known = matches!(
        (alias.name.as_str(), &cli.command),
        ("hms-api", Command::Register(_))
            | ("envoyctl", Command::Certificates(_) | Command::Enforce(_))
            | (_, Command::Help(_))
    );
    if !known {
        return Err(Failure::new(Exit::Usage, 1018, format!("{} has no such command", alias.name))
            .because("hms-api knows register; envoyctl knows certificates rotate and enforce mtls")
            .fix("hms -h"));
    }
    let settings = Settings::resolve(&cli.globals, settings.environment.clone())?;
    let output = Output::new(&settings);
    Box::pin(run(cli.command, &settings, &output)).await
}

/// Sends what the parts inside this process log to stderr: warnings, more with `-v`.
fn logging(settings: &Settings) {
    use tracing_subscriber::EnvFilter;
    let default = match settings.verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = settings.environment.text("HMS_LOG").unwrap_or(default);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(settings.colour.1)
        .finish();
    // A second subscriber would only be set by a test; the first stays.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
