//! Names by the resolvers that programs bring: dig, the C library, Python, Node and Go, each in a namespace whose only resolver is the
//! sidecar, and behind the sidecar a resolver that nobody here wrote.

mod place;

use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::scenario;
use hms_testkit::sidecar::{Plan, Proxy};

use place::Place;

const SERVICES: &str = "services:\n  payment-svc: {}\n  alerts-svc: {ports: {grpc: 50051}}\n";

/// A mesh, a place, and the sidecar that answers there.
async fn answering(mesh: &Mesh) -> (Place, Proxy) {
    let _applied = mesh.rest().apply(SERVICES).await;
    let place = Place::open(mesh).await;
    let arguments = ["--dns", "127.0.0.1:53", "--resolver", "127.0.0.1:5353"].map(str::to_owned).to_vec();
    let plan = Plan { program: place.wrapped(mesh), arguments, ..Plan::client("caller") };
    let proxy = Proxy::start(mesh, plan).await;
    place.until_answers(mesh, "payment-svc.mesh").await;
    (place, proxy)
}

#[test]
fn dig_gets_every_kind_of_answer() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let (place, _proxy) = answering(&mesh).await;
        let dig = async |arguments: &str| place.run(&mesh, &format!("dig +time=5 +tries=1 {arguments}")).await.out;
        let address = dig("+short payment-svc.default.svc.cluster.local").await.trim().to_owned();
        assert!(address.starts_with("240."), "{address}");
        for spelling in
            ["payment-svc", "payment-svc.mesh", "PAYMENT-svc.default", "+tcp payment-svc.mesh", "+noedns payment-svc"]
        {
            assert_eq!(dig(&format!("+short {spelling}")).await.trim(), address, "{spelling}");
        }
        assert!(dig("+short payment-svc.mesh AAAA").await.starts_with("fd48:4d53:6d65:7368::"));
        assert_eq!(dig(&format!("+short -x {address}")).await.trim(), "payment-svc.mesh.");
        assert_eq!(dig("+short _grpc._tcp.alerts-svc.mesh SRV").await.trim(), "0 0 50051 alerts-svc.mesh.");
        for (asked, status) in [
            ("nothing.mesh", "NXDOMAIN"),
            ("x.default.svc.cluster.local", "NXDOMAIN"),
            ("nosuchhost", "NXDOMAIN"),
            ("payment-svc.mesh TXT", "NOERROR"),
            ("payment-svc.mesh ANY", "REFUSED"),
            ("mesh AXFR", "Transfer failed"),
            ("version.bind CH TXT", "REFUSED"),
            ("+opcode=notify payment-svc.mesh", "NOTIMP"),
            ("+edns=1 +noednsnegotiation payment-svc.mesh", "BADVERS"),
            ("missing.example.test", "NXDOMAIN"),
        ] {
            let begun = tokio::time::Instant::now();
            let said = dig(asked).await;
            assert!(said.contains(status), "{asked}: {said}");
            assert!(begun.elapsed() < Duration::from_secs(4), "{asked} took {:?}", begun.elapsed());
        }
        assert_eq!(dig("+short www.example.test").await.trim(), "192.0.2.80");
        assert_eq!(dig("+short www.example.test AAAA").await.trim(), "2001:db8::80");
        assert_eq!(dig("+short alias.example.test").await.lines().last(), Some("192.0.2.80"));
        // More than a datagram holds: dig comes again by TCP, and so do we.
        let long = dig("+short big.example.test TXT").await;
        assert_eq!(long.matches("octets").count(), 40, "{long}");
    });
}

#[test]
fn what_programs_bring_finds_services_and_the_rest_of_the_world() {
    scenario(Duration::from_mins(8), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let (place, _proxy) = answering(&mesh).await;
        let address = place.run(&mesh, "dig +short payment-svc.mesh").await.out.trim().to_owned();

        // The C library, with a search list: the mesh first, then as the host does.
        let hosts = place.run(&mesh, "getent ahosts payment-svc").await.out;
        assert!(hosts.contains(&address) && hosts.contains("fd48:4d53:6d65:7368::"), "{hosts}");
        for (host, expected) in
            [("payment-svc.default", &*address), ("www.example.test", "192.0.2.80"), ("printer", "192.0.2.9")]
        {
            let found = place.run(&mesh, &format!("getent ahostsv4 {host}")).await.out;
            assert!(found.starts_with(expected), "{host}: {found}");
        }
        let begun = tokio::time::Instant::now();
        for host in ["nothing.mesh", "nosuchhost"] {
            assert_eq!(place.run(&mesh, &format!("getent hosts {host}")).await.code, 2, "{host}");
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let reverse = place.run(&mesh, &format!("getent hosts {address}")).await.out;
        assert!(reverse.trim_end().ends_with("payment-svc.mesh"), "{reverse}");

        let python = "import socket; print(*sorted({a[4][0] for a in socket.getaddrinfo('payment-svc', 80)}))";
        let said = place.script(&mesh, "/usr/bin/python3", "ask.py", python).await;
        assert!(said.starts_with(&address) && said.contains("fd48:"), "{said}");

        let node = "const dns = require('dns').promises; (async () => { console.log((await dns.lookup('payment-svc', 4)).address, \
                    (await dns.resolve4('payment-svc.mesh'))[0], (await dns.resolveSrv('_grpc._tcp.alerts-svc.mesh'))[0].port, \
                    await dns.resolve4('nothing.mesh').catch(e => e.code), (await dns.resolve4('www.example.test'))[0]) })()";
        let said = place.script(&mesh, "node", "ask.js", node).await;
        assert_eq!(said.trim(), format!("{address} {address} 50051 ENOTFOUND 192.0.2.80"));

        let said = place.run(&mesh, &place::go_program(&mesh).await.display().to_string()).await;
        assert_eq!(said.out.trim(), format!("{address} 50051 payment-svc.mesh. true 192.0.2.80"), "{said:?}");
    });
}
