//! What is said while something takes its time: finished steps as lines, the slowest item as one line that replaces itself.

use std::io::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::Output;

/// Silence before the first waiting line.
const PATIENCE: Duration = Duration::from_millis(500);
/// Without a terminal, an unchanged state is repeated this often.
const REPEAT: Duration = Duration::from_secs(10);

/// A running account of one long command.
#[derive(Debug)]
pub(crate) struct Progress {
    animate: bool,
    since: Instant,
    shown: String,
    shown_at: Instant,
    line_open: bool,
}

impl Progress {
    /// Starts the account now.
    pub(crate) fn new(output: &Output) -> Self {
        let now = Instant::now();
        Self { animate: output.can_animate(), since: now, shown: String::new(), shown_at: now, line_open: false }
    }

    /// A finished step: a line of data that stays.
    pub(crate) fn step(&mut self, output: &Output, line: &str) {
        self.clear();
        if output.is_for_people() {
            output.line(line);
        } else {
            output.note(line);
        }
    }

    /// What is waited for. On a terminal the line replaces itself; elsewhere it is written on each change and every 10 s.
    pub(crate) fn waiting(&mut self, output: &Output, what: &str) {
        let now = Instant::now();
        if now.duration_since(self.since) < PATIENCE {
            return;
        }
        if self.animate {
            let elapsed = now.duration_since(self.since).as_secs_f64();
            let mut stderr = std::io::stderr().lock();
            // The state line is a courtesy; a closed stderr must not end the work.
            drop(
                write!(stderr, "\r\x1b[2K{} waiting on {what} ({elapsed:.1} s)", output.dot())
                    .and_then(|()| stderr.flush()),
            );
            self.line_open = true;
        } else if what != self.shown || now.duration_since(self.shown_at) >= REPEAT {
            output.note(&format!("{} waiting on {what}", output.dot()));
            what.clone_into(&mut self.shown);
            self.shown_at = now;
        }
    }

    /// Removes the line that replaces itself.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.line_open) {
            let mut stderr = std::io::stderr().lock();
            drop(write!(stderr, "\r\x1b[2K").and_then(|()| stderr.flush()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
