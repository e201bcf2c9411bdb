//! Processes as the kernel shows them, and those a test started.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use crate::wait;

/// How long a program that was told to end may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// A program a test started and may end. Its output goes to a file, which failures quote.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in `log`.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let again = file.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(file).stderr(again).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let pid = child.id().unwrap();
        Self { child, pid, log }
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// What it wrote so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&mut self) {
        signal(self.pid, Signal::SIGKILL);
        let _ended = self.child.wait().await.unwrap();
    }

    /// Asks it to end, and waits until it has; returns its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        signal(self.pid, Signal::SIGTERM);
        self.ended(PATIENCE).await
    }

    /// Waits until it ends by itself; returns its exit code.
    pub async fn ended(&mut self, limit: Duration) -> Option<i32> {
        let Ok(status) = tokio::time::timeout(limit, self.child.wait()).await else {
            panic!("process {} still runs after {limit:?}:\n{}", self.pid, self.output())
        };
        status.unwrap().code()
    }
}

/// Sends a signal to one process; one that has ended needs none.
pub fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone_is_fine = kill(Pid::from_raw(pid), signal).is_ok();
    }
}

/// One living process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

/// Every living process, other than this one, that carries `mark` in its environment or its arguments.
pub fn marked(mark: &Path) -> Vec<Seen> {
    let mark = mark.to_string_lossy().into_owned();
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let mut seen: Vec<Seen> = pids
        .filter(|pid| *pid != own && !is_zombie(*pid))
        .filter_map(|pid| {
            let command = words(&format!("/proc/{pid}/cmdline"));
            let carries = command.contains(&mark) || words(&format!("/proc/{pid}/environ")).contains(&mark);
            carries.then_some(Seen { pid, command })
        })
        .collect();
    seen.sort_by_key(|one| one.pid);
    seen
}

/// Waits until no process carries `mark` any more.
pub async fn none_marked(mark: &Path, limit: Duration) {
    wait::until("every process is gone", limit, || {
        let left = marked(mark);
        std::future::ready(if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) })
    })
    .await;
}

/// Resident memory of a process in KiB.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// Time that all threads of a process have spent on a processor.
pub fn processor_time(pid: u32) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let of = |path: PathBuf| std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse::<u64>().ok();
    let nanoseconds = threads.filter_map(|thread| of(thread.ok()?.path().join("schedstat")));
    Duration::from_nanos(nanoseconds.sum())
}

/// Time that the calling thread has spent on a processor.
pub fn own_processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Bounds from now on how many files a running process may have open; those that are open stay.
pub fn limit_open_files(pid: u32, most: u64) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let maximum = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let limit = rustix::process::Rlimit { current: Some(most), maximum };
    let _before = rustix::process::prlimit(pid, rustix::process::Resource::Nofile, limit).unwrap();
}

/// Lets this process have so many files open.
pub fn own_open_files(least: u64) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let current = limit.current.map_or(least, |current| current.max(least));
    let limit = rustix::process::Rlimit { current: Some(current), ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)
        .unwrap_or_else(|error| panic!("{least} open files: {error}"));
}

fn is_zombie(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn words(path: &str) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
