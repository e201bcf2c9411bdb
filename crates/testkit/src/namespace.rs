//! A test inside network and mount namespaces of its own: fixed ports and names that nobody else sees.
//!
//! [`inside`] runs the same test of the same executable again in there, where its body runs. Inside, `/etc/hosts` is a file of the
//! test's, loopback is the only interface, and every port is free.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The first line of the hosts file inside, by which it is known.
const MARK: &str = "# hosts of one test";
/// What the inner half begins with: loopback up, own hosts, then the test.
const SCRIPT: &str =
    "PATH=$PATH:/usr/sbin:/sbin; ip link set lo up && mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"";

/// Runs `body` inside namespaces of its own; `name` is the test's that calls this, as the harness lists it.
pub fn inside(name: &str, body: impl FnOnce(Inside)) {
    enter(name, &["--user", "--map-root-user"], body);
}

/// The same with every user and group that there is outside, for which the caller must be root.
pub fn inside_as_root(name: &str, body: impl FnOnce(Inside)) {
    assert!(nix::unistd::geteuid().is_root(), "{name} gives processes users and groups of their own: run it as root");
    enter(name, &[], body);
}

fn enter(name: &str, users: &[&str], body: impl FnOnce(Inside)) {
    let hosts = Path::new("/etc/hosts");
    if std::fs::read_to_string(hosts).is_ok_and(|text| text.starts_with(MARK)) {
        return body(Inside(hosts.to_path_buf()));
    }
    let folder = tempfile::Builder::new().prefix("hms-").tempdir_in("/tmp").unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, format!("{MARK}\n127.0.0.1 localhost\n")).unwrap();
    let mut command = Command::new("unshare");
    command.args(users).args(["--mount", "--net", "--", "/bin/sh", "-c", SCRIPT, "sh"]).arg(&hosts);
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]);
    let output = command.output().unwrap_or_else(|error| panic!("unshare (util-linux): {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{name} inside its namespaces:\n{out}\n{err}");
    print!("{out}");
}

/// The surroundings inside.
#[derive(Debug)]
pub struct Inside(PathBuf);

impl Inside {
    /// What every name means from now on. Written into the file, because it is mounted.
    pub fn hosts(&self, lines: &[(&str, &str)]) {
        let names = lines.iter().map(|(ip, name)| format!("{ip} {name}"));
        let names: Vec<String> = [MARK.to_owned(), "127.0.0.1 localhost".to_owned()].into_iter().chain(names).collect();
        std::fs::write(&self.0, names.join("\n") + "\n").unwrap();
    }
}
