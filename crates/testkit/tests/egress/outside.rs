//! The outside: a network namespace with addresses of its own, servers that nobody here wrote, and a resolver that knows their names.
#![expect(clippy::unwrap_used, reason = "a test that breaks fails")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use hms_testkit::mesh::{Mesh, Said};
use hms_testkit::processes::Process;
use hms_testkit::{binaries, wait};
use tokio::process::Command;

/// Where the names lead (RFC 5737).
pub(crate) const ADDRESS: &str = "192.0.2.80";
/// Another address at which the same servers answer, and no name leads to.
pub(crate) const OTHER: &str = "192.0.2.66";
const SOON: Duration = Duration::from_secs(20);

/// HTTP on port 80, HTTPS on 443, a greeting on 25; each answer says what it came by, and where.
const SERVERS: &str = r#"
import http.server, socket, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        tls = isinstance(self.connection, ssl.SSLSocket)
        shown = str(self.connection.getpeercert() or "") if tls else ""
        text = f"{'tls' if tls else 'clear'} {self.headers['host']} {self.path} at {self.connection.getsockname()[0]} {shown}\n"
        print(text, flush=True)
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
class Server(http.server.ThreadingHTTPServer):
    def get_request(self):
        # Handshakes happen in the thread of the connection.
        stream, peer = super().get_request()
        return (self.tls.wrap_socket(stream, server_side=True, do_handshake_on_connect=False), peer) if self.tls else (stream, peer)
    def handle_error(self, request, client): pass
def serve(port, tls):
    server = Server(("0.0.0.0", port), Handler)
    server.tls = tls
    threading.Thread(target=server.serve_forever).start()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("server.pem", "server.key")
context.verify_mode = ssl.CERT_OPTIONAL
context.load_verify_locations(sys.argv[1])
def later():
    import os, time
    # The mesh's own root is known once there is a mesh.
    while not os.path.exists("mesh-root.pem"): time.sleep(0.05)
    context.load_verify_locations("mesh-root.pem")
    print("knows the mesh", flush=True)
threading.Thread(target=later, daemon=True).start()
serve(80, None)
serve(443, context)
greeter = socket.create_server(("0.0.0.0", 25))
print("ready", flush=True)
while True:
    stream, _ = greeter.accept()
    stream.sendall(b"220 greetings\r\n")
    stream.close()
"#;
/// Says nothing itself, and prints what it hears.
const GREET: &str = r"
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 15) as stream:
    print(stream.recv(100).decode())
";

pub(crate) struct Outside {
    holder: Process,
    servers: Process,
    _resolver: Process,
}

impl Outside {
    /// Makes one, as an ordinary user could: user, mount and network namespaces.
    pub(crate) async fn open(mesh: &Mesh) -> Self {
        let folder = mesh.root().join("outside");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("resolv.conf"), "nameserver 127.0.0.1\n").unwrap();
        certificates(mesh);
        let script = format!(
            "ip link set lo up && ip address add {ADDRESS}/32 dev lo && ip address add {OTHER}/32 dev lo && \
             mount --bind resolv.conf /etc/resolv.conf && touch ready && exec sleep infinity"
        );
        let mut command = mesh.command("unshare");
        command.args(["--map-root-user", "--mount", "--net", "sh", "-c", &script]).current_dir(&folder);
        let mut holder = Process::start(command, mesh.root().join("outside.log"));
        wait::until("the namespace is there", SOON, || {
            let there = folder.join("ready").exists() && holder.is_running();
            std::future::ready(if there { Ok(()) } else { Err(holder.output()) })
        })
        .await;
        let mut resolver = entered(mesh, &holder, "dnsmasq");
        resolver.args(["--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--local=/#/"]);
        resolver.args(["--listen-address=127.0.0.1", "--bind-interfaces"]);
        resolver.arg(format!("--host-record=api.fema.test,{ADDRESS}"));
        resolver.arg(format!("--host-record=other.fema.test,{ADDRESS}"));
        resolver.arg(format!("--host-record=third.fema.test,{ADDRESS}"));
        let resolver = Process::start(resolver, mesh.root().join("dnsmasq.log"));
        mesh.write("servers.py", SERVERS);
        mesh.write("greet.py", GREET);
        let mut servers = entered(mesh, &holder, "/usr/bin/python3");
        servers.arg("servers.py").arg(mesh.project().join("root.pem"));
        let servers = Process::start(servers, mesh.root().join("servers.log"));
        wait::until("the servers listen", SOON, || {
            let said = servers.output();
            std::future::ready(if said.contains("ready") { Ok(()) } else { Err(said) })
        })
        .await;
        Self { holder, servers, _resolver: resolver }
    }

    /// Who vouches for the server.
    pub(crate) fn authority(mesh: &Mesh) -> PathBuf {
        mesh.project().join("root.pem")
    }

    /// Lets the server take certificates of the mesh from now on.
    pub(crate) async fn knows_the_mesh(&self, mesh: &Mesh) {
        let (root, place) = (root_below(&mesh.root().join("s")).unwrap(), mesh.project().join("mesh-root.pem"));
        // As a whole, because the server watches for it.
        std::fs::copy(root, place.with_extension("part")).unwrap();
        std::fs::rename(place.with_extension("part"), place).unwrap();
        wait::until_true("the server knows the mesh", SOON, || self.log().contains("knows the mesh")).await;
    }

    /// What the servers were asked.
    pub(crate) fn log(&self) -> String {
        self.servers.output()
    }

    /// `hms` within; words have no spaces of their own.
    pub(crate) async fn hms(&self, mesh: &Mesh, words: &str) -> Said {
        let mut command = entered(mesh, &self.holder, binaries::hms().to_str().unwrap());
        command.args(words.split(' '));
        mesh.run(command).await
    }

    /// A program in the namespace itself.
    pub(crate) async fn exec_host(&self, mesh: &Mesh, words: &str) -> Said {
        let mut words = words.split(' ');
        let mut command = entered(mesh, &self.holder, words.next().unwrap());
        command.args(words);
        mesh.run(command).await
    }

    /// A program beside `caller`.
    pub(crate) async fn exec(&self, mesh: &Mesh, words: &str) -> Said {
        self.hms(mesh, &format!("exec caller -- {words}")).await
    }

    /// Waits until `hms egress` shows a host in this way.
    pub(crate) async fn until_seen(&self, mesh: &Mesh, host: &str, so: impl Fn(&serde_json::Value) -> bool) {
        wait::until(&format!("{host} is seen"), SOON, || async {
            let shown = self.hms(mesh, "egress -o json").await.json();
            let rows = shown["seen"].as_array().cloned().unwrap_or_default();
            if rows.iter().any(|row| row["host"] == host && so(row)) { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    }
}

/// The root certificate of the only mesh below a folder.
fn root_below(folder: &Path) -> Option<PathBuf> {
    let own = folder.join("ca/root.pem");
    if own.exists() {
        return Some(own);
    }
    let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inner.filter(|path| path.is_dir()).find_map(|path| root_below(&path))
}

fn entered(mesh: &Mesh, holder: &Process, program: &str) -> Command {
    let mut command = mesh.command("nsenter");
    let pid = holder.pid().to_string();
    command.args(["--target", &pid, "--user", "--mount", "--net", "--preserve-credentials"]);
    command.arg(format!("--wdns={}", mesh.project().display())).args(["--", program]);
    command
}

/// An authority of the test's own, and a certificate for one of the three names that lead to the server.
fn certificates(mesh: &Mesh) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    // Two subjects that are the same are taken for one that signed itself.
    root.distinguished_name.push(rcgen::DnType::CommonName, "authority of the outside");
    let certificate = root.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(root, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let names = ["api.fema.test", "third.fema.test"].map(str::to_owned).to_vec();
    let leaf = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
    mesh.write("root.pem", certificate.pem());
    mesh.write("server.pem", leaf.pem());
    mesh.write("server.key", key.serialize_pem());
}
