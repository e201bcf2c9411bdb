//! What captured programs may reach outside of the mesh: real servers on an address of a network namespace that the test makes, with
//! names that a real resolver answers.

#[path = "egress/gateway.rs"]
mod gateway;
#[path = "egress/outside.rs"]
mod outside;

use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::{scenario, wait};

use outside::{ADDRESS, Outside};

const LIMIT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_secs(20);
const CURL: &str = "curl -sS --max-time 20";

/// A mesh in the namespace, with one captured program beside whose proxy everything is asked.
async fn mesh(egress: &str) -> (Mesh, Outside) {
    let mesh = Mesh::new();
    let outside = Outside::open(&mesh).await;
    mesh.write("client.py", "import time\nwhile True: time.sleep(1000)\n");
    let root = Outside::authority(&mesh);
    let egress = egress.replace("ROOT", &root.display().to_string());
    let file = format!("intercept: netns\nservices:\n  caller: {{run: /usr/bin/python3 client.py}}\n{egress}\n");
    mesh.write("mesh.yaml", file);
    let said = outside.hms(&mesh, "up -d --wait --ports auto").await;
    assert_eq!(said.code, 0, "{said:?}\n{}", mesh.logs());
    outside.knows_the_mesh(&mesh).await;
    wait::until("the program can be entered", SOON, || async {
        let said = outside.exec(&mesh, "true").await;
        if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    (mesh, outside)
}

#[test]
fn listed_hosts_are_reached_over_tls_of_the_programs_own_and_others_are_refused() {
    scenario(LIMIT, async {
        let egress = "egress: {default: listed, hosts: {api: {host: api.fema.test, ports: [80, 443]}}}";
        let (mesh, outside) = mesh(egress).await;
        let root = Outside::authority(&mesh);
        let curl =
            async |words: &str| outside.exec(&mesh, &format!("{CURL} --cacert {} {words}", root.display())).await;
        let said = curl("https://api.fema.test/x").await;
        assert!(said.code == 0 && said.out.contains("tls api.fema.test /x"), "{said:?}\n{}", mesh.logs());
        let said = curl("http://api.fema.test/y").await;
        assert!(said.code == 0 && said.out.contains("clear api.fema.test /y"), "{said:?}\n{}", mesh.logs());
        // Not listed: in words where there are some, else a connection that breaks.
        let said = curl("-i http://other.fema.test/").await;
        assert!(said.out.contains("403") && said.out.contains("HMS-3202"), "{said:?}");
        assert!(said.out.contains("host: other.fema.test, ports: [80]"), "it says what to add: {said:?}");
        assert_ne!(curl("https://other.fema.test/").await.code, 0);
        // A listed name does not open the way to another address, and an address is not listed by itself.
        let evil = outside::OTHER;
        let said = curl(&format!("-H Host:api.fema.test http://{evil}/")).await;
        assert!(
            said.out.contains("clear") && said.out.contains(&format!("at {ADDRESS}")),
            "the name decides: {said:?}"
        );
        let said = curl(&format!("--connect-to ::{evil}: https://api.fema.test/z")).await;
        assert!(said.out.contains(&format!("at {ADDRESS}")), "the name decides: {said:?}");
        let said = curl(&format!("-i http://{evil}/")).await;
        assert!(said.out.contains("HMS-3202"), "{said:?}");
        outside.until_seen(&mesh, "other.fema.test", |row| row["refused"].as_u64() >= Some(1)).await;
        outside.until_seen(&mesh, "api.fema.test", |row| row["label"] == "api").await;
    });
}

#[test]
fn on_a_laptop_everything_is_allowed_and_what_nobody_listed_is_shown_as_unmanaged() {
    scenario(LIMIT, async {
        let (mesh, outside) = mesh("").await;
        let root = Outside::authority(&mesh);
        let said = outside.exec(&mesh, &format!("{CURL} --cacert {} https://api.fema.test/a", root.display())).await;
        assert!(said.code == 0 && said.out.contains("tls api.fema.test /a"), "{said:?}\n{}", mesh.logs());
        let said = outside.exec(&mesh, &format!("{CURL} http://{ADDRESS}/b")).await;
        assert!(said.code == 0 && said.out.contains("/b"), "{said:?}\n{}", mesh.logs());
        // A server that speaks first.
        let said = outside.exec(&mesh, "timeout 20 /usr/bin/python3 greet.py api.fema.test 25").await;
        assert_eq!(said.out.trim(), "220 greetings", "{said:?}\n{}", mesh.logs());
        outside
            .until_seen(&mesh, "api.fema.test", |row| row["label"].is_null() && row["allowed"].as_u64() >= Some(1))
            .await;
        outside.until_seen(&mesh, ADDRESS, |row| row["allowed"].as_u64() >= Some(1)).await;
        let shown = outside.hms(&mesh, "egress").await;
        assert!(shown.out.contains("egress allow") && shown.out.contains("unmanaged"), "{shown:?}");
        // What is special to the machine is nobody's outside.
        let said = outside.exec(&mesh, &format!("{CURL} -i http://169.254.169.254/latest/")).await;
        assert!(said.out.contains("HMS-3202") && said.out.contains("special"), "{said:?}");
    });
}

#[test]
fn deny_refuses_even_what_is_listed() {
    scenario(LIMIT, async {
        let (mesh, outside) = mesh("egress: {default: deny, hosts: {api: {host: api.fema.test}}}").await;
        let said = outside.exec(&mesh, &format!("{CURL} -i http://api.fema.test/")).await;
        assert!(said.out.contains("HMS-3202") && said.out.contains("default: deny"), "{said:?}");
        let said = outside.exec(&mesh, &format!("{CURL} -k https://api.fema.test/")).await;
        assert_ne!(said.code, 0, "{said:?}");
    });
}

#[test]
fn the_proxy_begins_tls_in_the_programs_stead_and_verifies_name_and_authority() {
    scenario(LIMIT, async {
        let egress = "egress:\n  default: listed\n  hosts:\n    \
            api: {host: api.fema.test, tls: origin, ca: ROOT, client_certificate: mesh}\n    \
            wrong-name: {host: other.fema.test, tls: origin, ca: ROOT}\n    \
            wrong-authority: {host: third.fema.test, tls: origin}\n";
        let (mesh, outside) = mesh(egress).await;
        let said = outside.exec(&mesh, &format!("{CURL} http://api.fema.test/sync")).await;
        assert!(said.code == 0 && said.out.contains("tls api.fema.test /sync"), "{said:?}\n{}", mesh.logs());
        assert!(said.out.contains("/ns/default/sa/caller"), "the mesh's own certificate is shown: {said:?}");
        for host in ["other.fema.test", "third.fema.test"] {
            let said = outside.exec(&mesh, &format!("{CURL} -i http://{host}/")).await;
            assert!(said.out.contains("503") && said.out.contains("HMS-3003"), "{host}: {said:?}");
            assert!(said.out.contains("certificate"), "{host} says why: {said:?}");
        }
        assert!(!outside.log().contains("third.fema.test /"), "nothing was sent to whom nobody vouches for");
        wait::until_true("the series name the host", SOON, || mesh.logs().contains("api.fema.test")).await;
    });
}
