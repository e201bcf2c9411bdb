//! What the kernel knows of a process: time on a processor, memory, family.

use std::fs;
use std::path::Path;

use crate::Outcome;

/// Nanoseconds that all threads of these processes were on a processor, user and system together.
pub(crate) fn cpu(pids: &[u32]) -> Outcome<u64> {
    let mut total = 0;
    for pid in pids {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).map_err(|error| format!("process {pid}: {error}"))?;
        for task in tasks.filter_map(Result::ok) {
            // A thread that ends between two looks takes its time with it; proxies keep theirs.
            let line = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += line.split(' ').next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_default();
        }
    }
    Ok(total)
}

/// Resident memory of these processes in KiB.
pub(crate) fn resident(pids: &[u32]) -> Outcome<u64> {
    pids.iter().map(|pid| status(*pid, "VmRSS:").ok_or_else(|| format!("process {pid} is gone"))).sum()
}

fn status(pid: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.trim().trim_end_matches(" kB").parse().ok()
}

/// A process and all that descend from it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut looked = 0;
    while let Some(parent) = found.get(looked).copied() {
        looked += 1;
        let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().filter_map(Result::ok);
        for task in tasks {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            found.extend(children.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
        }
    }
    found
}

/// One process with the words of its command line.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Its number.
    pub(crate) pid: u32,
    /// Its command line.
    pub(crate) words: Vec<String>,
}

impl Seen {
    /// The word after this one.
    pub(crate) fn after(&self, flag: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == flag)?;
        self.words.get(at + 1).map(String::as_str)
    }
}

/// Every living process whose environment or arguments name this folder.
pub(crate) fn marked(folder: &Path) -> Vec<Seen> {
    let mark = folder.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id())
        .filter_map(|pid| {
            let text = |name: &str| {
                let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            };
            let command = text("cmdline");
            let ours = command.contains(&mark) || text("environ").contains(&mark);
            // A process that has ended but was not waited for has neither.
            ours.then(|| Seen { pid, words: command.split_terminator('\0').map(str::to_owned).collect() })
        })
        .collect()
}

/// What the machine is, for those who compare.
pub(crate) struct Machine {
    /// The processor's name.
    pub(crate) processor: String,
    /// How many there are.
    pub(crate) processors: usize,
    /// Memory in MiB.
    pub(crate) memory: u64,
    /// Kernel release.
    pub(crate) kernel: String,
    /// Distribution.
    pub(crate) system: String,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, key: &str, separator: char| {
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.split_once(separator)).map_or("", |(_, value)| value);
            value.trim().trim_matches('"').to_owned()
        };
        let memory = value(&text("/proc/meminfo"), "MemTotal", ':');
        Self {
            processor: value(&text("/proc/cpuinfo"), "model name", ':'),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.trim_end_matches(" kB").parse().map_or(0, |kib: u64| kib / 1024),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            system: value(&text("/etc/os-release"), "PRETTY_NAME", '='),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_time_and_memory() {
        let own = [std::process::id()];
        assert!(cpu(&own).unwrap() > 0);
        assert!(resident(&own).unwrap() > 100);
        assert!(family(own[0]).contains(&own[0]));
        assert!(cpu(&[u32::MAX]).is_err());
    }
}
