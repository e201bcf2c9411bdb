//! `hms-proxy`: reads its settings, starts its logging, runs [`hms_proxy::app`].

use std::path::Path;
use std::process::ExitCode;

use hms_proxy::app;
use hms_proxy::capture::{enter, joined, shepherd};
use hms_proxy::settings::{RESOLV_CONF, Settings, SettingsError, log_filter};
use tokio::task::LocalSet;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    // What stands beside an application does nothing else: no settings, no runtime, and no threads before it has split.
    if let Some(code) = beside_an_application() {
        return code;
    }
    let settings = match Settings::parse(std::env::args_os().skip(1)) {
        Ok(settings) => settings,
        Err(SettingsError::Asked(text)) => return say(&mut std::io::stdout(), &text, ExitCode::SUCCESS),
        Err(error) => return say(&mut std::io::stderr(), &format!("{error}\n"), ExitCode::from(2)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(log_filter()).with(lines).init();
    // Rights belong to threads, so they are let go of while there is one.
    if let Some(joined) = &settings.joined
        && let Err(why) = joined::set_up(joined, settings.inbound.port(), Path::new(RESOLV_CONF))
    {
        let text = format!(
            "error[HMS-1208]: this network cannot be captured\n  why: {why}\n  fix: give the container NET_ADMIN, SETGID and \
             SETUID, or see: hms explain HMS-1208\n"
        );
        return say(&mut std::io::stderr(), &text, ExitCode::FAILURE);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say(&mut std::io::stderr(), &format!("hms-proxy: {error}\n"), ExitCode::FAILURE),
    };
    // Administration serves HTTP with the engine of the data threads, whose connections never leave their thread.
    let ended = LocalSet::new().block_on(&runtime, app::run(settings));
    // A name that is still being asked for keeps nobody waiting.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => say(&mut std::io::stderr(), &format!("hms-proxy: {error}\n"), ExitCode::FAILURE),
    }
}

/// `__shepherd`, `__capture` and `__enter`; `None` if this is to be a proxy.
fn beside_an_application() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next()?.to_str()? {
        "__shepherd" => Some(with(shepherd::Options::parse(arguments), |options| shepherd::run(&options))),
        "__capture" => Some(with(shepherd::Options::parse(arguments), |options| shepherd::probe(options.masks))),
        // A program that does nothing, to see whether one could be started.
        "__nothing" => Some(ExitCode::SUCCESS),
        "__enter" => Some(enter::run(&arguments.collect::<Vec<_>>())),
        _ => None,
    }
}

fn with<T>(parsed: Result<T, lexopt::Error>, run: impl FnOnce(T) -> ExitCode) -> ExitCode {
    match parsed {
        Ok(options) => run(options),
        Err(error) => say(&mut std::io::stderr(), &format!("hms-proxy: {error}\n"), ExitCode::from(2)),
    }
}

fn say(to: &mut impl std::io::Write, text: &str, code: ExitCode) -> ExitCode {
    if to.write_all(text.as_bytes()).and_then(|()| to.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    code
}
