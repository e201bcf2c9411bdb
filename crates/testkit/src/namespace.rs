//! A test inside network and mount namespaces of its own: fixed ports and names that nobody else sees.
//!
//! The outer half of a test calls [`inside`], which runs the same test executable again for its inner half, an ignored test. Inside,
//! `/etc/hosts` is a file of the test's, loopback is the only interface, and every port is free.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the inner half begins with: loopback up, own hosts, then the test.
const SCRIPT: &str =
    "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";

/// Runs the ignored test `name` of this executable inside namespaces of its own; fails if it does.
pub fn inside(name: &str) {
    let folder = tempfile::Builder::new().prefix("hms-").tempdir_in("/tmp").unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--net", "--", "/bin/sh", "-c", SCRIPT, "sh"]).arg(&hosts);
    command.arg(std::env::current_exe().unwrap()).args(["--ignored", "--exact", name, "--nocapture"]);
    let output = command.output().unwrap_or_else(|error| panic!("unshare (util-linux): {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name} inside its namespaces:\n{out}\n{err}");
    print!("{out}");
}

/// The inner half's own surroundings.
#[derive(Debug)]
pub struct Inside(PathBuf);

impl Inside {
    /// Checks that this is the inner half: the ports that it takes would be somebody else's outside.
    pub fn new() -> Self {
        let interfaces = std::fs::read_to_string("/proc/net/dev").unwrap();
        let others = interfaces.lines().skip(2).filter(|line| !line.trim_start().starts_with("lo:")).count();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let own_hosts = mounts.lines().any(|line| line.split(' ').nth(1) == Some("/etc/hosts"));
        assert!(others == 0 && own_hosts, "this half runs inside namespaces; run the test that starts it");
        Self(Path::new("/etc/hosts").to_path_buf())
    }

    /// What every name means from now on. Written into the file, because it is mounted.
    pub fn hosts(&self, lines: &[(&str, &str)]) {
        let names: String = lines.iter().map(|(ip, name)| format!("{ip} {name}\n")).collect();
        std::fs::write(&self.0, format!("127.0.0.1 localhost\n{names}")).unwrap();
    }
}

impl Default for Inside {
    fn default() -> Self {
        Self::new()
    }
}
