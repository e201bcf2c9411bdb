//! A properly typed file, run by Envoy and by us: the same answers to the same requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::namespace::{self, Inside};
use hms_testkit::processes::Process;
use hms_testkit::{binaries, figure, scenario, tasks, wait};
use http::Method;
use tokio::net::TcpListener;

use crate::{Run, SECOND};

/// What both are given; `PORT` and `ADMIN` are each one's own.
const FILE: &str = include_str!("differential.yaml");
const OURS: u16 = 15001;
const ENVOYS: u16 = 15011;

#[test]
fn envoy_and_we_answer_alike() {
    namespace::inside("differential::envoy_and_we_answer_alike", |surroundings| {
        scenario(SECOND * 120, Box::pin(both(surroundings)));
    });
}

async fn both(surroundings: Inside) {
    surroundings.hosts(&[("127.0.0.2", "risk.example")]);
    let mesh = Mesh::new();
    let _tariff = App::start_at("tariff", ([127, 0, 0, 1], 8080).into()).await;
    let _risk = App::start_at("risk", ([127, 0, 0, 2], 8081).into()).await;
    let back = TcpListener::bind(("127.0.0.4", 8090)).await.unwrap();
    let _until_the_end = tasks::spawn(only_http2(back));
    let given = |port: u16| FILE.replace("ADMIN", &(port + 1).to_string()).replace("PORT", &port.to_string());
    mesh.write("ours.yaml", given(OURS));
    mesh.write("envoys.yaml", given(ENVOYS));
    let mut run = Run::start(&mesh, "ours.yaml", &[]).await;
    let mut command = mesh.command(binaries::envoy());
    command.args(["-c", "envoys.yaml", "--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]);
    let mut envoy = Process::start(command, mesh.root().join("envoy.log"));
    let ready = Http::plain(local(ENVOYS + 1));
    wait::until("Envoy is ready", SECOND * 60, || async {
        match ready.get("/ready").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}: {}", envoy.output())),
        }
    })
    .await;
    let (mut different, mut seen) = (Vec::new(), BTreeMap::<String, usize>::new());
    for (host, method, path, body) in requests() {
        let theirs = answer(ENVOYS, host, &method, path, body).await;
        let ours = answer(OURS, host, &method, path, body).await;
        *seen.entry(theirs.chars().take(3).collect()).or_default() += 1;
        if theirs != ours {
            different.push(format!("{method} {host}{path}\n  envoy {theirs}\n  ours  {ours}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    let [found, missed, late] = ["200", "404", "504"].map(|status| seen.get(status).copied().unwrap_or_default());
    assert!(found > 60 && missed > 60 && late == 1, "both kinds of answer, and often: {seen:?}");
    figure("requests that Envoy and we answered alike", seen.values().sum::<usize>());
    assert_eq!(run.process.terminate().await, Some(0), "{}", run.process.output());
    let _code = envoy.terminate().await;
}

/// An application that speaks HTTP/2 with prior knowledge and nothing else.
async fn only_http2(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let _until_closed = tasks::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((request, mut reply))) = connection.accept().await {
                let body = format!("{} {} over HTTP/2", request.method(), request.uri().path());
                let sent = reply.send_response(http::Response::new(()), false);
                let Ok(mut stream) = sent else { return };
                if stream.send_data(bytes::Bytes::from(body), true).is_err() {
                    return;
                }
            }
        });
    }
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A host, a method, a path, and bytes of body.
type Asked = (&'static str, Method, &'static str, usize);

/// Hosts with paths, so that every kind of domain and of match is met and missed.
fn requests() -> Vec<Asked> {
    let hosts = [
        "tariff-svc",
        "TARIFF-svc",
        "tariff-svc:15001",
        "tariff-svc:80",
        "other-svc",
        "a.tariff.example",
        "tariff.example",
        "a.b.tariff.example",
        "x-risk.example",
        "-risk.example",
        "risk.org",
        "risk.",
        "with-port:8443",
        "with-port",
    ];
    let paths = [
        "/",
        "/tariff",
        "/tariff?code=8471&x=%20y",
        "/tariffs",
        "/tariff/a/b",
        "/exact",
        "/exact/",
        "/exact?x=1",
        "/Exact",
        "/part",
        "/part/",
        "/part/a",
        "/parts",
        "/risk/echo",
        "/h2/echo",
        "/status/404",
        "/status/201",
        "/bytes/70000",
        "/chunked",
    ];
    let mut requests = Vec::new();
    for host in hosts {
        for path in paths {
            requests.push((host, Method::GET, path, 0));
        }
        requests.push((host, Method::POST, "/tariff", 3000));
        requests.push((host, Method::DELETE, "/exact", 0));
        requests.push((host, Method::HEAD, "/tariff", 0));
        requests.push((host, Method::OPTIONS, "/part/a", 0));
    }
    // What the times of the routes are for: the application takes longer than either allows.
    requests.push(("tariff-svc", Method::GET, "/slow/60000", 0));
    requests.push(("tariff-svc", Method::GET, "/slow/100", 0));
    requests
}

/// What matters of an answer: the status, and of one that an application gave who it was and what it saw. An answer that the proxy
/// itself makes has words of its own.
async fn answer(port: u16, host: &str, method: &Method, path: &str, body: usize) -> String {
    let http = Http::through(local(port), host);
    let fields = [("x-own", "kept"), ("accept", "*/*")];
    match http.send(method.clone(), path, &fields, vec![b'b'; body]).await {
        Err(error) => error,
        Ok(answer) => {
            let own = answer.headers.contains_key("x-hms-error") || answer.status == 404 || answer.status == 504;
            if own || *method == Method::HEAD {
                return answer.status.to_string();
            }
            match serde_json::from_slice::<serde_json::Value>(&answer.body) {
                Ok(seen) => {
                    let [app, verb, target, length] =
                        ["app", "method", "path", "body"].map(|name| seen[name].to_string());
                    let [host, own, scheme] =
                        ["host", "x-own", "x-forwarded-proto"].map(|name| seen["headers"][name].to_string());
                    // A host is sent on in lower case here.
                    let host = host.to_ascii_lowercase();
                    format!("{} {app} {verb} {target} {length} {host} {own} {scheme}", answer.status)
                }
                Err(_) if answer.body.len() < 100 => format!("{} {:?}", answer.status, answer.text()),
                Err(_) => format!("{} {} bytes", answer.status, answer.body.len()),
            }
        }
    }
}
