//! What applications and clients really speak passes unharmed: HTTP/1.1, HTTP/2, gRPC, large bodies, odd answers.

use std::time::Duration;

use bytes::Bytes;
use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::http2::Http2;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, scenario, wait};
use http::{Method, Request};

/// The breaker is patient, because some of these answers are failures on purpose.
const MESH: &str = "services: {calc-svc: {routes: [GET /*, POST /*, PUT /*], breaker: {errors: 50}}, portal: {}}";
const MEBIBYTE: usize = 1 << 20;

/// One service with a caller inside and a gateway.
struct Stack {
    mesh: Mesh,
    app: App,
    client: Proxy,
    gateway: Proxy,
    root: String,
    token: String,
    _server: Proxy,
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let _runs = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        client.until_reaches("calc-svc", "/echo").await;
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let token = mesh.jwt().await;
        let outside = Http::tls(gateway.address("https"), "gateway.local", &root).bearer(&token);
        wait::until("the gateway passes a call", Duration::from_secs(20), || async {
            let answer = outside.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        Self { mesh, app, client, gateway, root, token, _server: server }
    }

    fn inside(&self) -> Http {
        self.client.caller("calc-svc")
    }

    fn outside(&self) -> Http {
        Http::tls(self.gateway.address("https"), "gateway.local", &self.root).bearer(&self.token)
    }
}

#[test]
fn bodies_of_every_size_pass_in_both_directions() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        for (who, http) in [("a sidecar", stack.inside()), ("the gateway", stack.outside())] {
            for size in [0, 1, 65_536, MEBIBYTE] {
                let up = http.send(Method::POST, "/echo", &[], vec![b'u'; size]).await.expect("an answer");
                assert_eq!((up.status, up.json()["body"].as_u64()), (200, Some(size as u64)), "{who}, {size} up");
                let down = http.get(&format!("/bytes/{size}")).await.expect("an answer");
                assert_eq!((down.status, down.body.len()), (200, size), "{who}, {size} down");
                assert!(down.body.iter().all(|byte| *byte == b'x'));
            }
        }
    });
}

#[test]
fn answers_without_bodies_and_answers_in_chunks_keep_their_form() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        for (who, http) in [("a sidecar", stack.inside()), ("the gateway", stack.outside())] {
            let head = http.send(Method::HEAD, "/bytes/1000", &[], "").await.expect("an answer");
            assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, "1000", 0), "{who}");
            for status in [204, 304] {
                let none = http.get(&format!("/status/{status}")).await.expect("an answer");
                assert_eq!((none.status, none.body.len()), (status, 0), "{who}");
            }
            let parts = http.get("/chunked").await.expect("an answer");
            assert_eq!((parts.status, parts.text().as_str()), (200, "onetwosix"), "{who}");
            // The connection is still in step after all of that.
            assert_eq!(http.get("/echo").await.expect("an answer").status, 200, "{who}");
        }
    });
}

#[test]
fn requests_carry_a_trace_and_no_field_of_the_hop() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let fields = [("connection", "x-hop"), ("x-hop", "1"), ("x-end", "2"), ("x-forwarded-for", "6.6.6.6")];
        let answer =
            stack.outside().send(Method::GET, "/echo/%7Euser?a=1&b=%20", &fields, "").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = answer.json();
        assert_eq!(seen["path"], "/echo/~user?a=1&b=%20", "the canonical form is what is sent");
        let had = &seen["headers"];
        assert!(had["x-hop"].is_null() && had["x-end"] == "2", "{had}");
        assert_eq!(had["x-trace-id"], answer.header("x-trace-id"));
        assert!(
            had["traceparent"].as_str().is_some_and(|parent| parent.contains(answer.header("x-trace-id"))),
            "{had}"
        );
        assert!(!had["x-forwarded-for"].as_str().unwrap_or_default().contains("6.6.6.6"), "a stranger's word: {had}");
    });
}

#[test]
fn a_post_is_never_executed_twice_and_a_get_is_tried_again() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let http = stack.inside();
        let post = http.send(Method::POST, "/close", &[], "pay once").await.expect("an answer");
        assert_eq!((post.status, stack.app.hits_of("/close")), (502, 1), "{}", post.text());
        assert_eq!(post.header("x-hms-error"), "HMS-3005");
        let get = http.get("/close").await.expect("an answer");
        assert_eq!((get.status, stack.app.hits_of("/close")), (502, 4), "three tries in all: {}", get.text());
        let retries = stack.client.metrics().await.sum("hms_retries_total", &["calc-svc"]);
        assert!((retries - 2.0).abs() < 0.5, "{retries}");
    });
}

#[test]
fn http2_reaches_the_gateway_with_many_streams_on_one_connection() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let http = Box::pin(Http2::connect(stack.gateway.address("https"), "gateway.local", &stack.root))
            .await
            .expect("HTTP/2");
        let request = |method: Method, path: &str| {
            let request = Request::builder().method(method).uri(format!("https://gateway.local{path}"));
            request.header("authorization", format!("Bearer {}", stack.token)).body(()).expect("a request")
        };
        let upload = http.send(request(Method::POST, "/echo"), vec![b'u'; MEBIBYTE]).await.expect("an answer");
        assert_eq!((upload.status, upload.json()["body"].as_u64()), (200, Some(MEBIBYTE as u64)));
        let mut answers = Vec::new();
        for number in 0..40 {
            let (http, request) = (http.clone(), request(Method::GET, &format!("/slow/{}", 50 + number)));
            answers.push(hms_testkit::tasks::spawn(async move { http.send(request, Bytes::new()).await }));
        }
        for answer in answers {
            let answer = answer.await.expect("no panic").expect("an answer");
            assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
            assert!(!answer.header("x-trace-id").is_empty());
        }
        let chunked = http.send(request(Method::GET, "/chunked"), Bytes::new()).await.expect("an answer");
        assert_eq!(chunked.text(), "onetwosix");
    });
}

#[test]
fn the_real_curl_uploads_and_downloads_with_both_versions() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        stack.mesh.write("root.pem", &stack.root);
        stack.mesh.write("body.bin", vec![b'u'; MEBIBYTE]);
        let port = stack.gateway.address("https").port();
        let to = format!("gateway.local:443:127.0.0.1:{port}");
        let token = format!("Authorization: Bearer {}", stack.token);
        let common = ["--cacert", "root.pem", "--connect-to", &to, "-H", &token];
        for version in ["--http1.1", "--http2"] {
            let upload = ["-T", "body.bin", "https://gateway.local/echo"];
            let said = stack.mesh.curl(&[].into(), &[&[version], &common[..], &upload].concat()).await;
            assert!(said.out.contains(&format!("\"body\":{MEBIBYTE}")), "{version}: {said:?}");
            let download = ["-o", "/dev/null", "-w", "%{http_code} %{size_download} %{http_version}"];
            let path = ["https://gateway.local/bytes/1048576"];
            let said = stack.mesh.curl(&[].into(), &[&[version], &common[..], &download, &path].concat()).await;
            let wanted = format!("200 {MEBIBYTE} {}", if version == "--http2" { "2" } else { "1.1" });
            assert_eq!(said.out, wanted, "{said:?}");
        }
    });
}

const GRPC_SERVER: &str = r#"
import grpc, sys
from concurrent import futures

class Greeter(grpc.GenericRpcHandler):
    def service(self, call):
        def hello(request, context):
            context.set_trailing_metadata((("x-end", "yes"),))
            return b"hello " + request
        def fail(request, context):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today")
        def count(request, context):
            for number in range(5):
                yield b"%d" % number
        methods = {
            "/demo.Greeter/Hello": grpc.unary_unary_rpc_method_handler(hello),
            "/demo.Greeter/Fail": grpc.unary_unary_rpc_method_handler(fail),
            "/demo.Greeter/Count": grpc.unary_stream_rpc_method_handler(count),
        }
        return methods.get(call.method)

server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((Greeter(),))
print("port", server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
"#;

const GRPC_CLIENT: &str = r#"
import grpc, sys
channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.default_authority", sys.argv[2])])

def code(path, request=b"lena"):
    try:
        answer, call = channel.unary_unary(path).with_call(request, timeout=10)
        return answer.decode()[:20] + " " + dict(call.trailing_metadata()).get("x-end", "-")
    except grpc.RpcError as error:
        return error.code().name + " " + error.details()

print(code("/demo.Greeter/Hello"))
print(len(channel.unary_unary("/demo.Greeter/Hello")(b"x" * 1_000_000, timeout=10)))
print(code("/demo.Greeter/Fail"))
print(code("/demo.Greeter/Nothing").split()[0])
print([part.decode() for part in channel.unary_stream("/demo.Greeter/Count")(b"", timeout=10)])
"#;

#[test]
fn grpc_calls_of_grpcio_pass_through_two_proxies() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {greet-svc: {routes: [POST /*]}, portal: {}}").await;
        mesh.write("server.py", GRPC_SERVER);
        mesh.write("client.py", GRPC_CLIENT);
        let mut server = mesh.command(binaries::python());
        server.arg("server.py");
        let mut server = Process::start(server, mesh.root().join("grpc.log"));
        let port: u16 = wait::until("the gRPC server listens", Duration::from_secs(20), || {
            let text = server.output();
            let port = text.lines().find_map(|line| line.strip_prefix("port ")?.parse().ok());
            std::future::ready(port.ok_or(text))
        })
        .await;
        let app = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let _sidecar = Proxy::start(&mesh, Plan::of("greet-svc", app)).await;
        let caller = Proxy::start(&mesh, Plan::client("portal")).await;
        let _there = mesh.rest().until_service("greet-svc", "healthy", 1).await;
        caller.until_ready().await;
        let outbound = caller.address("outbound").to_string();
        let call = |authority: &'static str| {
            let mut client = mesh.command(binaries::python());
            client.args(["client.py", &outbound, authority]);
            client
        };
        let said = mesh.run(call("greet-svc.mesh")).await;
        let lines: Vec<&str> = said.out.lines().collect();
        let wanted = [
            "hello lena yes",
            "1000006",
            "FAILED_PRECONDITION not today",
            "UNIMPLEMENTED",
            "['0', '1', '2', '3', '4']",
        ];
        assert_eq!(lines, wanted, "{said:?}");
        server.kill().await;
        let down = mesh.run(call("greet-svc")).await;
        assert!(down.out.starts_with("UNAVAILABLE"), "a gRPC caller is refused in its own words: {down:?}");
    });
}
