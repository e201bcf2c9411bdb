//! Every byte between two proxies is TLS 1.3 with both ends proven, and the keys stay where they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hms_model::names::ServiceName;
use hms_testkit::apps::App;
use hms_testkit::capture::{Capture, contains};
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::tls::{Identity, impersonate, speak};
use hms_testkit::{figure, scenario, wait};
use hms_wire::hello::{Outside, PeerHello};
use http::Method;
use parking_lot::Mutex;
use rustls::version::{TLS12, TLS13};

const MESH: &str = "services: {calc-svc: {routes: [GET /echo, POST /echo]}, portal: {}, other: {}}";

/// A caller, a service, and a third one that has nothing to do with them.
struct Three {
    mesh: Mesh,
    app: App,
    server: Proxy,
    client: Proxy,
    other: Proxy,
}

impl Three {
    async fn start(arguments: &[&str]) -> Self {
        let mesh = Mesh::new();
        let _runs = mesh.control(arguments).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let other = Proxy::start(&mesh, Plan::client("other")).await;
        client.until_reaches("calc-svc", "/echo").await;
        other.until_ready().await;
        Self { mesh, app, server, client, other }
    }
}

#[test]
fn nothing_readable_crosses_the_wire_between_two_proxies() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let sealed_folder = three.mesh.root().join("sealed");
        let open_folder = three.mesh.root().join("open");
        for folder in [&sealed_folder, &open_folder] {
            std::fs::create_dir(folder).expect("a folder");
        }
        let port = |address: std::net::SocketAddr| format!("tcp port {}", address.port());
        let sealed = Capture::start(&sealed_folder, &port(three.server.address("inbound"))).await;
        let open = Capture::start(&open_folder, &port(three.app.address())).await;
        let caller = three.client.caller("calc-svc");
        let body = "MARKER-IN-BODY ".repeat(200);
        let fields = [("x-secret", "MARKER-IN-FIELD")];
        for _ in 0..5 {
            let answer =
                caller.send(Method::POST, "/echo?q=MARKER-IN-PATH", &fields, body.clone()).await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        // The capture of the last hop shows that a capture would show it.
        wait::until_true("the plain hop to the application is captured", Duration::from_secs(10), || {
            let bytes = open.bytes();
            ["MARKER-IN-BODY", "MARKER-IN-FIELD", "MARKER-IN-PATH"].iter().all(|word| contains(&bytes, word.as_bytes()))
        })
        .await;
        let _open = open.finish().await;
        let bytes = sealed.finish().await;
        assert!(bytes.len() > body.len() * 5, "{} bytes were captured between the proxies", bytes.len());
        for word in ["MARKER", "HTTP/1.1", "calc-svc", "/echo", "x-secret", "spiffe://"] {
            assert!(!contains(&bytes, word.as_bytes()), "{word} crossed the wire in the clear");
        }
    });
}

#[test]
fn only_a_proven_member_of_the_mesh_is_let_in() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let address = three.server.address("inbound");
        let domain = three.mesh.rest().get("/v1/summary").await["trust_domain"].as_str().expect("a domain").to_owned();
        let request = request();
        let hits = three.app.hits();

        let nobody = Box::pin(speak(address, None, &[&TLS13], &request)).await;
        assert!(nobody.is_err(), "without a certificate: {nobody:?}");
        for (what, spiffe) in [
            ("another domain", "spiffe://elsewhere.hms/ns/default/sa/portal".to_owned()),
            ("our domain, but not our authority", format!("spiffe://{domain}/ns/default/sa/portal")),
            ("the gateway of our domain, but not our authority", format!("spiffe://{domain}/ns/hms-system/sa/gateway")),
        ] {
            let refused =
                Box::pin(speak(address, Some(Identity::of_a_strange_authority(&spiffe)), &[&TLS13], &request)).await;
            assert!(refused.is_err(), "{what}: {refused:?}");
        }
        let old =
            Box::pin(speak(address, Some(Identity::stolen_from(&three.client.folder)), &[&TLS12], &request)).await;
        assert!(old.as_ref().is_err_and(|why| why.contains("ProtocolVersion")), "TLS 1.2: {old:?}");
        assert_eq!(three.app.hits(), hits, "none of them reached the application");

        // The same words with a certificate of the mesh are answered, so it was the proof that was missing.
        let member =
            Box::pin(speak(address, Some(Identity::stolen_from(&three.client.folder)), &[&TLS13], &request)).await;
        let answer = String::from_utf8_lossy(&member.expect("an answer")).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(three.app.hits(), hits + 1);
    });
}

#[test]
fn a_member_gets_nothing_out_of_the_mesh_by_saying_so_itself() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let open = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        open.set_nonblocking(true).expect("not blocking");
        let local = open.local_addr().expect("an address").port();
        let egress =
            format!("{MESH}\negress: {{through: gateway, hosts: {{near: {{host: 127.0.0.1, ports: [{local}]}}}}}}");
        let _applied = three.mesh.rest().apply(&egress).await;
        let gateway = Proxy::start(&three.mesh, Plan::egress()).await;
        gateway.until_ready().await;
        let thief = || Some(Identity::stolen_from(&three.client.folder));
        let asks = |host: &str, port: u16| {
            let outside = Some(Outside { host: host.to_owned(), has_tls: false });
            let mut bytes = hello("egress.hms-system", port, outside);
            bytes.extend_from_slice(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            bytes
        };
        let address = gateway.address("inbound");
        for (host, port, why) in [
            ("169.254.169.254", 80, "not listed"),
            ("api.fema.test", 80, "not listed"),
            // Listed, and still nobody's way to what is special to the gateway's machine.
            ("127.0.0.1", local, "special"),
            ("127.0.0.1", local ^ 1, "is not listed; add it to egress.hosts.near.ports"),
        ] {
            let answer = Box::pin(speak(address, thief(), &[&TLS13], &asks(host, port))).await.expect("an answer");
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("HMS-3202"), "{host}:{port}: {answer}");
            assert!(answer.contains(why), "{host}:{port}: {answer}");
        }
        assert!(open.accept().is_err(), "nobody came");
        // A proxy that is no egress gateway takes nothing of the kind, from the same caller that it answers otherwise.
        let own = Box::pin(speak(three.server.address("inbound"), thief(), &[&TLS13], &request())).await;
        assert!(String::from_utf8_lossy(&own.expect("an answer")).starts_with("HTTP/1.1 200"));
        let to_sidecar = asks("169.254.169.254", 80);
        let refused = Box::pin(speak(three.server.address("inbound"), thief(), &[&TLS13], &to_sidecar)).await;
        assert!(refused.as_ref().map_or(true, Vec::is_empty), "{refused:?}");
    });
}

/// A greeting and a request, as our proxies send them in one flight.
fn request() -> Vec<u8> {
    let mut bytes = hello("calc-svc", 0, None);
    bytes.extend_from_slice(b"GET /echo HTTP/1.1\r\nHost: calc-svc\r\n\r\n");
    bytes
}

fn hello(destination: &str, destination_port: u16, outside: Option<Outside>) -> Vec<u8> {
    let hello = PeerHello {
        outside,
        destination_port,
        destination: ServiceName::from_host(destination, "default").expect("a name"),
        source: ServiceName::new("portal").expect("a name"),
        workload: "1".to_owned(),
        version: String::new(),
        zone: String::new(),
        level: 1,
    };
    hello.encode().expect("short texts")
}

#[test]
fn plain_http_on_the_mutual_port_is_refused() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let hits = three.app.hits();
        let plain = hms_testkit::client::Http::plain(three.server.address("inbound")).get("/echo").await;
        let refused = plain.as_ref().map_or(true, |answer| answer.status >= 400);
        assert!(refused, "{plain:?}");
        assert_eq!(three.app.hits(), hits);
    });
}

#[test]
fn a_server_that_proves_another_service_gets_no_request() {
    scenario(Duration::from_mins(2), async {
        let Three { mesh, mut server, client, other, .. } = Three::start(&[]).await;
        let address = server.address("inbound");
        server.process.kill().await;
        let mut seen = impersonate(address, Identity::stolen_from(&other.folder)).await;
        let answer = client.caller("calc-svc").get("/echo?MARKER").await.expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
        let outcome =
            tokio::time::timeout(Duration::from_secs(10), seen.recv()).await.expect("it connected").expect("told");
        match outcome {
            Ok(bytes) => assert!(bytes.is_empty(), "the impostor was told {:?}", String::from_utf8_lossy(&bytes)),
            Err(why) => assert!(why.contains("ertificate") || why.contains("alert"), "{why}"),
        }
        drop(mesh);
    });
}

#[test]
fn keys_are_made_in_the_proxy_and_never_leave_its_private_folder() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let proxies = [&three.server, &three.client, &three.other];
        for proxy in proxies {
            let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(mode(&proxy.folder), 0o700);
            assert_eq!(mode(&proxy.folder.join("key.der")), 0o600);
            assert_eq!(mode(&proxy.folder.join("last-good")), 0o600);
            let key = std::fs::read(proxy.folder.join("key.der")).expect("a key");
            let secret = &key[key.len() / 3..key.len() / 3 + 32];
            let holders: Vec<PathBuf> = files(three.mesh.root())
                .into_iter()
                .filter(|path| contains(&std::fs::read(path).unwrap_or_default(), secret))
                .collect();
            assert_eq!(holders, [proxy.folder.join("key.der")], "the key is nowhere else");
        }
        for path in files(&three.mesh.state_dir().join("control")) {
            let mode = std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", path.display());
        }
    });
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries
        .flat_map(|entry| {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => files(&path),
                Ok(kind) if kind.is_file() => vec![path],
                _ => Vec::new(),
            }
        })
        .collect()
}

#[test]
fn certificates_of_fifteen_seconds_are_renewed_under_load_without_a_lost_request() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&["--validity", "15s"]).await;
        let rest = three.mesh.rest();
        let caller = Arc::new(three.client.caller("calc-svc"));
        let load = Load::start(100, move |_| {
            let caller = Arc::clone(&caller);
            async move {
                let answer = caller.get("/echo").await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
            }
        });
        let seen = Mutex::new(BTreeMap::<String, BTreeSet<String>>::new());
        wait::until("every certificate was renewed three times", Duration::from_mins(1), || async {
            let listed = rest.get("/v1/certificates").await;
            let mut seen = seen.lock();
            for item in listed["items"].as_array().into_iter().flatten() {
                let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
                let _new = seen.entry(text("proxy")).or_default().insert(text("serial"));
            }
            let done = seen.len() == 3 && seen.values().all(|serials| serials.len() >= 4);
            if done { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        let ledger = load.finish().await;
        figure("requests during three renewals", ledger.entries.len());
        figure("slowest request during renewals", format!("{:?}", ledger.slowest()));
        ledger.assert_no_failures("renewing certificates");
    });
}

#[test]
fn rotating_on_demand_under_load_loses_no_request() {
    scenario(Duration::from_mins(2), async {
        let three = Three::start(&[]).await;
        let caller = Arc::new(three.client.caller("calc-svc"));
        let load = Load::start(200, move |_| {
            let caller = Arc::clone(&caller);
            async move {
                let answer = caller.get("/echo").await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
            }
        });
        let mut serials = BTreeSet::new();
        for _ in 0..5 {
            load.go_on_for(50).await;
            let said = three.mesh.hms_json(&["certificates", "rotate", "--validity", "24h"]).await;
            for one in said["rotated"].as_array().into_iter().flatten() {
                assert!(serials.insert(one["serial"].as_str().expect("a serial").to_owned()), "{said}");
            }
        }
        assert_eq!(serials.len(), 15, "five times three");
        load.go_on_for(100).await;
        load.finish().await.assert_no_failures("rotating on demand");
    });
}
