//! One JSON line per request, written behind the data path: a slow disk costs lines, never latency.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use serde::Serialize;

/// Lines waiting to be written before further ones are dropped and counted.
const QUEUE: usize = 8192;

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
    lines: Option<SyncSender<Vec<u8>>>,
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
        if lines.try_send(line).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, mut target: Box<dyn io::Write + Send>) {
    while let Ok(line) = lines.recv() {
        // What is there already is written with one flush.
        let more = lines.try_iter().take(QUEUE);
        let written = std::iter::once(line).chain(more).try_for_each(|line| target.write_all(&line));
        if written.and_then(|()| target.flush()).is_err() {
            return;
        }
    }
}
