//! Going to the background: the same program starts again in a session of its own and tells its parent, line by line, what
//! the parent would have printed itself.

use std::ffi::OsString;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::progress::Progress;
use crate::project::Project;

/// What the detached half says on its stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum News {
    /// A finished step.
    Step(String),
    /// What is waited for.
    Waiting(String),
    /// A remark for stderr.
    Note(String),
    /// Everything is ready.
    Ready,
    /// It failed, and everything has ended.
    Failed(Value),
}

/// Where an account of a long start goes: to the terminal, or to the parent that shows it there.
#[derive(Debug)]
pub(crate) enum Report<'o> {
    /// This process has the terminal.
    Terminal {
        /// The printer.
        output: &'o Output,
        /// The account.
        progress: Progress,
    },
    /// This process is the detached half.
    Parent {
        /// The printer, for its colours and signs.
        output: &'o Output,
        /// The last thing waited for; only changes are sent.
        shown: String,
    },
}

impl<'o> Report<'o> {
    /// A report for this process.
    pub(crate) fn new(output: &'o Output, detached: bool) -> Self {
        if detached {
            Self::Parent { output, shown: String::new() }
        } else {
            Self::Terminal { output, progress: Progress::new(output) }
        }
    }

    /// The printer.
    pub(crate) fn output(&self) -> &'o Output {
        match self {
            Self::Terminal { output, .. } | Self::Parent { output, .. } => output,
        }
    }

    /// A finished step.
    pub(crate) fn step(&mut self, line: &str) {
        match self {
            Self::Terminal { output, progress } => progress.step(output, line),
            Self::Parent { output, .. } => tell(output, &News::Step(line.to_owned())),
        }
    }

    /// What is waited for.
    pub(crate) fn waiting(&mut self, what: &str) {
        match self {
            Self::Terminal { output, progress } => progress.waiting(output, what),
            Self::Parent { output, shown } => {
                if what != shown.as_str() {
                    what.clone_into(shown);
                    tell(output, &News::Waiting(what.to_owned()));
                }
            }
        }
    }

    /// A remark.
    pub(crate) fn note(&mut self, text: &str) {
        match self {
            Self::Terminal { output, progress } => {
                progress.clear();
                output.note(text);
            }
            Self::Parent { output, .. } => tell(output, &News::Note(text.to_owned())),
        }
    }

    /// The end of the account. Returns whether the failure has been passed on and needs no printing here.
    pub(crate) fn done(&mut self, result: Result<(), &Failure>) {
        match self {
            Self::Terminal { progress, .. } => progress.clear(),
            Self::Parent { output, .. } => tell(
                output,
                &match result {
                    Ok(()) => News::Ready,
                    Err(failure) => News::Failed(failure.to_json()),
                },
            ),
        }
    }
}

fn tell(output: &Output, news: &News) {
    output.line(&serde_json::to_string(news).unwrap_or_default());
}

/// Starts `hms ARGUMENTS` in the background and shows its account until it is ready. It ends with this process if that is
/// interrupted before. Returns its process number; `None` if it has ended since.
pub(crate) async fn start(
    output: &Output,
    project: &Project,
    log: &str,
    arguments: &[OsString],
) -> Result<Option<u32>, Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, 1014, "cannot go to the background").because(why);
    let own = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let path = project.sidecar_dir().join(log);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let colour = if output.has_colour() { "always" } else { "never" };
    let mut child = Command::new(own)
        .args(["--color", colour, "--project"])
        .arg(&project.root)
        .args(arguments)
        .arg("--detached")
        .current_dir(&project.root)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let stdout = child.stdout.take().ok_or_else(|| failed("no pipe".to_owned()))?;
    let mut lines = BufReader::new(stdout).lines();
    let mut progress = Progress::new(output);
    let mut waiting = String::new();
    let mut interrupts = super::supervise::Interrupts::take()?;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            exit = interrupts.next() => {
                if let Some(process) = child.id().and_then(crate::processes::ProcessId::of) {
                    process.signal(nix::sys::signal::Signal::SIGTERM);
                }
                drop(child.wait().await);
                return Err(Failure::new(exit, 1015, "interrupted; nothing was left running"));
            }
            () = tokio::time::sleep(std::time::Duration::from_millis(100)), if !waiting.is_empty() => {
                progress.waiting(output, &waiting);
                continue;
            }
        };
        let Ok(Some(line)) = line else {
            let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            return Err(failed(format!("it ended: {status}")).fix(format!("tail {}", path.display())));
        };
        match serde_json::from_str(&line) {
            Ok(News::Step(line)) => {
                waiting.clear();
                progress.step(output, &line);
            }
            Ok(News::Waiting(what)) => waiting = what,
            Ok(News::Note(text)) => {
                progress.clear();
                output.note(&text);
            }
            Ok(News::Ready) => return Ok(child.id()),
            Ok(News::Failed(failure)) => {
                drop(child.wait().await);
                return Err(Failure::from_json(&failure));
            }
            Err(error) => tracing::debug!(%error, "a line that is no news"),
        }
    }
}

/// The detached half's first act: a session of its own, so the terminal's end does not reach it.
pub(crate) fn leave_session() -> Result<(), Failure> {
    nix::unistd::setsid().map(drop).map_err(|error| {
        Failure::new(Exit::Failed, 1014, "cannot go to the background").because(error.desc().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_travel_as_one_line_each() {
        for news in [
            News::Step("√ ready".into()),
            News::Waiting("calc-svc".into()),
            News::Note("a\nb".into()),
            News::Ready,
            News::Failed(Failure::new(Exit::Deadline, 1003, "late").to_json()),
        ] {
            let line = serde_json::to_string(&news).unwrap();
            assert!(!line.contains('\n'), "{line}");
            assert_eq!(serde_json::from_str::<News>(&line).unwrap(), news);
        }
    }
}
