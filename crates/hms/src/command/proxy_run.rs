//! `hms proxy run`: a proxy in the foreground, led by a static file instead of a control plane.
//!
//! The file is translated here; the proxy reads what came of it. A changed file starts a second proxy, which takes over the
//! listeners of the first: no request is lost, and with a mistake in the file nothing changes.

use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::hash::{Hash as _, Hasher as _};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hms_formats::envoy_static;
use hms_model::finding::Finding;
use hms_model::standalone::Standalone;
use hms_wire::{decode_standalone, encode_standalone};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::{Context, lint};
use crate::cli::ProxyRun;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::lifeline::Lifeline;
use crate::laptop::plan;
use crate::laptop::sidecar::find_program;
use crate::project::{private_dir, unreadable};
use crate::tasks;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How often a new proxy's port file is looked for.
const POLL: Duration = Duration::from_millis(10);
/// How long a proxy may take until it accepts connections: it waits 5 s for names.
const START: Duration = Duration::from_secs(20);
/// How long a proxy that was replaced may take to end; it gives itself 15 s.
const REPLACED: Duration = Duration::from_secs(25);

/// Runs the proxy until it ends.
pub(super) async fn run(context: Context<'_>, options: &ProxyRun) -> Result<Exit, Failure> {
    let seen = mark(&options.config);
    let (standalone, findings) = translate(&options.config)?;
    if options.check {
        return Ok(lint::show(context, 1, &findings));
    }
    let standalone = standalone.ok_or_else(|| refused(&findings))?;
    say(context, &findings);
    let mut running = Running::start(context, options, &standalone).await?;
    running.follow(context, options, seen).await
}

/// What a file says, if it has no mistakes, and what was found in it.
type Translated = (Option<Standalone>, Vec<Finding>);

fn translate(file: &Path) -> Result<Translated, Failure> {
    let here = std::env::current_dir().map_err(|error| unreadable(Path::new("."), &error))?;
    match plan::source(&here, file) {
        Ok(source) => Ok(envoy_static::translate(&source)),
        // Bytes that are no text are a finding; a file that is not there is a failure.
        Err(failure) if !failure.all_findings().is_empty() => Ok((None, failure.all_findings().to_vec())),
        Err(failure) => Err(failure),
    }
}

fn refused(findings: &[Finding]) -> Failure {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let message = format!("{errors} error{}; nothing was started", if errors == 1 { "" } else { "s" });
    Failure::new(Exit::Findings, 2100, message).findings(findings.to_vec()).fix("correct the file, then: hms lint FILE")
}

/// On stderr: stdout is the access log's.
fn say(context: Context<'_>, findings: &[Finding]) {
    if !findings.is_empty() {
        context.output.note(hms_formats::render(findings, context.output.has_colour()).trim_end());
    }
}

/// What a proxy writes when it accepts connections.
#[derive(Debug, Deserialize)]
struct Ports {
    pid: u32,
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
}

/// The proxy, and what stands around it.
struct Running {
    child: Child,
    program: PathBuf,
    folder: PathBuf,
    lifeline: Lifeline,
}

impl Running {
    async fn start(context: Context<'_>, options: &ProxyRun, standalone: &Standalone) -> Result<Self, Failure> {
        let program = find_program(context.settings)?;
        let folder = folder(context, &options.config)?;
        let path = folder.join(format!("lifeline-{}.sock", std::process::id()));
        let lifeline = Lifeline::open(path.clone()).map_err(|error| {
            Failure::new(Exit::Failed, 1009, "a private folder is not usable")
                .at(path.display().to_string())
                .because(error.to_string())
        })?;
        let child = spawn(&program, &folder, lifeline.path(), options, standalone)?;
        let mut running = Self { child, program, folder, lifeline };
        match listening(&running.folder, &mut running.child).await {
            Ok(ports) => {
                header(context, &ports);
                Ok(running)
            }
            Err(Some(status)) => Err(Failure::new(ended(status), 1105, "the proxy did not start")
                .because("its own words stand above")
                .fix("correct what it says; another program may have the port")),
            Err(None) => {
                drop(running.child.kill().await);
                Err(Failure::new(Exit::Failed, 1105, "the proxy did not accept connections in time"))
            }
        }
    }

    /// Passes signals on, and replaces the proxy when the file changes; returns how the proxy ended.
    async fn follow(
        &mut self,
        context: Context<'_>,
        options: &ProxyRun,
        mut seen: Option<Mark>,
    ) -> Result<Exit, Failure> {
        let handle = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, 1013, "cannot listen for signals").because(error.to_string())
            })
        };
        let mut terminate = handle(SignalKind::terminate())?;
        let mut interrupt = handle(SignalKind::interrupt())?;
        let mut hang_up = handle(SignalKind::hangup())?;
        loop {
            let again = tokio::select! {
                status = self.child.wait() => {
                    return Ok(status.map_or(Exit::Failed, ended));
                }
                _ = terminate.recv() => {
                    self.pass_on(Signal::SIGTERM);
                    false
                }
                _ = interrupt.recv() => {
                    self.pass_on(Signal::SIGINT);
                    false
                }
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK) => mark(&options.config).is_some_and(|now| Some(now) != seen),
            };
            if again {
                seen = mark(&options.config);
                self.reload(context, options).await;
            }
        }
    }

    fn pass_on(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It has not been waited for, so the number is still its own.
            let _gone_is_fine = kill(Pid::from_raw(pid), signal).is_ok();
        }
    }

    /// A new proxy takes the place of this one, or everything stays.
    async fn reload(&mut self, context: Context<'_>, options: &ProxyRun) {
        let output = context.output;
        let kept =
            |why: &str| output.note(&format!("{}: {why}; the proxy goes on as it was", options.config.display()));
        let (standalone, findings) = match translate(&options.config) {
            Ok(translated) => translated,
            Err(failure) => {
                output.failure(&failure);
                return kept("not readable");
            }
        };
        say(context, &findings);
        let Some(standalone) = standalone else { return kept("has mistakes") };
        let mut child = match spawn(&self.program, &self.folder, self.lifeline.path(), options, &standalone) {
            Ok(child) => child,
            Err(failure) => {
                output.failure(&failure);
                return kept("a new proxy cannot be started");
            }
        };
        match listening(&self.folder, &mut child).await {
            Ok(ports) => {
                let old = std::mem::replace(&mut self.child, child);
                tasks::spawn("replaced", finish(old));
                output.note(&format!("{}: in use", options.config.display()));
                header(context, &ports);
            }
            Err(_ended) => {
                drop(child.kill().await);
                kept("the new proxy did not take over");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A leftover means nothing to anybody.
        drop(std::fs::remove_file(snapshot(&self.folder)));
    }
}

/// Waits for a proxy that was replaced.
async fn finish(mut old: Child) {
    if tokio::time::timeout(REPLACED, old.wait()).await.is_err() {
        drop(old.kill().await);
    }
}

/// The private folder of a file's proxy: a second run of the same file takes over from the first.
fn folder(context: Context<'_>, file: &Path) -> Result<PathBuf, Failure> {
    let file = std::fs::canonicalize(file).map_err(|error| unreadable(file, &error))?;
    let mut hasher = DefaultHasher::new();
    file.hash(&mut hasher);
    let run = &context.settings.directories.run;
    private_dir(run)?;
    let folder = run.join(format!("static-{:016x}", hasher.finish()));
    private_dir(&folder)?;
    Ok(folder)
}

fn spawn(
    program: &Path,
    folder: &Path,
    lifeline: &Path,
    options: &ProxyRun,
    standalone: &Standalone,
) -> Result<Child, Failure> {
    let snapshot = snapshot(folder);
    let bytes = encode_standalone(standalone);
    // The proxy's bounds, before anything is started.
    if let Err(error) = decode_standalone(&bytes) {
        return Err(
            Failure::new(Exit::Failed, 2112, "the file is more than one proxy takes").because(error.to_string())
        );
    }
    write_whole(&snapshot, &bytes).map_err(|error| unreadable(&snapshot, &error))?;
    let mut command = Command::new(program);
    command.arg("--snapshot").arg(&snapshot).arg("--runtime-dir").arg(folder).arg("--lifeline").arg(lifeline);
    if let Some(admin) = options.admin {
        command.arg("--admin").arg(admin.to_string());
    }
    if let Some(log) = &options.access_log {
        command.arg("--access-log").arg(log);
    }
    command.args(&options.arguments);
    // A group of its own, so keys of the terminal reach it through us and once.
    command.stdin(Stdio::null()).process_group(0);
    command.spawn().map_err(|error| {
        Failure::new(Exit::Failed, 1105, "cannot start the proxy")
            .at(program.display().to_string())
            .because(error.to_string())
    })
}

/// What the proxy reads; each of us has one, so that two that run the same file never read each other's.
fn snapshot(folder: &Path) -> PathBuf {
    folder.join(format!("snapshot-{}", std::process::id()))
}

/// Readers see the old file or the new one.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    std::fs::rename(&temporary, path)
}

/// Waits until the proxy accepts connections; the error is how it ended, or nothing if it took too long.
async fn listening(folder: &Path, child: &mut Child) -> Result<Ports, Option<ExitStatus>> {
    let (file, pid) = (folder.join("ports.json"), child.id());
    let written = async {
        loop {
            let text = tokio::fs::read_to_string(&file).await.unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<Ports>(&text)
                && Some(ports.pid) == pid
            {
                return ports;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::select! {
        ports = tokio::time::timeout(START, written) => ports.map_err(|_elapsed| None),
        status = child.wait() => Err(status.ok()),
    }
}

/// `listener_0 0.0.0.0:15001 · admin 127.0.0.1:41811`, on stderr.
fn header(context: Context<'_>, ports: &Ports) {
    let dot = format!(" {} ", context.output.dot());
    let listeners: Vec<String> = ports.listeners.iter().map(|(name, address)| format!("{name} {address}")).collect();
    context.output.note(&format!("{}{dot}admin {}", listeners.join(&dot), ports.admin));
}

fn ended(status: ExitStatus) -> Exit {
    let signal = status.signal().and_then(|signal| u8::try_from(128 + signal).ok());
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Exit::Child(code.or(signal).unwrap_or(1))
}

/// What changes when a file does: editors replace it, others write into it.
type Mark = (u64, u64, i64, i64);

fn mark(file: &Path) -> Option<Mark> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}
