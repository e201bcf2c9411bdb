//! One JSON line per request, written behind the data path: a slow disk costs lines, never latency.
//!
//! A data thread gathers its lines and hands them over together ([`Lines`]); one thread writes them ([`AccessLog`]).

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use hms_model::finding::Code;
use serde::{Serialize, Serializer};

use super::time::rfc3339;
use super::trace::TraceId;
use crate::tasks;

/// Batches waiting to be written before further ones are dropped and counted.
const QUEUE: usize = 256;
/// Bytes that are handed over at once, without waiting for more.
const BATCH: usize = 32 * 1024;
/// How long lines are gathered: to wake the writer for each would cost more than the line.
const GATHER: Duration = Duration::from_millis(20);
/// How long the end of the process waits for the last lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the writer is sent.
enum Message {
    Batch(Vec<u8>),
    /// Everything before this has been written when the other end hears of it.
    Flush(SyncSender<()>),
}

/// One request, as it is logged. Names are stable; new ones may be added.
#[derive(Serialize)]
pub struct Entry<'a> {
    /// RFC 3339, UTC, at the request's head.
    #[serde(serialize_with = "time")]
    pub time: SystemTime,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Service or identity of the caller.
    pub source: &'a str,
    /// Service called.
    pub destination: &'a str,
    /// Method.
    pub method: &'a str,
    /// Authority.
    #[serde(serialize_with = "displayed")]
    pub authority: &'a dyn std::fmt::Display,
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
    #[serde(serialize_with = "trace_id")]
    pub trace_id: TraceId,
    /// Code of a refusal.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "code")]
    pub code: Option<Code>,
    /// Response flag.
    pub flags: &'static str,
}

fn time<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rfc3339(*time).as_str())
}

fn trace_id<S: Serializer>(id: &TraceId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

fn displayed<S: Serializer>(value: &&dyn std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn code<S: Serializer>(code: &Option<Code>, serializer: S) -> Result<S::Ok, S::Error> {
    match code {
        Some(code) => serializer.collect_str(code),
        None => serializer.serialize_none(),
    }
}

/// The writer, as the data threads see it; clones share one.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    batches: Option<SyncSender<Message>>,
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
        std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write_batches(&receiver, target))?;
        Ok(Self { batches: Some(sender), dropped: Arc::default() })
    }

    /// Whether anything is logged.
    pub fn is_on(&self) -> bool {
        self.batches.is_some()
    }

    /// Waits until what was handed over is written, at most a second. For the end of the process.
    pub fn flush(&self) {
        let Some(batches) = &self.batches else { return };
        let (done, written) = sync_channel(1);
        if batches.try_send(Message::Flush(done)).is_ok() {
            let _in_time = written.recv_timeout(LAST_WORDS) != Err(RecvTimeoutError::Timeout);
        }
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Never waits.
    fn hand_over(&self, batch: Vec<u8>, lines: u64) {
        let Some(batches) = &self.batches else { return };
        if batches.try_send(Message::Batch(batch)).is_err() {
            self.dropped.fetch_add(lines, Relaxed);
        }
    }
}

/// One data thread's lines on their way to the writer.
#[derive(Debug)]
pub struct Lines {
    log: AccessLog,
    batch: RefCell<Vec<u8>>,
    count: Cell<u64>,
    /// Whether a task waits to hand them over.
    waiting: Cell<bool>,
}

impl Lines {
    /// Nothing yet.
    pub fn new(log: AccessLog) -> Self {
        Self { log, batch: RefCell::default(), count: Cell::new(0), waiting: Cell::new(false) }
    }

    /// Adds a line; it is handed over with those of the next 20 ms.
    pub fn write(self: &Rc<Self>, entry: &Entry<'_>) {
        if !self.log.is_on() {
            return;
        }
        let length = {
            let mut batch = self.batch.borrow_mut();
            if batch.capacity() == 0 {
                batch.reserve(BATCH + 1024);
            }
            // Writing into memory cannot fail.
            let _infallible = serde_json::to_writer(&mut *batch, entry).is_ok();
            batch.push(b'\n');
            batch.len()
        };
        self.count.set(self.count.get() + 1);
        if length >= BATCH {
            self.hand_over();
        } else if !self.waiting.replace(true) {
            let lines = Rc::clone(self);
            tasks::spawn_local("access log", async move {
                tokio::time::sleep(GATHER).await;
                lines.waiting.set(false);
                lines.hand_over();
            });
        }
    }

    fn hand_over(&self) {
        let batch = std::mem::take(&mut *self.batch.borrow_mut());
        let count = self.count.replace(0);
        if count > 0 {
            self.log.hand_over(batch, count);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

fn write_batches(messages: &Receiver<Message>, mut target: Box<dyn io::Write + Send>) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Batch(batch) => {
                if target.write_all(&batch).and_then(|()| target.flush()).is_err() {
                    return;
                }
            }
            Message::Flush(done) => {
                // Whoever waited may have given up.
                let _told = done.try_send(()).is_ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(status: u16) -> Entry<'static> {
        Entry {
            time: SystemTime::UNIX_EPOCH,
            direction: "inbound",
            source: "a",
            destination: "b",
            method: "GET",
            authority: &"b",
            path: "/",
            status,
            duration_ms: 1.0,
            bytes: 0,
            attempts: 1,
            mtls: true,
            trace_id: TraceId::from(1),
            code: (status == 503).then_some(Code(3001)),
            flags: "-",
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_handed_over_is_written_when_a_flush_returns() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(Some(&path)).unwrap();
        let lines = Rc::new(Lines::new(log.clone()));
        let local = tokio::task::LocalSet::new();
        let gathered = async {
            lines.write(&entry(200));
            lines.write(&entry(503));
            log.flush();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "handed over too early");
            tokio::time::sleep(2 * GATHER).await;
        };
        local.run_until(gathered).await;
        log.flush();
        let text = std::fs::read_to_string(&path).unwrap();
        let parsed: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(parsed.len(), 2);
        assert_eq!(parsed[1]["code"], "HMS-3001");
        assert_eq!(parsed[0]["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(parsed[0]["trace_id"], "00000000000000000000000000000001");
        assert_eq!(log.dropped(), 0);
    }

    #[tokio::test]
    async fn the_last_lines_go_with_their_thread() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(Some(&path)).unwrap();
        let local = tokio::task::LocalSet::new();
        local.run_until(async { Rc::new(Lines::new(log.clone())).write(&entry(200)) }).await;
        drop(local);
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
