//! One JSON line per request, written behind the data path: a slow disk costs lines, never latency.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use serde::Serialize;

/// Lines waiting to be written before further ones are dropped and counted.
const QUEUE: usize = 8192;
/// How long lines are gathered before they are written together: waking the writer for each would cost more than the line.
const GATHER: Duration = Duration::from_millis(20);
/// Room that is kept for the next batch.
const KEPT: usize = 64 * 1024;
/// How long the end of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the writer is sent.
enum Message {
    Line(Vec<u8>),
    /// Everything before this has been written when the other end hears of it.
    Flush(SyncSender<()>),
}

/// One request, as it is logged. Names are stable; new ones may be added.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    /// RFC 3339, UTC, at the request's head.
    pub time: String,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Service or identity of the caller.
    pub source: &'a str,
    /// Service called.
    pub destination: &'a str,
    /// Method.
    pub method: &'a str,
    /// Authority.
    pub authority: &'a str,
    /// Canonical path, without the query: queries carry secrets.
    pub path: &'a str,
    /// Status answered.
    pub status: u16,
    /// Milliseconds until the response's end.
    pub duration_ms: f64,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Tries needed.
    pub attempts: u32,
    /// Whether the mesh side was mutually authenticated.
    pub mtls: bool,
    /// The trace.
    pub trace_id: &'a str,
    /// Code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Response flag.
    pub flags: &'static str,
}

/// The workers' side; clones share one writer.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    lines: Option<SyncSender<Message>>,
    dropped: Arc<AtomicU64>,
}

impl AccessLog {
    /// Opens the log: a file that is appended to, or `-` for standard output. `None` logs nothing.
    pub fn open(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let target: Box<dyn io::Write + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdout())
        } else {
            use std::os::unix::fs::OpenOptionsExt as _;
            Box::new(std::fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?)
        };
        let (sender, receiver) = sync_channel(QUEUE);
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_lines(&receiver, target))?;
        Ok(Self { lines: Some(sender), dropped: Arc::default() })
    }

    /// Whether anything is logged.
    pub fn is_on(&self) -> bool {
        self.lines.is_some()
    }

    /// Hands over a line; never waits.
    pub fn write(&self, entry: &Entry<'_>) {
        let Some(lines) = &self.lines else { return };
        let Ok(mut line) = serde_json::to_vec(entry) else { return };
        line.push(b'\n');
        if lines.try_send(Message::Line(line)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what was handed over is written, at most a second. For the end of the process.
    pub fn flush(&self) {
        let Some(lines) = &self.lines else { return };
        let (done, written) = sync_channel(1);
        if lines.try_send(Message::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(LAST_WORDS) != Err(RecvTimeoutError::Timeout);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn write_lines(messages: &Receiver<Message>, mut target: Box<dyn io::Write + Send>) {
    let mut batch = Vec::new();
    while let Ok(first) = messages.recv() {
        let mut flushed = Vec::new();
        let mut take = |message| match message {
            Message::Line(line) => batch.extend_from_slice(&line),
            Message::Flush(done) => flushed.push(done),
        };
        let gather = matches!(first, Message::Line(_));
        take(first);
        if gather {
            std::thread::park_timeout(GATHER);
        }
        messages.try_iter().take(QUEUE).for_each(take);
        if target.write_all(&batch).and_then(|()| target.flush()).is_err() {
            return;
        }
        batch.clear();
        batch.shrink_to(KEPT);
        for done in flushed {
            // Whoever waited may have given up.
            let _told = done.try_send(()).is_ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_handed_over_is_written_when_a_flush_returns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(Some(&path)).unwrap();
        for status in [200, 404] {
            log.write(&Entry {
                time: "2026-11-21T00:00:00.000Z".to_owned(),
                direction: "inbound",
                source: "a",
                destination: "b",
                method: "GET",
                authority: "b",
                path: "/",
                status,
                duration_ms: 1.0,
                bytes: 0,
                attempts: 1,
                mtls: true,
                trace_id: "00",
                code: None,
                flags: "-",
            });
        }
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains("\"status\":404"));
        assert_eq!(log.dropped(), 0);
    }
}
