//! What RFC 9113 and RFC 7541 demand of a server, as h2spec sees it (reliability §0.2).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, figure, scenario};

use crate::stack::Stack;

/// What may fail at a gateway besides what was [`Outcome::Answered`]: its stream is answered before as well, and then reset with
/// `NO_ERROR` because the rest of the request is not wanted (RFC 9113 §8.1).
const AT_A_GATEWAY: &[&str] =
    &["http2/6.9.1 Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream"];
/// What fails at a sidecar: its port is for HTTP/1.1 as well, so what is no preface is answered as a broken HTTP/1.1 request.
const AT_A_SIDECAR: &[&str] = &["http2/3.5 Sends invalid connection preface"];

/// Why a case is not passed.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The stream's whole answer came before its fault did. h2spec has no token, so a gateway answers 401 as soon as it has read
    /// the head, and what follows on the stream may find it closed.
    Answered,
    /// Something else came.
    Wrong(String),
}

/// The cases that are not passed, and how many there are in all.
async fn failing(mesh: &Mesh, address: SocketAddr, more: &[&str]) -> (BTreeMap<String, Outcome>, usize) {
    let mut command = mesh.command(binaries::h2spec());
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    command.args(["-h", &host, "-p", &port, "-S", "-o", "5", "-P", "/echo", "-j", "h2spec.xml"]).args(more);
    let said = mesh.run(command).await;
    let report = std::fs::read_to_string(mesh.project().join("h2spec.xml")).unwrap_or_default();
    assert!(!report.is_empty(), "no report: {said:?}");
    let mut failing = BTreeMap::new();
    let mut cases = 0;
    for case in report.split("<testcase ").skip(1) {
        let attribute = |name: &str| {
            let value = case.split_once(&format!("{name}=\""))?.1;
            value.split_once('"').map(|(value, _)| value.replace("&#34;", "\""))
        };
        cases += 1;
        if !case.contains("<failure") && !case.contains("<error") {
            continue;
        }
        let name = [attribute("package"), attribute("classname")].map(Option::unwrap_or_default).join(" ");
        // The end of an answer's body.
        let answered = case.contains("DATA Frame (length:0, flags:0x01, stream_id:1)</");
        failing.insert(name, if answered { Outcome::Answered } else { Outcome::Wrong(case.to_owned()) });
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
        let pinned = sidecar.ports["upstreams"]["calc-svc"].as_str().expect("a port").parse().expect("a port");
        let gateway = stack.gateway.address("https");
        let doors =
            [("a gateway", gateway, &["-t", "-k"][..], AT_A_GATEWAY), ("a sidecar", pinned, &[][..], AT_A_SIDECAR)];
        for (name, address, more, known) in doors {
            let (mut failing, cases) = failing(&stack.mesh, address, more).await;
            figure(&format!("h2spec cases that {name} passes"), format!("{} of {cases}", cases - failing.len()));
            assert!(cases >= 140, "{cases} cases");
            failing.retain(|case, outcome| {
                let early = address == gateway && *outcome == Outcome::Answered;
                !early && !known.contains(&case.as_str())
            });
            assert!(failing.is_empty(), "{name}: {failing:#?}");
        }
    });
}
