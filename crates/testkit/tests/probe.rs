//! Proxies that ask their applications whether they are well, as the service's policy says.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, scenario, wait};

const SOON: Duration = Duration::from_secs(20);

async fn applied(mesh: &Mesh, probe: &str) {
    let file = format!("services: {{calc-svc: {{routes: [GET /*, POST /*], probe: {probe}}}, portal: {{}}}}");
    let _applied = mesh.rest().apply(&file).await;
}

/// Waits until the registry has the one instance in a state.
async fn until(mesh: &Mesh, state: &str, why: &str) {
    wait::until(&format!("calc-svc is {state}: {why}"), SOON, || async {
        let view = mesh.rest().get("/v1/services/calc-svc").await;
        if view["endpoints"][0]["health"] == state { Ok(()) } else { Err(view.to_string()) }
    })
    .await;
}

#[test]
fn an_application_is_well_or_not_by_what_its_policy_asks_and_a_change_holds_at_once() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let app = App::start("calc").await;
        applied(&mesh, "{http: /status/204, interval: 100ms}").await;
        let _sidecar = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let rest = mesh.rest();
        let _well = rest.until_service("calc-svc", "healthy", 1).await;
        // The hour shows that the next question waits for no interval when it is another one.
        for (probe, state) in [
            ("{http: /status/500, interval: 100ms, unhealthy: 2}", "unhealthy"),
            ("{http: /status/500, status: [500-599], interval: 1h}", "healthy"),
            ("{http: /status/204, status: 200, interval: 100ms}", "unhealthy"),
            ("tcp", "healthy"),
            ("{http: /slow/5000, timeout: 50ms, interval: 100ms, unhealthy: 1}", "unhealthy"),
            ("{http: /slow/10, interval: 100ms, healthy: 3}", "healthy"),
        ] {
            applied(&mesh, probe).await;
            until(&mesh, state, probe).await;
        }
        assert!(app.hits_of("/status/500") >= 2, "two bad answers were needed");
        assert!(app.hits_of("/slow/10") >= 3, "three good answers were needed");
        // One that does not listen needs no second opinion: with an hour between questions, a refused call is enough.
        applied(&mesh, "{http: /status/200, interval: 1h, unhealthy: 100}").await;
        wait::until("it was asked", SOON, || async {
            if app.hits_of("/status/200") > 0 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let portal =
            Proxy::start(&mesh, Plan { upstreams: vec!["calc-svc".to_owned()], ..Plan::client("portal") }).await;
        portal.until_reaches("calc-svc", "/echo").await;
        app.stop().await;
        let refused = portal.caller("calc-svc").get("/echo").await.expect("an answer");
        assert_eq!(refused.status, 503, "{}", refused.text());
        let _down = rest.until_breaker("calc-svc", "OPEN", SOON).await;
        let view = rest.get("/v1/services/calc-svc").await;
        assert_eq!(view["endpoints"][0]["health"], "unhealthy", "{view}");
    });
}

/// The health protocol on grpcio: an application that serves `pay.Payments` for as long as a file is not there.
const GRPC_SERVER: &str = r#"
import grpc, os, sys
from concurrent import futures

class Health(grpc.GenericRpcHandler):
    def service(self, call):
        def check(request, context):
            if request not in (b"", b"\x0a\x0cpay.Payments"):
                context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return b"\x08\x02" if os.path.exists("not-serving") else b"\x08\x01"
        if call.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(check)

server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Health(),))
print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"#;

#[test]
fn a_grpc_application_of_grpcio_is_asked_by_the_health_protocol() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        applied(&mesh, "{grpc: pay.Payments, interval: 100ms}").await;
        mesh.write("server.py", GRPC_SERVER);
        let mut server = mesh.command(binaries::python());
        server.arg("server.py");
        let server = Process::start(server, mesh.root().join("grpc.log"));
        let port: u16 = wait::until("the gRPC server listens", SOON, || {
            let text = server.output();
            let port = text.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok());
            std::future::ready(port.ok_or(text))
        })
        .await;
        let app = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let _sidecar = Proxy::start(&mesh, Plan::of("calc-svc", app)).await;
        until(&mesh, "healthy", "it says SERVING").await;
        mesh.write("not-serving", "");
        until(&mesh, "unhealthy", "it says NOT_SERVING").await;
        applied(&mesh, "tcp").await;
        until(&mesh, "healthy", "it still accepts connections").await;
        applied(&mesh, "{grpc: pay.Nobody, interval: 100ms}").await;
        until(&mesh, "unhealthy", "it has no such service").await;
        std::fs::remove_file(mesh.project().join("not-serving")).expect("it is there");
        applied(&mesh, "{grpc: \"\", interval: 100ms}").await;
        until(&mesh, "healthy", "the application as a whole is well").await;
    });
}
