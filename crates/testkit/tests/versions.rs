//! Versions of a service in `mesh.yaml`: started beside each other, each with its share of the calls.

use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::{figure, scenario, wait};

/// Answers with the version it was told to be.
const PAY: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        text = (os.environ["VERSION"] + "\n").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;
const MESH: &str = "services:
  pay-svc:
    run: exec /usr/bin/python3 pay.py
    env: {VERSION: first}
    routes: [GET /pay]
    versions:
      v2: {env: {VERSION: second}, weight: 20}
  caller: {run: exec sleep 1000}
";
const SOON: Duration = Duration::from_secs(20);

/// How many of so many calls of the captured caller each version answered. Every one must be answered.
async fn counts(mesh: &Mesh, calls: u32) -> [usize; 2] {
    let url = format!("http://pay-svc/pay?[1-{calls}]");
    let said = mesh.hms(&["exec", "caller", "--", "curl", "-sS", "--fail", "--max-time", "30", &url]).await;
    let of = |version: &str| said.lines().filter(|line| *line == version).count();
    let both = [of("first"), of("second")];
    assert_eq!(both.iter().sum::<usize>(), usize::try_from(calls).expect("few"), "{said}");
    both
}

#[test]
fn versions_of_a_mesh_file_run_beside_each_other_and_are_stopped_and_shifted_by_name() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::new();
        mesh.write("pay.py", PAY);
        mesh.write("mesh.yaml", MESH);
        let said = mesh.up().await;
        assert!(said.contains("pay-svc ready") && said.contains("pay-svc@v2 ready"), "{said}");
        wait::until("the caller can be entered", SOON, || async {
            let said = mesh.try_hms(&["exec", "caller", "--", "true"]).await;
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        let [first, second] = counts(&mesh, 500).await;
        figure("80/20 of 500", format!("{first}, {second}"));
        // Five standard deviations of the binomial distribution around 100.
        assert!((56..=144).contains(&second), "{second}");
        let shown = mesh.hms(&["status"]).await;
        assert!(shown.contains("v1,v2"), "{shown}");

        let _shifted = mesh.hms(&["shift", "pay-svc", "v2=100"]).await;
        assert_eq!(counts(&mesh, 50).await, [0, 50]);
        let _shifted = mesh.hms(&["shift", "pay-svc", "v2=50"]).await;
        let said = mesh.hms(&["stop", "pay-svc@v2"]).await;
        assert!(said.contains("pay-svc@v2 stopped"), "{said}");
        wait::until("the registry knows that v2 is gone", SOON, || async {
            let split = mesh.hms_json(&["shift", "pay-svc", "-o", "json"]).await;
            let gone = split["shares"]
                .as_array()
                .is_some_and(|shares| shares.iter().any(|share| share["version"] == "v2" && share["endpoints"] == 0));
            if gone { Ok(()) } else { Err(split.to_string()) }
        })
        .await;
        assert_eq!(counts(&mesh, 50).await, [50, 0], "what is stopped leaves its share to the others");
        let _started = mesh.hms(&["start", "pay-svc@v2"]).await;
        wait::until("v2 is called again", SOON, || async {
            let [_, second] = counts(&mesh, 20).await;
            if second > 0 { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let restarted = mesh.hms_json(&["proxy", "restart", "pay-svc", "-o", "json"]).await;
        let mut names: Vec<&str> = Vec::new();
        for item in restarted["items"].as_array().expect("items") {
            assert_ne!(item["was"], item["is"], "{restarted}");
            names.extend(item["name"].as_str());
        }
        assert_eq!(names, ["pay-svc", "pay-svc@v2"], "each of them, and each once");
        let said = mesh.hms(&["exec", "pay-svc@v2", "--", "curl", "-sS", "http://pay-svc/pay"]).await;
        assert!(["first\n", "second\n"].contains(&said.as_str()), "{said}");
        // The service's name means all of it.
        let _stopped = mesh.hms(&["stop", "pay-svc"]).await;
        let said = mesh.try_hms(&["exec", "caller", "--", "curl", "-sS", "-i", "http://pay-svc/pay"]).await;
        assert!(said.out.contains("503"), "{said:?}");
        let said = mesh.try_hms(&["stop", "pay-svc@v3"]).await;
        assert!(said.code != 0 && said.err.contains("pay-svc@v2"), "{said:?}");
    });
}
