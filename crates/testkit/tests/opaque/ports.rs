//! A service with several ports, each before an application's port of its own.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::scenario;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::tcp::{GREETING, Manner, TcpApp};

use crate::stack::caller;

#[test]
fn each_port_leads_to_its_own_application_and_no_connection_is_used_for_another() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let greeter = TcpApp::start(Manner::Greet).await;
        let (one, two) = (App::start("one").await, App::start("two").await);
        let port = |number: u16, protocol: &str, app: std::net::SocketAddr| {
            format!("{{port: {number}, protocol: {protocol}, target: {}}}", app.port())
        };
        let ports = [
            format!("mail: {}", port(25, "tcp", greeter.address())),
            format!("web: {}", port(81, "http", one.address())),
            format!("admin: {}", port(82, "http", two.address())),
        ];
        let file = format!("services: {{db: {{routes: [GET /*], ports: {{{}}}}}, portal: {{}}}}", ports.join(", "));
        let _applied = mesh.rest().apply(&file).await;
        let _server = Proxy::start(&mesh, Plan::of("db", one.address())).await;
        let (client, pinned) = caller(&mesh, "portal").await;
        // Mixed, so that connections are kept and could be confused.
        for round in 0..3 {
            for (port, app) in [(81, "one"), (82, "two"), (81, "one")] {
                let http = Http::through(client.address("outbound"), &format!("db:{port}"));
                let answer = http.get("/echo").await.expect("an answer");
                assert_eq!((answer.status, answer.json()["app"].as_str()), (200, Some(app)), "round {round}, {port}");
            }
            // The first port is declared as tcp, routes or not.
            let mut connection = hms_testkit::tcp::Caller::connect(pinned).await;
            assert_eq!(connection.read(GREETING.len()).await.as_deref(), Ok(GREETING));
        }
        assert!(one.hits() >= 6 && two.hits() == 3, "{} and {}", one.hits(), two.hits());
    });
}
