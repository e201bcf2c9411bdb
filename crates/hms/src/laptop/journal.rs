//! What one service's program and proxy print: kept in a bounded file, the program's last lines in memory, and shown live
//! when somebody looks.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::tasks;

/// Lines kept in memory for error messages.
const KEPT: usize = 20;
/// A longer line is cut into several.
const LONGEST: usize = 8 << 10;
/// A file is moved aside when it reaches this size; one older file is kept.
const LARGEST_FILE: u64 = 10 << 20;

/// Who printed a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The application.
    App,
    /// Its proxy.
    Proxy,
}

/// Shows a line of a service to the person at the terminal.
pub(crate) type Show = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// The journal of one service.
#[derive(Clone)]
pub(crate) struct Journal {
    service: Arc<str>,
    inner: Arc<Mutex<Inner>>,
    show: Option<Show>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("service", &self.service).finish_non_exhaustive()
    }
}

struct Inner {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    last: VecDeque<String>,
}

impl Journal {
    /// Opens the journal of `service` in `directory`. A file that cannot be written is reported once and then done without.
    pub(crate) fn open(directory: &Path, service: &str, show: Option<Show>) -> Self {
        let path = directory.join(format!("{service}.log"));
        let (file, size) = append(&path);
        Self {
            service: service.into(),
            inner: Arc::new(Mutex::new(Inner { path, file, size, last: VecDeque::new() })),
            show,
        }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.inner.lock().path.clone()
    }

    /// The program's last lines, oldest first.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.inner.lock().last.iter().cloned().collect()
    }

    /// Forgets the program's last lines, when it is started anew.
    pub(crate) fn forget(&self) {
        self.inner.lock().last.clear();
    }

    /// Takes whole lines, in one write.
    fn lines(&self, source: Source, lines: &[String]) {
        {
            let mut inner = self.inner.lock();
            inner.write(lines);
            if source == Source::App {
                inner.last.extend(lines.iter().cloned());
                let surplus = inner.last.len().saturating_sub(KEPT);
                inner.last.drain(..surplus);
            }
        }
        if source == Source::App
            && let Some(show) = &self.show
        {
            for line in lines {
                show(&self.service, line);
            }
        }
    }

    /// Takes every line that `reader` gives, until it ends.
    pub(crate) fn follow(&self, source: Source, reader: impl AsyncRead + Send + Unpin + 'static) {
        let journal = self.clone();
        tasks::spawn("journal", async move { journal.read(source, reader).await });
    }

    async fn read(&self, source: Source, mut reader: impl AsyncRead + Unpin) {
        let mut pending: Vec<u8> = Vec::with_capacity(LONGEST);
        let mut chunk = vec![0; LONGEST];
        while let Ok(count @ 1..) = reader.read(&mut chunk).await {
            let mut lines = Vec::new();
            for byte in chunk.iter().take(count) {
                if *byte == b'\n' || pending.len() == LONGEST {
                    lines.push(String::from_utf8_lossy(&pending).trim_end_matches('\r').to_owned());
                    pending.clear();
                }
                if *byte != b'\n' {
                    pending.push(*byte);
                }
            }
            self.lines(source, &lines);
        }
        if !pending.is_empty() {
            self.lines(source, &[String::from_utf8_lossy(&pending).into_owned()]);
        }
    }
}

impl Inner {
    fn write(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }

        if self.size >= LARGEST_FILE {
            // One older file is enough to look back; failing to move it only means a shorter past.
            drop(std::fs::rename(&self.path, self.path.with_extension("log.1")));
            (self.file, self.size) = append(&self.path);
        }
        if let Some(file) = &mut self.file {
            let mut text = lines.join("\n");
            text.push('\n');
            if let Err(error) = file.write_all(text.as_bytes()) {
                tracing::warn!(path = %self.path.display(), %error, "log file cannot be written");
                self.file = None;
            }
            self.size = self.size.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
        }
    }
}

fn append(path: &Path) -> (Option<File>, u64) {
    match std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path) {
        Ok(file) => {
            let size = file.metadata().map(|metadata| metadata.len()).unwrap_or_default();
            (Some(file), size)
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "log file cannot be opened");
            (None, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn lines_are_kept_cut_and_counted() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), "calc-svc", None);
        let mut text: Vec<u8> = (0..30).flat_map(|n| format!("line {n}\r\n").into_bytes()).collect();
        text.extend(vec![b'x'; LONGEST + 1]);
        block_on(journal.read(Source::App, text.as_slice()));
        let last = journal.last_lines();
        assert_eq!(last.len(), KEPT);
        assert_eq!(last[KEPT - 3], "line 29");
        assert_eq!((last[KEPT - 2].len(), last[KEPT - 1].as_str()), (LONGEST, "x"));
        block_on(journal.read(Source::Proxy, b"{}\n".as_slice()));
        assert_eq!(journal.last_lines(), last, "the proxy's lines are not the program's");
        let file = std::fs::read_to_string(journal.path()).unwrap();
        assert_eq!(file.lines().count(), 33);
    }

    #[test]
    fn a_full_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path(), "s", None);
        journal.inner.lock().size = LARGEST_FILE;
        journal.lines(Source::App, &["first of the new file".to_owned()]);
        assert!(folder.path().join("s.log.1").exists());
        assert_eq!(std::fs::read_to_string(journal.path()).unwrap(), "first of the new file\n");
    }
}
