//! Processes as `/proc` shows them (proc(5)): who lives, who descends from whom, who listens where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessId {
    /// Its number.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    #[serde(default)]
    pub(crate) start_time: u64,
}

impl ProcessId {
    /// A running process by its number.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|stat| Self { pid, start_time: stat.start_time })
    }

    /// This process.
    pub(crate) fn own() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, start_time: 0 })
    }

    /// Whether it still runs: a zombie, or a later process with its number, does not count.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| {
            !matches!(stat.state, 'Z' | 'X') && (self.start_time == 0 || stat.start_time == self.start_time)
        })
    }

    /// Sends a signal if it still runs.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // It may have ended since the check; then there is nothing left to do.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// What we read of `/proc/PID/stat`.
struct Stat {
    state: char,
    parent: u32,
    start_time: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command stands in parentheses and may contain anything, so the fields start after the last one.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, start_time })
}

/// Every process number there is.
fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Every living descendant of `root`, without `root`, in ascending order. Zombies are left out: they are already dead.
pub(crate) fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for pid in all() {
        if let Some(stat) = stat(pid).filter(|stat| !matches!(stat.state, 'Z' | 'X')) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut open = vec![root];
    while let Some(parent) = open.pop() {
        for pid in children.get(&parent).into_iter().flatten() {
            if found.insert(*pid) {
                open.push(*pid);
            }
        }
    }
    found.into_iter().collect()
}

/// The living children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let is_child = |pid: &u32| stat(*pid).is_some_and(|stat| stat.parent == parent && !matches!(stat.state, 'Z' | 'X'));
    all().into_iter().filter(is_child).collect()
}

/// The command line of a process, shortened, its arguments separated by spaces.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text: Vec<String> = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    let mut line = text.join(" ");
    if let Some((end, _)) = line.char_indices().nth(120) {
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A listening TCP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Listener {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    inode: u64,
}

/// Whether anything on this machine listens on a port.
pub(crate) fn is_listened_on(port: u16) -> bool {
    is_listened_on_beside(std::process::id(), port)
}

/// Whether anything listens on a port of the network in which a process lives.
pub(crate) fn is_listened_on_beside(pid: u32, port: u16) -> bool {
    listeners(pid).iter().any(|listener| listener.address.port() == port)
}

/// Every listening TCP socket of the network in which a process lives.
fn listeners(pid: u32) -> Vec<Listener> {
    ["tcp", "tcp6"]
        .into_iter()
        .filter_map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).ok())
        .flat_map(|text| text.lines().skip(1).filter_map(parse_listener).collect::<Vec<_>>())
        .collect()
}

/// Reads one line of `/proc/net/tcp` or `tcp6`; `None` unless it is in state 0A, LISTEN.
fn parse_listener(line: &str) -> Option<Listener> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != "0A" {
        return None;
    }
    let inode = fields.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?.swap_bytes())),
        32 => {
            let mut words = [0u32; 4];
            for (index, word) in words.iter_mut().enumerate() {
                *word = u32::from_str_radix(ip.get(index * 8..index * 8 + 8)?, 16).ok()?.swap_bytes();
            }
            let [a, b, c, d] = words.map(u128::from);
            IpAddr::V6(Ipv6Addr::from(a << 96 | b << 64 | c << 32 | d))
        }
        _ => return None,
    };
    Some(Listener { address: SocketAddr::new(ip, port), inode })
}

/// The sockets a process holds open, by inode.
fn socket_inodes(pid: u32) -> BTreeSet<u64> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return BTreeSet::new() };
    entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.ok()?.path()).ok()?;
            target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
        })
        .collect()
}

/// Where any of these processes listens, in ascending order.
pub(crate) fn listening(pids: &[u32]) -> Vec<SocketAddr> {
    let inodes: BTreeSet<u64> = pids.iter().flat_map(|pid| socket_inodes(*pid)).collect();
    let network = pids.last().copied().unwrap_or_else(std::process::id);
    let addresses: BTreeSet<SocketAddr> = listeners(network)
        .into_iter()
        .filter(|listener| inodes.contains(&listener.inode))
        .map(|listener| listener.address)
        .collect();
    addresses.into_iter().collect()
}

/// Who listens on a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    /// Its number.
    pub(crate) pid: u32,
    /// Its command line.
    pub(crate) command: String,
}

impl Holder {
    /// Whether it is a part of a mesh, this one or another project's.
    pub(crate) fn is_ours(&self) -> bool {
        is_ours(self.pid)
    }
}

/// Whether a process runs one of our programs.
pub(crate) fn is_ours(pid: u32) -> bool {
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let name = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    matches!(name.trim_end_matches(" (deleted)"), "hms" | "hms-proxy")
}

/// The process that listens on `port` of a loopback or wildcard address, if it is one we may look at.
pub(crate) fn holder(port: u16) -> Option<Holder> {
    let inodes: BTreeSet<u64> = listeners(std::process::id())
        .into_iter()
        .filter(|listener| listener.address.port() == port)
        .map(|listener| listener.inode)
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let pid = all().into_iter().find(|pid| !socket_inodes(*pid).is_disjoint(&inodes))?;
    Some(Holder { pid, command: command_line(pid) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_a_recycled_number_is_not() {
        let own = ProcessId::own();
        assert!(own.is_alive() && own.start_time > 0);
        assert!(!ProcessId { start_time: own.start_time + 1, ..own }.is_alive());
        assert!(!ProcessId { pid: u32::MAX, start_time: 0 }.is_alive());
    }

    #[test]
    fn the_holder_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder = holder(address.port()).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.command.is_empty() && !holder.is_ours());
        assert!(listening(&[std::process::id()]).contains(&address));
    }

    #[test]
    fn lines_of_proc_net_tcp_are_read() {
        let line =
            "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0";
        let read = parse_listener(line).unwrap();
        assert_eq!((read.address, read.inode), ("127.0.0.1:8000".parse().unwrap(), 4242));
        assert!(parse_listener(&line.replace(" 0A ", " 01 ")).is_none(), "only listening sockets");
        let six = "   0: 00000000000000000000000001000000:1F40 0:0 0A 0:0 00:0 0  1000        0 7 1 0";
        assert_eq!(parse_listener(six).unwrap().address, "[::1]:8000".parse().unwrap());
        assert!(parse_listener("sl local_address").is_none());
    }
}
