//! What RFC 9113 and RFC 7541 demand of a server, as h2spec sees it (reliability §0.2).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, figure, scenario};

use crate::stack::Stack;

/// What may fail at a gateway: h2spec has no token, and 401 is answered before a body is read, which RFC 9113 §8.1 allows; what is
/// wrong with the body or behind it then comes too late, or just in time. The sidecar shows that each of them has its answer.
const AT_A_GATEWAY: &[&str] = &[
    "http2/8.1 Sends a second HEADERS frame without the END_STREAM flag",
    "http2/8.1.2.1 Sends a HEADERS frame that contains a pseudo-header field as trailers",
    "http2/8.1.2.6 Sends a HEADERS frame with the \"content-length\" header field which does not equal the DATA frame \
     payload length",
    "http2/8.1.2.6 Sends a HEADERS frame with the \"content-length\" header field which does not equal the sum of the \
     multiple DATA frames payload length",
];
/// What fails at a sidecar: its port is for HTTP/1.1 as well, so what is no preface is answered as a broken HTTP/1.1 request.
const AT_A_SIDECAR: &[&str] = &["http2/3.5 Sends invalid connection preface"];

/// The cases that fail, and how many there are.
async fn failing(mesh: &Mesh, address: SocketAddr, more: &[&str]) -> (BTreeSet<String>, usize) {
    let mut command = mesh.command(binaries::h2spec());
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["-h", &host, "-p", &port, "-S", "-o", "5", "-P", "/echo", "-j", "h2spec.xml"]).args(more);
    let said = mesh.run(command).await;
    let report = std::fs::read_to_string(mesh.project().join("h2spec.xml")).unwrap_or_default();
    assert!(!report.is_empty(), "no report: {said:?}");
    let mut failing = BTreeSet::new();
    let mut cases = 0;
    for case in report.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let value = case.split_once(&format!("{name}=\""))?.1;
            value.split_once('"').map(|(value, _)| value.to_owned())
        };
        cases += 1;
        if case.contains("<failure") || case.contains("<error") {
            let (package, name) = (attribute("package"), attribute("classname"));
            let name = name.unwrap_or_default().replace("&#34;", "\"");
            failing.insert(format!("{} {name}", package.unwrap_or_default()));
        }
    }
    (failing, cases)
}

#[test]
fn the_gateway_and_a_sidecar_speak_http2_as_demanded() {
    scenario(Duration::from_mins(10), async {
        let stack = Stack::start().await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["calc-svc".to_owned()];
        let sidecar = Proxy::start(&stack.mesh, plan).await;
        sidecar.until_reaches("calc-svc", "/echo").await;
        let pinned: SocketAddr =
            sidecar.ports["upstreams"]["calc-svc"].as_str().expect("a port").parse().expect("a port");
        let gateway = stack.gateway.address("https");
        let doors =
            [("a gateway", gateway, &["-t", "-k"][..], AT_A_GATEWAY), ("a sidecar", pinned, &[][..], AT_A_SIDECAR)];
        for (name, address, more, known) in doors {
            let (failing, cases) = failing(&stack.mesh, address, more).await;
            figure(&format!("h2spec cases that {name} passes"), format!("{} of {cases}", cases - failing.len()));
            assert!(cases >= 140, "{cases} cases");
            let news: Vec<&String> = failing.iter().filter(|case| !known.contains(&case.as_str())).collect();
            assert!(news.is_empty(), "{name}: {news:#?}");
        }
    });
}
