//! What a person does with a stopped container.

use hms_testkit::wait;

use super::stage::{SOON, Stage};

/// The seed's lab (S4-23), through whatever docker there is.
pub(crate) async fn lab(stage: &Stage) {
    let shown = stage.up().await;
    assert!(shown.contains("calc-svc ready"), "{shown}");
    for service in ["calc-svc", "caller"] {
        let unit = stage.unit(service).await;
        assert_eq!(
            (unit["phase"].as_str(), unit["capture"]["mode"].as_str()),
            (Some("running"), Some("joined")),
            "{unit}"
        );
    }
    let answer = stage.curl(&[]).await;
    assert!(answer.starts_with("200 "), "{answer}\n{}", stage.mesh.logs());
    assert!(answer.contains("sa/calc-svc;URI=spiffe://") && answer.contains("sa/caller"), "mutual TLS: {answer}");

    // The gateway is a program of this machine: it wants a token.
    wait::until("the gateway answers a container", SOON, || async {
        let said =
            stage.exec(&["curl", "-sS", "-k", "-m", "10", "-w", "%{http_code}", "https://gateway.local/sum/2/3"]).await;
        if said.out.ends_with("401") { Ok(()) } else { Err(format!("{said:?}")) }
    })
    .await;
    let checked = stage.mesh.try_hms(&["check"]).await;
    assert_eq!(checked.code, 0, "{checked:?}");

    stage.docker_stop("calc-svc").await;
    let refused = stage.until("503").await;
    assert!(refused.contains("HMS-30"), "{refused}");
    wait::until("the breaker is open", SOON, || async {
        let answer = stage.curl(&[]).await;
        if answer.contains("HMS-3001") { Ok(()) } else { Err(answer) }
    })
    .await;
    let third = stage.curl(&["-o", "/dev/null", "-w", "\n%{http_code} %{time_total}"]).await;
    let took: f64 = third.strip_prefix("503 ").unwrap_or(&third).trim().parse().unwrap();
    assert!(took < 1.0, "instantly: {third}");
    stage.until_phase("calc-svc", "stopped").await;
    assert_eq!(stage.unit("caller").await["phase"], "running");
    assert!(stage.mesh.hms(&["start", "calc-svc"]).await.contains("ready"));
    stage.until("200").await;
    stage.until_phase("calc-svc", "running").await;

    assert!(stage.mesh.hms(&["stop", "calc-svc"]).await.contains("stopped"));
    stage.until("503").await;
    assert_eq!(stage.unit("calc-svc").await["phase"], "stopped");
    assert!(stage.mesh.hms(&["restart", "calc-svc"]).await.contains("ready"));
    stage.until("200").await;
}
