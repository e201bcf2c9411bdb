//! What a captured application sees of the file system: everything, except the ways around the mesh.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use hms_dns::host::HostResolver;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

/// Sockets by which names are resolved without a question to a DNS server, or containers are started outside. Paths without a
/// socket are skipped.
const SOCKETS: [&str; 9] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/nscd/socket",
    "/run/avahi-daemon/socket",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/buildkit/buildkitd.sock",
];
const RESOLV: &str = "/etc/resolv.conf";
const NSSWITCH: &str = "/etc/nsswitch.conf";
const HOSTS: &str = "/etc/hosts";
/// The largest of these files that is read.
const MOST: usize = 1 << 20;

/// The mount table of this process becomes the application's. `masks` are directories it sees empty; the first holds the private
/// files. `keep` are sockets that stay reachable.
pub(super) fn set_up(masks: &[PathBuf], keep: &[PathBuf]) -> Result<(), String> {
    let none = None::<&str>;
    // Mounts of the host still arrive, ours stay here.
    step("mount /", mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none))?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    step("mount /proc", mount(Some("proc"), "/proc", Some("proc"), safe, none))?;
    let files = [(RESOLV, resolv(&read(RESOLV))), (NSSWITCH, nsswitch(&read(NSSWITCH))), (HOSTS, hosts(&read(HOSTS)))];
    for socket in sockets().filter(|socket| !keep.contains(socket)) {
        cover(Path::new("/dev/null"), &socket)?;
    }
    for mask in masks {
        let options = Some("mode=0755,size=1m,nr_inodes=64");
        step(&format!("mask {}", mask.display()), mount(Some("tmpfs"), mask, Some("tmpfs"), safe, options))?;
    }
    let Some(folder) = masks.first() else { return Ok(()) };
    for (path, text) in files {
        // A file that the machine does not have needs no other content: without resolv.conf, resolvers ask 127.0.0.1.
        let Ok(place) = fs::canonicalize(path) else { continue };
        let private = folder.join(Path::new(path).file_name().unwrap_or_default());
        step("private files", fs::write(&private, text))?;
        cover(&private, &place)?;
    }
    Ok(())
}

/// The sockets there are, by their real paths: also those of this user's own runtime directory.
pub(super) fn sockets() -> impl Iterator<Item = PathBuf> {
    let own = format!("/run/user/{}", nix::unistd::geteuid());
    let own = ["podman/podman.sock", "docker.sock"].map(|name| PathBuf::from(format!("{own}/{name}")));
    SOCKETS
        .into_iter()
        .map(PathBuf::from)
        .chain(own)
        .filter(|path| path.exists())
        .filter_map(|path| path.canonicalize().ok())
}

/// Puts one file over another, not to be written.
fn cover(file: &Path, place: &Path) -> Result<(), String> {
    let what = format!("cover {}", place.display());
    step(&what, mount(Some(file), place, None::<&str>, MsFlags::MS_BIND, None::<&str>))?;
    if file.starts_with("/dev") {
        return Ok(());
    }
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    step(&what, mount(None::<&str>, place, None::<&str>, flags, None::<&str>))
}

/// Names the step that failed.
fn step<E: Into<io::Error>>(what: &str, result: Result<(), E>) -> Result<(), String> {
    result.map_err(|error| {
        let error: io::Error = error.into();
        let text =
            error.raw_os_error().map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned());
        format!("{what}: {text}")
    })
}

/// A small file's text; a missing one has none.
fn read(path: &str) -> String {
    let mut text = fs::read_to_string(path).unwrap_or_default();
    if text.len() > MOST {
        text.clear();
    }
    text
}

/// The machine's search list after the mesh's domain, and another server: whichever is named is redirected.
fn resolv(text: &str) -> String {
    HostResolver::read(text.as_bytes()).captured(Ipv4Addr::LOCALHOST.into())
}

/// Everything but who answers for hosts: files and DNS, no service of the machine that knows nothing of the mesh.
fn nsswitch(text: &str) -> String {
    let others = text.lines().filter(|line| !line.trim_start().starts_with("hosts:"));
    others.chain(["hosts: files dns"]).fold(String::new(), |out, line| out + line + "\n")
}

/// The machine's hosts without names of the mesh, which lead to the outside's loopback.
fn hosts(text: &str) -> String {
    let is_mesh =
        |name: &str| name == "gateway.local" || name.strip_suffix("mesh").is_some_and(|name| name.ends_with('.'));
    let mut out = String::new();
    let mut local = false;
    for line in text.lines() {
        let plain = line.split('#').next().unwrap_or_default();
        let mut words = plain.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let names: Vec<&str> = words.filter(|name| !is_mesh(name)).collect();
        local |= names.contains(&"localhost");
        if !names.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{address} {}", names.join(" "));
        }
    }
    if local { out } else { format!("127.0.0.1 localhost\n::1 localhost\n{out}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_list_begins_with_the_mesh_and_keeps_the_machines() {
        let text = resolv("# from dhcp\nnameserver 10.0.0.1\nsearch corp.example example\n");
        assert!(text.contains("\nnameserver 127.0.0.1\nsearch mesh corp.example example\n"), "{text}");
        assert!(resolv("").contains("\nsearch mesh\n"));
    }

    #[test]
    fn hosts_are_asked_of_files_and_dns_alone() {
        let text = "passwd: files systemd\nhosts: mymachines resolve [!UNAVAIL=return] files myhostname dns\n";
        assert_eq!(nsswitch(text), "passwd: files systemd\nhosts: files dns\n");
    }

    #[test]
    fn names_of_the_mesh_are_not_taken_from_the_machines_hosts() {
        let text = "127.0.0.1 localhost\n127.0.0.1 gateway.local # hms\n::1 ip6-localhost calc-svc.mesh\n";
        assert_eq!(hosts(text), "127.0.0.1 localhost\n::1 ip6-localhost\n");
        assert_eq!(hosts(""), "127.0.0.1 localhost\n::1 localhost\n");
    }
}
