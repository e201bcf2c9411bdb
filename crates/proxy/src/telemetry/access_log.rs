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

use super::time::rfc3339;
use super::trace::TraceId;
use crate::tasks;
use hms_http1::write::decimal;
use hms_model::finding::Code;
use hms_model::message::Authority;
use parking_lot::Mutex;

/// Batches waiting to be written before further ones are dropped and counted.
const QUEUE: usize = 256;
/// Bytes that are handed over at once, without waiting for more.
const BATCH: usize = 32 * 1024;
/// Written batches whose memory is kept.
const KEPT: usize = 4;
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
pub struct Entry<'a> {
    /// RFC 3339, UTC, at the request's head.
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
    pub authority: &'a Authority,
    /// Canonical path, without the query: queries carry secrets.
    pub path: &'a str,
    /// Status answered.
    pub status: u16,
    /// Time until the response's end, logged as `duration_ms`.
    pub duration: Duration,
    /// Bytes of the response's body.
    pub bytes: u64,
    /// Tries needed.
    pub attempts: u32,
    /// Whether the mesh side was mutually authenticated.
    pub mtls: bool,
    /// The trace.
    pub trace_id: TraceId,
    /// Code of a refusal.
    pub code: Option<Code>,
    /// Response flag.
    pub flags: &'static str,
}

impl Entry<'_> {
    /// Appends the line. By hand, because it is written for every request. Names, methods, hosts and canonical paths have nothing
    /// in them that JSON would escape but what a path may have; a path that does is left to `serde_json`.
    fn write(&self, out: &mut Vec<u8>) {
        let mut put = |before: &str, value: &str| {
            out.extend_from_slice(before.as_bytes());
            out.extend_from_slice(value.as_bytes());
        };
        put("{\"time\":\"", rfc3339(self.time).as_str());
        put("\",\"direction\":\"", self.direction);
        put("\",\"source\":\"", self.source);
        put("\",\"destination\":\"", self.destination);
        put("\",\"method\":\"", self.method);
        put("\",\"authority\":\"", self.authority.host());
        if let Some(port) = self.authority.port() {
            put(":", "");
            decimal(out, port.into());
        }
        out.extend_from_slice(b"\",\"path\":");
        text(out, self.path);
        number(out, ",\"status\":", self.status.into());
        let micros = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        number(out, ",\"duration_ms\":", micros / 1000);
        // Three digits after the point: 1000 and up, without its first digit.
        let start = out.len();
        decimal(out, 1000 + micros % 1000);
        if let Some(first) = out.get_mut(start) {
            *first = b'.';
        }
        number(out, ",\"bytes\":", self.bytes);
        number(out, ",\"attempts\":", self.attempts.into());
        out.extend_from_slice(if self.mtls {
            b",\"mtls\":true,\"trace_id\":\""
        } else {
            b",\"mtls\":false,\"trace_id\":\""
        });
        out.extend_from_slice(self.trace_id.as_bytes());
        if let Some(code) = self.code {
            out.extend_from_slice(b"\",\"code\":\"");
            out.extend_from_slice(code.to_string().as_bytes());
        }
        out.extend_from_slice(b"\",\"flags\":\"");
        out.extend_from_slice(self.flags.as_bytes());
        out.extend_from_slice(b"\"}\n");
    }
}

/// One connection that nobody reads, as it is logged at its end.
pub struct ConnectionEntry<'a> {
    /// When it began.
    pub time: SystemTime,
    /// `inbound` or `outbound`.
    pub direction: &'static str,
    /// Service or identity of the caller.
    pub source: &'a str,
    /// Service called.
    pub destination: &'a str,
    /// Its port; 0 when it was not said.
    pub port: u16,
    /// The host that the caller's TLS names.
    pub server_name: Option<&'a str>,
    /// How long it lasted.
    pub duration: Duration,
    /// Bytes towards the caller.
    pub sent: u64,
    /// Bytes of the caller.
    pub received: u64,
    /// Endpoints tried.
    pub attempts: u32,
    /// Whether the mesh side was mutually authenticated.
    pub mtls: bool,
    /// Code of a refusal.
    pub code: Option<Code>,
    /// Envoy's flag for how it ended.
    pub flags: &'static str,
}

impl ConnectionEntry<'_> {
    /// Appends the line. Once per connection, so that it need not be by hand.
    fn write(&self, out: &mut Vec<u8>) {
        let micros = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        let line = serde_json::json!({
            "time": rfc3339(self.time).as_str(),
            "direction": self.direction,
            "source": self.source,
            "destination": self.destination,
            "protocol": "tcp",
            "port": self.port,
            "server_name": self.server_name,
            "duration_ms": Duration::from_micros(micros).as_secs_f64() * 1000.0,
            "bytes_sent": self.sent,
            "bytes_received": self.received,
            "attempts": self.attempts,
            "mtls": self.mtls,
            "code": self.code.map(|code| code.to_string()),
            "flags": self.flags,
        });
        // Writing into memory cannot fail.
        let _infallible = serde_json::to_writer(&mut *out, &line).is_ok();
        out.push(b'\n');
    }
}

fn text(out: &mut Vec<u8>, value: &str) {
    let plain = |byte: u8| byte.wrapping_sub(b' ') < 95 && byte != b'"' && byte != b'\\';
    if value.bytes().fold(true, |all, byte| all & plain(byte)) {
        out.push(b'"');
        out.extend_from_slice(value.as_bytes());
        out.push(b'"');
    } else {
        // Writing into memory cannot fail.
        let _infallible = serde_json::to_writer(out, value).is_ok();
    }
}

fn number(out: &mut Vec<u8>, before: &str, value: u64) {
    out.extend_from_slice(before.as_bytes());
    decimal(out, value);
}

/// The writer, as the data threads see it; clones share one.
#[derive(Debug, Clone, Default)]
pub struct AccessLog {
    batches: Option<SyncSender<Message>>,
    /// Memory of batches that were written, for further ones.
    free: Arc<Mutex<Vec<Vec<u8>>>>,
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
        let free = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let written = Arc::clone(&free);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_batches(&receiver, &written, target))?;
        Ok(Self { batches: Some(sender), free, dropped: Arc::default() })
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
        self.add(|out| entry.write(out));
    }

    /// Adds the line of a connection that nobody reads.
    pub fn connection(self: &Rc<Self>, entry: &ConnectionEntry<'_>) {
        self.add(|out| entry.write(out));
    }

    fn add(self: &Rc<Self>, write: impl FnOnce(&mut Vec<u8>)) {
        if !self.log.is_on() {
            return;
        }
        let length = {
            let mut batch = self.batch.borrow_mut();
            if batch.capacity() == 0 {
                *batch = self.log.free.lock().pop().unwrap_or_else(|| Vec::with_capacity(BATCH + 1024));
            }
            write(&mut batch);
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

fn write_batches(messages: &Receiver<Message>, free: &Mutex<Vec<Vec<u8>>>, mut target: Box<dyn io::Write + Send>) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Batch(mut batch) => {
                if target.write_all(&batch).and_then(|()| target.flush()).is_err() {
                    return;
                }
                batch.clear();
                let mut free = free.lock();
                if free.len() < KEPT {
                    free.push(batch);
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

    fn entry(authority: &Authority, status: u16) -> Entry<'_> {
        Entry {
            time: SystemTime::UNIX_EPOCH,
            direction: "inbound",
            source: "a",
            destination: "b",
            method: "GET",
            authority,
            path: "/a\"b",
            status,
            duration: Duration::from_micros(1_042),
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
            let authority = Authority::parse("b:80").unwrap();
            lines.write(&entry(&authority, 200));
            lines.write(&entry(&authority, 503));
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
        assert_eq!((&parsed[0]["path"], &parsed[0]["authority"]), (&"/a\"b".into(), &"b:80".into()));
        assert_eq!((parsed[0]["duration_ms"].as_f64(), parsed[0]["mtls"].as_bool()), (Some(1.042), Some(true)));
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
        let authority = Authority::parse("b").unwrap();
        local.run_until(async { Rc::new(Lines::new(log.clone())).write(&entry(&authority, 200)) }).await;
        drop(local);
        log.flush();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
    }
}
