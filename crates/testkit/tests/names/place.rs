//! A namespace of the test's own, with a resolver of its own and nothing else in it.
#![expect(clippy::unwrap_used, reason = "a test that breaks fails")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hms_testkit::mesh::{Mesh, Said};
use hms_testkit::processes::Process;
use hms_testkit::{binaries, wait};
use tokio::process::Command;

/// What the files of a captured application say.
const NSSWITCH: &str = "hosts: files dns\n";
const RESOLV_CONF: &str = "nameserver 127.0.0.1\nsearch mesh corp.example\noptions ndots:1 timeout:5 attempts:2\n";
/// Go's own resolver, which asks the C library nothing.
const GO: &str = r#"package main

import (
	"context"
	"errors"
	"fmt"
	"net"
)

func main() {
	own := &net.Resolver{PreferGo: true}
	all := context.Background()
	service, err := own.LookupIP(all, "ip4", "payment-svc")
	if err != nil { panic(err) }
	_, ports, err := own.LookupSRV(all, "grpc", "tcp", "alerts-svc.mesh")
	if err != nil { panic(err) }
	names, err := own.LookupAddr(all, service[0].String())
	if err != nil { panic(err) }
	_, err = own.LookupHost(all, "nothing.mesh")
	var missing *net.DNSError
	none := errors.As(err, &missing) && missing.IsNotFound
	other, err := own.LookupIP(all, "ip4", "www.example.test")
	if err != nil { panic(err) }
	fmt.Println(service[0], ports[0].Port, names[0], none, other[0])
}
"#;

/// The namespace, and dnsmasq as the host's resolver.
pub(crate) struct Place {
    holder: Process,
    _resolver: Process,
}

impl Place {
    /// Makes one. It is an ordinary user's: user, mount and network namespaces.
    pub(crate) async fn open(mesh: &Mesh) -> Self {
        let folder = mesh.root().join("place");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("resolv.conf"), RESOLV_CONF).unwrap();
        std::fs::write(folder.join("nsswitch.conf"), NSSWITCH).unwrap();
        // Who asks for IPv4 alone (AI_ADDRCONFIG) is told nothing where there is no address but that of loopback.
        let script = "ip link set lo up && ip addr add 192.0.0.8/32 dev lo && ip addr add fd48:4d53:6d65:7369::1/128 dev lo && \
                      mount --bind resolv.conf /etc/resolv.conf && \
                      mount --bind nsswitch.conf /etc/nsswitch.conf && touch ready && exec sleep infinity";
        let mut command = mesh.command("unshare");
        command.args(["--map-root-user", "--mount", "--net", "sh", "-c", script]).current_dir(&folder);
        let mut holder = Process::start(command, mesh.root().join("place.log"));
        wait::until("the namespace is there", Duration::from_secs(10), || {
            let there = folder.join("ready").exists() && holder.is_running();
            std::future::ready(if there { Ok(()) } else { Err(holder.output()) })
        })
        .await;
        let resolver = Process::start(dnsmasq(mesh, &holder), mesh.root().join("dnsmasq.log"));
        Self { holder, _resolver: resolver }
    }

    /// A program that is `hms-proxy` in here.
    pub(crate) fn wrapped(&self, mesh: &Mesh) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let path = mesh.root().join("proxy-in-place");
        let (inside, proxy) = (inside(&self.holder).join(" "), binaries::hms_proxy());
        std::fs::write(&path, format!("#!/bin/sh\nexec {inside} {} \"$@\"\n", proxy.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// Runs words that have no spaces of their own.
    pub(crate) async fn run(&self, mesh: &Mesh, words: &str) -> Said {
        let mut command = mesh.command("nsenter");
        command.args(inside(&self.holder).iter().skip(1)).args(words.split(' '));
        mesh.run(command).await
    }

    /// Runs a script; what it wrote.
    pub(crate) async fn script(&self, mesh: &Mesh, program: &str, name: &str, text: &str) -> String {
        mesh.write(name, text);
        let said = self.run(mesh, &format!("{program} {}", mesh.project().join(name).display())).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    }

    /// Waits until a name has an address.
    pub(crate) async fn until_answers(&self, mesh: &Mesh, name: &str) {
        wait::until(&format!("{name} has an address"), Duration::from_secs(20), || async {
            let said = self.run(mesh, &format!("dig +short +time=1 +tries=1 {name}")).await;
            if said.out.starts_with("240.") { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
    }
}

/// The words that enter the namespace of a process.
fn inside(holder: &Process) -> Vec<String> {
    let pid = holder.pid().to_string();
    let words = ["nsenter", "--target", &pid, "--user", "--mount", "--net", "--preserve-credentials", "--"];
    words.map(str::to_owned).to_vec()
}

fn dnsmasq(mesh: &Mesh, holder: &Process) -> Command {
    let mut command = mesh.command("nsenter");
    command.args(inside(holder).iter().skip(1)).args(["dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-hosts"]);
    command.args(["--no-resolv", "--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", "--local=/#/"]);
    command.args([
        "--host-record=www.example.test,192.0.2.80,2001:db8::80",
        "--cname=alias.example.test,www.example.test",
    ]);
    command.arg("--host-record=printer.corp.example,192.0.2.9");
    for number in 0..40 {
        command
            .arg(format!("--txt-record=big.example.test,{number} many octets that no datagram of this size can hold"));
    }
    command
}

/// A program of Go, built once per run with what Go keeps of its library.
pub(crate) async fn go_program(mesh: &Mesh) -> PathBuf {
    mesh.write("ask/main.go", GO);
    let (folder, program) = (mesh.project().join("ask"), mesh.root().join("ask-go"));
    let cache = binaries::workspace().join("target/go-cache");
    let go = ["/usr/local/go/bin/go", "/usr/bin/go"].into_iter().find(|path| Path::new(path).exists()).unwrap();
    let mut command = mesh.command(go);
    command
        .args(["build", "-o"])
        .arg(&program)
        .arg("main.go")
        .env("GOCACHE", cache)
        .env("CGO_ENABLED", "0")
        .current_dir(folder);
    // The first time, all of Go's library is compiled.
    let mut building = Process::start(command, mesh.root().join("go.log"));
    assert_eq!(building.ended(Duration::from_mins(4)).await, Some(0), "{}", building.output());
    program
}
