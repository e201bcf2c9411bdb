//! The chapter's file, byte for byte: no `@type`, `strict_dns` in lower case, every address of the machine on port 15001.

use std::collections::BTreeSet;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::namespace::{self, Inside};
use hms_testkit::{binaries, scenario, wait};

use crate::{Run, SECOND, answered_by};

const NAME: &str = "tariff-svc.default.svc.cluster.local";

/// As the golden cases have it, where a test compares it with the chapter.
fn seed() -> String {
    let path = "crates/formats/tests/golden/envoy_static/seed/envoy.yaml";
    std::fs::read_to_string(binaries::workspace().join(path)).unwrap()
}

#[test]
fn the_chapters_file_runs_as_it_is_written() {
    namespace::inside("seed::the_chapters_file_runs_as_it_is_written", |surroundings| {
        scenario(SECOND * 120, Box::pin(the_chapters_file(surroundings)));
    });
}

async fn the_chapters_file(surroundings: Inside) {
    let mesh = Mesh::new();
    mesh.write("envoy.yaml", seed());
    let mut run = Run::start(&mesh, "envoy.yaml", &["--access-log", "requests.log"]).await;
    let warned = run.process.output();
    assert!(warned.contains("HMS-2133") && warned.contains("HMS-2132"), "{warned}");
    let caller = Http::through(([127, 0, 0, 1], 15001).into(), "tariff-svc");
    assert_eq!(answered_by(&caller, "/tariff").await, "503 HMS-3002", "nobody knows the name yet");
    let stranger = Http::through(([127, 0, 0, 1], 15001).into(), "risk-svc");
    assert_eq!(answered_by(&stranger, "/tariff").await, "404 HMS-3401");

    let first = App::start_at("first", ([127, 0, 0, 1], 8080).into()).await;
    let second = App::start_at("second", ([127, 0, 0, 2], 8080).into()).await;
    surroundings.hosts(&[("127.0.0.1", NAME), ("127.0.0.2", NAME)]);
    until_all_of(&caller, &["first", "second"]).await;

    let _port = second.stop().await;
    for _ in 0..50 {
        assert_eq!(answered_by(&caller, "/tariff?code=8471").await, "first", "the other is tried again at once");
    }

    let third = App::start_at("third", ([127, 0, 0, 3], 8080).into()).await;
    surroundings.hosts(&[("127.0.0.3", NAME)]);
    until_all_of(&caller, &["third"]).await;
    let before = first.hits();

    surroundings.hosts(&[]);
    run.until_it_says("what was known stays").await;
    for _ in 0..20 {
        assert_eq!(answered_by(&caller, "/tariff").await, "third");
    }
    assert!(first.hits() == before && third.hits() >= 20);

    let metrics = Http::plain(run.address("admin")).get("/metrics").await.unwrap().text();
    assert!(metrics.contains("istio_requests_total{") && metrics.contains("tariff-cluster"), "{metrics}");
    assert_eq!(run.process.terminate().await, Some(0), "{}", run.process.output());
    let log = std::fs::read_to_string(mesh.project().join("requests.log")).unwrap();
    let told = ["\"path\":\"/tariff\"", "\"destination\":\"tariff-cluster\"", "\"status\":200"];
    assert!(log.lines().any(|line| told.iter().all(|word| line.contains(word))), "a line per request");
}

/// Waits until the last answers come from each of `apps` and from nobody else.
async fn until_all_of(caller: &Http, apps: &[&str]) {
    let wanted: BTreeSet<String> = apps.iter().map(|app| (*app).to_owned()).collect();
    wait::until("the answers come from where the name leads", SECOND * 30, || async {
        let mut seen = BTreeSet::new();
        for _ in 0..6 {
            seen.insert(answered_by(caller, "/tariff").await);
        }
        if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}
