//! Containers of a Compose file in the mesh, by a docker program without an engine, whose containers are network namespaces.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that breaks fails")]

mod fake;
mod lab;
mod stage;

use std::time::Duration;

use hms_testkit::capture::{Capture, contains};
use hms_testkit::processes::signal;
use hms_testkit::{namespace, scenario, wait};
use nix::sys::signal::Signal;

use lab::lab;
use stage::Stage;

const LIMIT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_secs(45);

#[test]
fn a_stopped_container_is_a_stopped_service_and_nothing_else() {
    namespace::inside_as_root("a_stopped_container_is_a_stopped_service_and_nothing_else", |_| {
        scenario(LIMIT, async {
            let stage = Stage::new();
            lab(&stage).await;
            stage.all_down().await;
        });
    });
}

#[test]
fn nothing_gets_past_a_sidecar_that_has_no_rights() {
    namespace::inside_as_root("nothing_gets_past_a_sidecar_that_has_no_rights", |_| {
        scenario(LIMIT, async {
            let stage = Stage::new();
            let mut names = stage.host_names();
            let shown = stage.up().await;
            let sniffer = Capture::start_at(fake::CABLE, stage.mesh.root(), "tcp port 15006 or tcp port 8000").await;
            for more in [&[][..], &["-4"], &["--http2-prior-knowledge"]] {
                let answer = stage.curl(more).await;
                assert!(answer.starts_with("200 "), "{more:?}: {answer}\n{shown}");
            }
            wait::until_true("something was captured", SOON, || sniffer.bytes().len() > 1000).await;
            let captured = sniffer.finish().await;
            for word in ["/sum/", "\"sum\"", "HTTP/1.1", "user-agent"] {
                assert!(!contains(&captured, word.as_bytes()), "{word} in the clear");
            }

            // What the mesh does not know is the engine's resolver's to know, which asks from inside the same network.
            let said = stage.exec(&["getent", "ahostsv4", "www.example.test"]).await;
            assert!(said.out.contains("192.0.2.80"), "{said:?}");
            let said = stage.exec(&["getent", "hosts", "nothing.mesh"]).await;
            assert_eq!(said.code, 2, "{said:?}");
            let udp = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('10.77.0.1', 9))";
            let said = stage.exec(&["/usr/bin/python3", "-c", udp]).await;
            assert!(said.err.contains("Operation not permitted"), "{said:?}");

            // From outside of the mesh, the application's own port is shut unless the file publishes it.
            let (calc, caller) = (stage.container("calc-svc-hms"), stage.container("caller-hms"));
            assert_eq!(stage.raw(&calc, 8000).await, 7, "refused at once");
            assert_eq!(stage.raw(&caller, 9000).await, 0, "published");
            for one in [&calc, &caller] {
                let status = std::fs::read_to_string(format!("/proc/{}/status", one["pid"])).unwrap();
                for rights in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
                    assert!(status.contains(&format!("{rights}:\t0000000000000000")), "{status}");
                }
                assert!(status.contains("Gid:\t2102\t2102\t2102\t2102"), "{status}");
            }
            let _code = names.terminate().await;
            stage.all_down().await;
        });
    });
}

#[test]
fn a_killed_hms_leaves_containers_that_work_and_end_with_hms_down() {
    namespace::inside_as_root("a_killed_hms_leaves_containers_that_work_and_end_with_hms_down", |_| {
        scenario(LIMIT, async {
            let stage = Stage::new();
            stage.up().await;
            stage.until("200").await;
            let record = stage.mesh.record("control.json").unwrap();
            signal(u32::try_from(record["pid"].as_u64().unwrap()).unwrap(), Signal::SIGKILL);
            wait::until_true("nobody follows the containers any more", SOON, || {
                stage.mesh.processes_with("events").is_empty() && stage.mesh.processes_with("hms up").is_empty()
            })
            .await;
            let container = stage.container("caller");
            let answer = stage.in_container(&container, &["curl", "-sS", "-m", "10", "http://calc-svc/sum/2/3"]).await;
            assert!(answer.out.contains("\"sum\": 5"), "{answer:?}");
            stage.all_down().await;
        });
    });
}

#[test]
fn what_is_missing_or_wrong_is_said_before_anything_is_started() {
    namespace::inside_as_root("what_is_missing_or_wrong_is_said_before_anything_is_started", |_| {
        scenario(LIMIT, async {
            let mut stage = Stage::new();
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml", "--dry-run"]).await;
            assert!(said.code == 0 && said.out.contains("network_mode: \"service:calc-svc-hms\""), "{said:?}");
            assert!(said.err.contains("HMS-2141"), "the published port is pointed at: {said:?}");
            let mut control = stage.mesh.control(&[]).await;
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml", "--ports", "auto"]).await;
            assert!(said.code != 0 && said.err.contains("HMS-1404"), "its control plane is on loopback: {said:?}");
            let _code = control.terminate().await;
            stage.all_down().await;
            stage.mesh.write("../bin/broken", "");
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml", "--ports", "auto"]).await;
            assert!(said.code != 0 && said.err.contains("no space left on device"), "{said:?}");
            assert!(said.err.contains("the last thing it said"), "{said:?}");
            stage.all_down().await;
            stage.mesh.write("../bin/version", "2.23.3");
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml"]).await;
            assert!(said.code != 0 && said.err.contains("HMS-1402") && said.err.contains("2.24"), "{said:?}");
            stage.mesh.set("PATH", "/nowhere");
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml"]).await;
            assert!(said.code != 0 && said.err.contains("HMS-1401"), "{said:?}");
            stage.mesh.write("compose.yaml", r#"{"services": {"a": {"image": "x", "network_mode": "host"}}}"#);
            let said = stage.mesh.try_hms(&["up", "-f", "compose.yaml"]).await;
            assert!(said.err.contains("HMS-2140") && said.err.contains("compose.yaml:1:"), "{said:?}");
            stage.mesh.until_nothing_runs().await;
        });
    });
}
