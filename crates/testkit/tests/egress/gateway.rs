//! Calls that leave through the egress gateway.
#![expect(clippy::unwrap_used, reason = "a test that breaks fails")]

use hms_testkit::mesh::Mesh;
use hms_testkit::processes::signal;
use hms_testkit::{scenario, wait};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::outside::{ADDRESS, Outside};
use super::{CURL, LIMIT, SOON, mesh};

#[test]
fn every_kind_of_call_leaves_through_the_gateway_with_the_gateways_identity() {
    scenario(LIMIT, async {
        let egress = "egress:\n  default: listed\n  through: gateway\n  hosts:\n    \
            api: {host: api.fema.test, tls: origin, ca: ROOT, client_certificate: mesh}\n    \
            other: {host: third.fema.test, ports: [25, 80, 443]}\n    \
            wrong-name: {host: other.fema.test, tls: origin, ca: ROOT}\n";
        let (mesh, outside) = mesh(egress).await;
        let root = Outside::authority(&mesh);
        let curl =
            async |words: &str| outside.exec(&mesh, &format!("{CURL} --cacert {} {words}", root.display())).await;
        // TLS begun in the program's stead: it is the gateway that shows a certificate.
        let said = curl("http://api.fema.test/sync").await;
        assert!(said.code == 0 && said.out.contains("tls api.fema.test /sync"), "{said:?}\n{}", mesh.logs());
        assert!(said.out.contains("/ns/hms-system/sa/egress"), "{said:?}");
        // TLS of the program's own, to the same host: nobody touches it.
        let said = curl("https://api.fema.test/own").await;
        assert!(said.code == 0 && said.out.contains("tls api.fema.test /own"), "{said:?}\n{}", mesh.logs());
        assert!(!said.out.contains("/sa/"), "{said:?}");
        // In the clear, over TLS by its server name, and a server that speaks first.
        let said = curl("http://third.fema.test/y").await;
        assert!(said.code == 0 && said.out.contains("clear third.fema.test /y"), "{said:?}\n{}", mesh.logs());
        let said = curl("https://third.fema.test/x").await;
        assert!(said.code == 0 && said.out.contains("tls third.fema.test /x"), "{said:?}\n{}", mesh.logs());
        let said = outside.exec(&mesh, "timeout 20 /usr/bin/python3 greet.py third.fema.test 25").await;
        assert_eq!(said.out.trim(), "220 greetings", "{said:?}\n{}", mesh.logs());
        // What is refused is refused in the same words, and what fails at the gateway is told in its words.
        let said = curl("-i -H Host:nobody.fema.test http://third.fema.test/").await;
        assert!(said.out.contains("403") && said.out.contains("HMS-3202"), "{said:?}");
        let said = curl(&format!("-i http://{ADDRESS}/")).await;
        assert!(said.out.contains("HMS-3202"), "{said:?}");
        let said = curl("-i http://other.fema.test/").await;
        assert!(said.out.contains("HMS-3003") && said.out.contains("certificate"), "{said:?}");
        told(&mesh, &outside).await;
    });
}

/// The same observability as for calls within the mesh: both proxies tell of each call.
async fn told(mesh: &Mesh, outside: &Outside) {
    outside.until_seen(mesh, "api.fema.test", |row| row["callers"] == serde_json::json!(["caller"])).await;
    let shown = outside.hms(mesh, "egress").await;
    assert!(shown.out.contains("through the egress gateway"), "{shown:?}");
    wait::until("the gateway's series", SOON, || async {
        let address = admin_of(mesh, "egress.hms-system-1");
        let page = outside.exec_host(mesh, &format!("curl -sS --max-time 20 http://{address}/metrics")).await.out;
        let told = |reporter: &str, page: &str| {
            page.lines().any(|line| {
                line.starts_with("istio_requests_total{")
                    && line.contains(&format!("reporter=\"{reporter}\""))
                    && line.contains("source_workload=\"caller\"")
                    && line.contains("destination_workload=\"egress\"")
                    && line.contains("destination_service=\"api.fema.test\"")
                    && line.contains("destination_principal=\"spiffe://")
            })
        };
        let address = admin_of(mesh, "caller-1");
        let own = outside.exec_host(mesh, &format!("curl -sS --max-time 20 http://{address}/metrics")).await.out;
        let mutual = page.contains("connection_security_policy=\"mutual_tls\"");
        if mutual && told("destination", &page) && told("source", &own) { Ok(()) } else { Err(requests(&page, &own)) }
    })
    .await;
}

fn requests(gateway: &str, sidecar: &str) -> String {
    let lines = [gateway, sidecar].into_iter().flat_map(str::lines);
    lines.filter(|line| line.starts_with("istio_requests_total{")).collect::<Vec<_>>().join("\n")
}

/// Where a proxy of the mesh tells its series.
fn admin_of(mesh: &Mesh, folder: &str) -> String {
    ports_of(mesh, folder)["admin"].as_str().unwrap().to_owned()
}

fn ports_of(mesh: &Mesh, folder: &str) -> Value {
    let path = mesh.run_dir().join("proxies").join(folder).join("ports.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_new_gateway_takes_over_and_while_it_is_frozen_nothing_leaves() {
    scenario(LIMIT, async {
        let egress = "egress: {default: listed, through: gateway, hosts: {api: {host: api.fema.test, timeout: 2s, breaker: {errors: 100}}}}";
        let (mesh, outside) = mesh(egress).await;
        let said = outside.exec(&mesh, &format!("{CURL} http://api.fema.test/a")).await;
        assert!(said.code == 0 && said.out.contains("clear api.fema.test /a"), "{said:?}\n{}", mesh.logs());
        let said = outside.hms(&mesh, "proxy restart egress.hms-system").await;
        assert_eq!(said.code, 0, "{said:?}");
        let said = outside.exec(&mesh, &format!("{CURL} http://api.fema.test/b")).await;
        assert!(said.code == 0 && said.out.contains("clear api.fema.test /b"), "{said:?}\n{}", mesh.logs());
        let pid = ports_of(&mesh, "egress.hms-system-1")["pid"].as_u64().unwrap();
        let pid = u32::try_from(pid).unwrap();
        signal(pid, Signal::SIGSTOP);
        let said = outside.exec(&mesh, &format!("{CURL} -i http://api.fema.test/c")).await;
        assert!(said.out.contains("HTTP/1.1 50") && said.out.contains("HMS-30"), "{said:?}");
        assert!(!outside.log().contains("/c"), "there is no way around it");
        signal(pid, Signal::SIGCONT);
        let said = outside.exec(&mesh, &format!("{CURL} http://api.fema.test/d")).await;
        assert!(said.code == 0 && said.out.contains("clear api.fema.test /d"), "{said:?}\n{}", mesh.logs());
    });
}
