//! The hands-on lab of the fourth seed, as a person types it: real `FastAPI` applications, the real curl, the real command line.

use std::time::Duration;

use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{Process, signal};
use hms_testkit::{binaries, scenario, wait};
use nix::sys::signal::Signal;

const SUM: &str = "https://gateway.local/sum/2/3";
const WITH_TOKEN: &str = "Authorization: Bearer";

#[test]
fn the_lab_of_the_seed_works_from_up_to_down() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::example("hello");
        let shown = mesh.up().await;
        assert!(shown.contains("mTLS: ON, Retries: 0, Breaker: CLOSED"), "{shown}");
        assert!(shown.contains("next     eval \"$(hms env)\" && curl"), "the next command to type is shown: {shown}");
        let env = mesh.env().await;
        let token = format!("{WITH_TOKEN} {}", env["JWT"]);

        let first = mesh.curl(&env, &["-i", "-H", &token, SUM]).await;
        let (head, body) = first.out.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.lines().next().is_some_and(|line| line.contains(" 200")), "{first:?}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["sum"], 5);
        let trace = field(head, "x-trace-id");
        assert!(field(head, "traceparent").contains(&trace), "{head}");
        let inside = body["x-trace-id"].as_str().expect("in_json_body is on in the example");
        assert!(inside.len() == 6 && trace.starts_with(inside), "{inside} begins {trace}");

        let refused = mesh.curl(&env, &["-i", SUM]).await;
        assert!(refused.out.contains(" 401") && field(&refused.out, "x-hms-error") == "HMS-3101", "{refused:?}");
        let forged = mesh.curl(&env, &["-i", "-H", &format!("{token}x"), SUM]).await;
        assert!(forged.out.contains(" 401") && forged.out.contains("HMS-310"), "{forged:?}");
        let nowhere = mesh.curl(&env, &["-i", "-H", &token, "https://gateway.local/product/2/3"]).await;
        assert!(nowhere.out.contains(" 404") && nowhere.out.contains("GET /sum/{a}/{b}"), "{nowhere:?}");
        let wrong = mesh.curl(&env, &["-i", "-X", "POST", "-H", &token, SUM]).await;
        assert!(wrong.out.contains(" 405") && field(&wrong.out, "allow").contains("GET"), "{wrong:?}");

        looks_well(&mesh).await;
        mesh.hms(&["down"]).await;
        mesh.until_nothing_runs().await;
        assert!(mesh.record("control.json").is_err(), "the runtime folder is empty");
    });
}

/// The figures and documents of a mesh that works.
async fn looks_well(mesh: &Mesh) {
    let services = mesh.hms_json(&["services"]).await;
    assert_eq!((services["apiVersion"].as_str(), services["kind"].as_str()), (Some("hms/v1"), Some("ServiceList")));
    let names: Vec<_> = services["items"].as_array().into_iter().flatten().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["calc-svc", "hello-svc"]);
    for item in services["items"].as_array().into_iter().flatten() {
        let view = (item["state"].as_str(), item["mtls"].as_str(), item["breaker"].as_str());
        assert_eq!(view, (Some("healthy"), Some("ON"), Some("CLOSED")), "{item}");
    }
    let status = mesh.hms(&["status"]).await;
    for word in ["SERVICE", "calc-svc", "hello-svc", "mTLS: ON, Retries: 0, Breaker: CLOSED"] {
        assert!(status.contains(word), "{word} in {status}");
    }
    let status = mesh.hms_json(&["status"]).await;
    assert_eq!(status["apiVersion"], "hms/v1", "{status}");
    let table = mesh.hms(&["services"]).await;
    assert!(table.contains("calc-svc") && table.contains("→ 127.0.0.1:"), "{table}");

    let listed = mesh.hms(&["certificates", "ls"]).await;
    assert!(listed.contains("/ns/default/sa/calc-svc") && listed.contains("/ns/hms-system/sa/gateway"), "{listed}");
    let before = mesh.hms_json(&["certificates", "ls"]).await;
    let mut rotate = mesh.command(binaries::envoyctl());
    rotate.args(["certificates", "rotate", "--validity", "24h"]);
    let rotated = mesh.run(rotate).await;
    assert!(rotated.code == 0 && rotated.out.matches("rotated, serial").count() == 3, "{rotated:?}");
    let after = mesh.hms_json(&["certificates", "ls"]).await;
    assert_ne!(before["items"][0]["serial"], after["items"][0]["serial"]);
    let checked = mesh.try_hms(&["check"]).await;
    assert!(checked.code == 0, "{checked:?}");
    let nothing = mesh.try_hms(&["breaker", "show", "calc-scv"]).await;
    assert!(nothing.code == 1 && nothing.err.contains("calc-svc"), "a near name is suggested: {nothing:?}");
}

#[test]
fn the_21st_call_within_three_seconds_is_told_when_to_come_back() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        mesh.up().await;
        let gateway = mesh.gateway_with_token().await;
        let begun = tokio::time::Instant::now();
        let mut answers = Vec::new();
        for _ in 0..21 {
            answers.push(gateway.get("/sum/2/3").await.expect("an answer"));
        }
        assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let (served, last) = statuses.split_at(20);
        assert!(served.iter().all(|status| *status == 200) && last == [429], "{statuses:?}");
        let last = &answers[20];
        let wait: u64 = last.header("retry-after").parse().expect("seconds");
        assert!((1..=3).contains(&wait), "one token is refilled every 3 s: {wait}");
        assert!(last.header("ratelimit").contains("r=0") && last.header("ratelimit-policy").contains("q=20"));
        assert_eq!((last.header("x-hms-error"), last.json()["code"].as_str()), ("HMS-3004", Some("HMS-3004")));
        // Each route has its own bucket.
        assert_eq!(gateway.get("/hello").await.expect("an answer").status, 200);
    });
}

#[test]
fn tap_shows_a_call_with_its_caller_its_encryption_and_its_trace() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        mesh.up().await;
        let mut tap = mesh.command(binaries::hms());
        tap.args(["tap", "hello-svc", "--from", "gateway", "--path", "/hello"]);
        let mut tap = Process::start(tap, mesh.root().join("tap.log"));
        let gateway = mesh.gateway_with_token().await;
        // A tap begins some time after its process; calls go on until it shows one.
        let line = wait::until("the tap shows a call", Duration::from_secs(20), || async {
            let answer = gateway.get("/hello").await?;
            let text = tap.output();
            match text.lines().find(|line| line.contains(&answer.header("x-trace-id")[..6])) {
                Some(line) => Ok(line.to_owned()),
                None => Err(text),
            }
        })
        .await;
        for word in ["gateway→hello-svc", "GET /hello 200", "mTLS", "try1", "trace "] {
            assert!(line.contains(word), "{word} in {line}");
        }
        signal(tap.pid(), Signal::SIGINT);
        assert_eq!(tap.ended(Duration::from_secs(10)).await, Some(130));
    });
}

#[test]
fn registering_prints_exactly_what_the_seed_prints() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        let mut control = mesh.control(&[]).await;
        for (file, line) in [("hello_svc", "✓ registered hello-svc\n"), ("calc_svc", "✓ registered calc-svc\n")] {
            let mut register = mesh.command(binaries::hms_api());
            register.args(["register", &format!("{file}/route.yaml")]);
            let said = mesh.run(register).await;
            assert_eq!((said.code, said.out.as_str()), (0, line), "{said:?}");
        }
        let waiting = mesh.rest().until_service("calc-svc", "waiting", 0).await;
        assert_eq!(waiting["routes"][0]["rate_limit"], "20 req/min");
        assert_eq!(control.terminate().await, Some(0));
    });
}

#[test]
fn nothing_is_left_when_hms_was_killed() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        mesh.up().await;
        assert!(mesh.processes_with("--role").len() == 3 && mesh.processes_with("uvicorn").len() >= 2);
        let supervisor = mesh.record("control.json").expect("a record")["pid"].as_u64().expect("a number");
        signal(u32::try_from(supervisor).expect("a pid"), Signal::SIGKILL);
        mesh.until_nothing_runs().await;
        // What a killed mesh leaves behind does not stop the next one.
        mesh.up().await;
        mesh.hms(&["down", "--purge", "-y"]).await;
        mesh.until_nothing_runs().await;
        let left: Vec<_> = std::fs::read_dir(mesh.root().join("s/hms")).expect("a folder").collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_program_that_never_listens_is_a_client_and_its_exit_code_is_ours() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        mesh.up().await;
        let script = "import os, sys, urllib.request\n\
                      answer = urllib.request.urlopen(os.environ['CALC_SVC_URL'] + '/sum/4/5').read().decode()\n\
                      proxied = urllib.request.urlopen('http://hello-svc/hello').read().decode()\n\
                      print(answer, proxied)\n\
                      sys.exit(7)\n";
        mesh.write("client.py", script);
        let told = ["run", "load", "--intercept", "env", "--", "python3", "client.py"];
        mesh.write("named.py", script.replace("os.environ['CALC_SVC_URL'] + '", "'http://calc-svc"));
        for arguments in [&told[..], &["run", "load", "--", "python3", "named.py"]] {
            let said = mesh.try_hms(arguments).await;
            assert_eq!(said.code, 7, "{said:?}\n{}", mesh.logs());
            assert!(said.out.contains("\"sum\":9") && said.out.contains("Hello from HMS!"), "{said:?}");
        }
        let client = mesh.try_hms(&["run", "load", "--", "no-such-program"]).await;
        assert_eq!(client.code, 127, "{client:?}");
    });
}

/// The value of a header field in what `curl -i` printed.
fn field(head: &str, name: &str) -> String {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let value = fields.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
    value.unwrap_or_default().to_owned()
}
