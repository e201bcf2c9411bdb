//! The examples, as their READMEs tell a reader to run them: every command is typed into a real shell, and what it prints is
//! compared with the page. Once as whoever runs the tests, which is root in CI, and once as an ordinary user.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_testkit::binaries::workspace;
use hms_testkit::capture::{Capture, contains};
use hms_testkit::example::Example;
use hms_testkit::mesh::User;
use hms_testkit::processes::{Process, signal};
use hms_testkit::readme::{Block, Typed, masked};
use hms_testkit::shell::{Answer, Shell};
use hms_testkit::{scenario, wait};
use nix::sys::signal::Signal;

/// The whole of one README.
const LIMIT: Duration = Duration::from_mins(4);
/// Until something in another terminal has said what the page shows.
const PATIENCE: Duration = Duration::from_secs(30);
/// What was done before these tests.
const INSTALL: &str = "Install";
/// Sections with fixed ports, which are followed in a network of their own.
const ALONE: [&str; 2] = ["The story's registry", "Without the mesh"];

/// Types the page from its start to its end, but for what needs fixed ports.
async fn in_the_mesh(name: &str, user: User) {
    let example = Example::new(name, user);
    let mut shell = example.shell().await;
    let here = |block: &&Block| block.section != INSTALL && !ALONE.contains(&block.section.as_str());
    let blocks: Vec<&Block> = example.blocks.iter().filter(here).collect();
    for (index, block) in blocks.iter().enumerate() {
        let log = example.mesh.root().join(format!("terminal-{index}.log"));
        for typed in &block.commands {
            if !block.elsewhere {
                let known = instances(&example, typed).await;
                compare(&example, typed, &shell.line(&without_named_ports(&typed.line)).await);
                if typed.line.starts_with("hms up") {
                    every_program_is_captured(&mut shell).await;
                } else if typed.line.ends_with('&') {
                    until_more_than(known, &example, typed).await;
                }
                continue;
            }
            let mut command = example.command("sh");
            command.args(["-c", &format!("exec {}", typed.line)]);
            let mut tap = Process::start(command, log.clone());
            let calls = &blocks.get(index + 1).expect("calls after the tap").commands;
            every_hop(&example, &mut shell, &tap, typed, calls).await;
            signal(tap.pid(), Signal::SIGINT);
            assert_eq!(tap.ended(PATIENCE).await, Some(130));
        }
    }
    shell.end().await;
    example.mesh.until_nothing_runs().await;
}

/// Types the sections that need fixed ports, in a network of their own.
async fn alone(name: &str, user: User) {
    let example = Example::new(name, user);
    for section in ALONE {
        let mut shell = example.shell_alone().await;
        for typed in example.blocks.iter().filter(|block| block.section == section).flat_map(|block| &block.commands) {
            compare(&example, typed, &shell.line(&typed.line).await);
            if let Some(port) = started_on(&typed.line) {
                // A reader is slower than a program that starts.
                let listens = format!("import socket; socket.create_connection((\"127.0.0.1\", {port}))");
                let known = "{ [ ! -e \"$HMS_TOKEN_FILE\" ] || hms services | grep -q ':PORT '; }";
                let known = known.replace("PORT", &port);
                let line = format!("until python3 -c '{listens}' 2>/dev/null && {known}; do :; done");
                let answer = shell.line(&line).await;
                assert_eq!(answer.code, 0, "{answer:?}");
            }
        }
        shell.end().await;
    }
    example.mesh.until_nothing_runs().await;
}

/// Every program lives in a network of its own, whoever runs it.
async fn every_program_is_captured(shell: &mut Shell) {
    let answer = shell.line("hms status -o json").await;
    let status: serde_json::Value = serde_json::from_str(&answer.out).unwrap_or_default();
    let units = status["units"].as_array().map(Vec::as_slice).unwrap_or_default();
    let programs: Vec<_> = units.iter().filter(|unit| unit["app_pid"].is_number()).collect();
    assert!(programs.len() >= 3, "{answer:?}");
    for unit in programs {
        assert_eq!(unit["capture"]["mode"], "netns", "{unit}");
    }
}

/// The port of a program that a line leaves running: the last number in it.
fn started_on(line: &str) -> Option<String> {
    let line = line.strip_suffix('&')?;
    let mut words = line.split(|c: char| c.is_whitespace() || c == '=');
    words.rfind(|word| word.parse::<u16>().is_ok_and(|port| port > 1)).map(str::to_owned)
}

/// Several tests run at a time, and the ports with names are there once.
fn without_named_ports(line: &str) -> String {
    line.replace("hms up -d --wait", "hms up -d --wait --ports auto")
}

/// What a command printed, against the page.
fn compare(example: &Example, typed: &Typed, answer: &Answer) {
    let (mut shown, mut page) = (masked(&answer.out), masked(&typed.output));
    if typed.line.starts_with("hms up") {
        // Whoever is ready first is shown first.
        (shown, page) = (sorted(&shown), sorted(&page));
    }
    assert_eq!(answer.code, 0, "`{}`: {answer:?}\n{}", typed.line, example.mesh.logs());
    assert_eq!(shown, page, "`{}` says {answer:?}\n{}", typed.line, example.mesh.logs());
}

/// Makes the calls until the tap has shown every hop of the page, each of them encrypted.
async fn every_hop(example: &Example, shell: &mut Shell, tap: &Process, typed: &Typed, calls: &[Typed]) {
    let page = counted(&typed.output);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // A tap begins some time after its process, so the first calls may be missing in it.
        for call in calls {
            compare(example, call, &shell.line(&call.line).await);
        }
        let shown = counted(&tap.output());
        if page.iter().all(|(line, times)| shown.get(line).is_some_and(|seen| seen >= times)) {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "the page: {page:#?}\nthe tap: {shown:#?}\n{}",
            example.mesh.logs()
        );
    }
    let output = tap.output();
    let plain: Vec<&str> = output.lines().filter(|line| !line.contains(" mTLS ")).collect();
    assert!(plain.is_empty(), "hops without mutual TLS: {plain:?}\n{}", example.mesh.logs());
}

/// Waits until what was started beside the rest has registered.
async fn until_more_than(before: usize, example: &Example, typed: &Typed) {
    wait::until("the instance is known", PATIENCE, || async {
        let now = instances(example, typed).await;
        if now > before { Ok(()) } else { Err(format!("{now}: {}", example.mesh.logs())) }
    })
    .await;
}

/// How many healthy instances there are of the service that a `hms run` in the background names.
async fn instances(example: &Example, typed: &Typed) -> usize {
    if !typed.line.ends_with('&') {
        return 0;
    }
    let Some(service) = typed.line.strip_prefix("hms run ").and_then(|rest| rest.split_whitespace().next()) else {
        return 0;
    };
    let view = example.mesh.rest().get(&format!("/v1/services/{service}")).await;
    let endpoints = view["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    endpoints.iter().filter(|endpoint| endpoint["health"] == "healthy").count()
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn counted(text: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in masked(text).lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    counts
}

macro_rules! examples {
    ($($folder:ident: $mesh:ident $ordinary:ident $alone:ident $ordinary_alone:ident;)*) => {$(
        #[test]
        fn $mesh() {
            scenario(LIMIT, in_the_mesh(stringify!($folder), User::Same));
        }

        #[test]
        fn $ordinary() {
            scenario(LIMIT, in_the_mesh(stringify!($folder), User::Ordinary));
        }

        #[test]
        fn $alone() {
            scenario(LIMIT, alone(stringify!($folder), User::Same));
        }

        #[test]
        fn $ordinary_alone() {
            scenario(LIMIT, alone(stringify!($folder), User::Ordinary));
        }
    )*};
}

examples! {
    passport: passport_is_as_its_page_says passport_is_so_for_an_ordinary_user
        passport_keeps_its_own_registry passport_keeps_it_for_an_ordinary_user;
    rural: rural_is_as_its_page_says rural_is_so_for_an_ordinary_user
        rural_runs_without_the_mesh rural_runs_without_it_for_an_ordinary_user;
    radiation: radiation_is_as_its_page_says radiation_is_so_for_an_ordinary_user
        radiation_runs_without_the_mesh radiation_runs_without_it_for_an_ordinary_user;
    customs: customs_is_as_its_page_says customs_is_so_for_an_ordinary_user
        customs_runs_without_the_mesh customs_runs_without_it_for_an_ordinary_user;
    benefits: benefits_is_as_its_page_says benefits_is_so_for_an_ordinary_user
        benefits_runs_without_the_mesh benefits_runs_without_it_for_an_ordinary_user;
}

/// Who calls another service, in which file, with the story's own line.
const CALLERS: [(&str, &str); 7] = [
    ("rural/grant-svc/src/pay.ts", "await fetch('http://payment-svc/pay', {"),
    ("rural/callers/go/main.go", "http.Post(\"http://payment-svc/pay\""),
    ("rural/callers/java/Pay.java", "URI.create(\"http://payment-svc/pay\")"),
    ("radiation/radiation_svc/client.py", "channel = grpc.insecure_channel(\"alerts-svc.mesh:50051\")"),
    ("customs/src/api/tariffClient.js", "await fetch('http://tariff-svc/tariff?code=' + code)"),
    ("customs/src/api/riskClient.js", "await fetch('http://risk-svc/risk?amount=' + amount)"),
    ("benefits/grant_svc/app.py", "httpx.post(f\"http://{service}{path}\""),
];

#[test]
fn whoever_calls_knows_names_and_nothing_of_the_mesh() {
    for (file, line) in CALLERS {
        let text = std::fs::read_to_string(workspace().join("examples").join(file)).expect("a file");
        assert!(text.contains(line), "{file}: {line}");
        let code = text.lines().filter(|line| !line.trim_start().starts_with(['#', '/']));
        for line in code {
            let line = line.replace("alerts-svc.mesh:50051", "").to_lowercase();
            let spoken = ["proxy", "localhost", "127.", "10.", "[::", "port:", "environ", "getenv", "process.env"];
            let told = spoken.iter().find(|word| line.contains(*word));
            assert!(told.is_none(), "{file} knows of {told:?}: {line}");
        }
    }
}

#[test]
fn nothing_of_an_update_can_be_read_between_the_services_of_benefits() {
    scenario(LIMIT, async {
        let example = Example::new("benefits", User::Ordinary);
        let mut shell = example.shell().await;
        for line in ["hms up -d --wait --ports auto", "eval \"$(hms env)\""] {
            let answer = shell.line(line).await;
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        let rest = example.mesh.rest();
        let mut ports = Vec::new();
        for service in ["benefits-portal", "grant-svc", "payment-svc", "audit-svc"] {
            let address = rest.get(&format!("/v1/services/{service}")).await["endpoints"][0]["address"].to_string();
            let port = address.trim_matches('"').rsplit_once(':').expect("a port").1.to_owned();
            ports.push(format!("tcp port {port}"));
        }
        let folders = ["sealed", "open"].map(|name| example.mesh.root().join(name));
        for folder in &folders {
            std::fs::create_dir(folder).expect("a folder");
        }
        let sealed = Capture::start(&folders[0], &ports.join(" or ")).await;
        let open = Capture::start(&folders[1], &format!("tcp port {}", example.mesh.rest_address().port())).await;
        let update = "curl -H \"Authorization: Bearer $JWT\" -H 'Content-Type: application/json' \
                      -d '{\"grantId\": \"MARKER-G-77\", \"amount\": 1}' https://gateway.local/grant/update";
        for _ in 0..3 {
            let answer = shell.line(update).await;
            assert!(answer.out.contains("\"status\":\"updated\""), "{answer:?}\n{}", example.mesh.logs());
        }
        // The control plane's REST is plain within the machine: what can be read is seen.
        let _asked = rest.get("/v1/services/payment-svc").await;
        wait::until_true("a plain call is captured", Duration::from_secs(10), || {
            contains(&open.bytes(), b"GET /v1/services/payment-svc")
        })
        .await;
        let _open = open.finish().await;
        let bytes = sealed.finish().await;
        assert!(bytes.len() > 3000, "{} bytes were captured between the services", bytes.len());
        for word in ["MARKER", "HTTP/1.1", "payment-svc", "grantId", "/grant/update", "/pay", "spiffe://"] {
            assert!(!contains(&bytes, word.as_bytes()), "{word} crossed in the clear");
        }
        let down = shell.line("hms down").await;
        assert_eq!(down.code, 0, "{down:?}");
        shell.end().await;
        example.mesh.until_nothing_runs().await;
    });
}

#[test]
fn an_alert_goes_to_the_other_instance_when_one_has_died_and_is_sent_once() {
    scenario(LIMIT, async {
        let example = Example::new("radiation", User::Ordinary);
        let mut shell = example.shell().await;
        let second = "hms run alerts-svc --version v2 -- .venv/bin/python3 -m alerts_svc.server v2 > v2.log &";
        for line in ["hms up -d --wait --ports auto", "eval \"$(hms env)\"", second] {
            let answer = shell.line(line).await;
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        let typed = Typed { line: second.to_owned(), output: String::new() };
        until_more_than(1, &example, &typed).await;
        let status = shell.line("hms status -o json").await;
        let status: serde_json::Value = serde_json::from_str(&status.out).expect("JSON");
        let units = status["units"].as_array().expect("units");
        let first = units.iter().find(|unit| unit["service"] == "alerts-svc" && unit["version"] == "v3").expect("v3");
        signal(u32::try_from(first["app_pid"].as_u64().expect("a pid")).expect("a pid"), Signal::SIGKILL);
        for reading in 20..30 {
            let call =
                format!("curl -H \"Authorization: Bearer $JWT\" -d {reading} https://gateway.local/readings/guam");
            let answer = shell.line(&call).await;
            assert!(answer.out.contains("\"alert\": true"), "{answer:?}\n{}", example.mesh.logs());
        }
        let sent = shell.line("cat v2.log").await.out;
        for reading in 20..30 {
            assert_eq!(sent.matches(&format!("guam: {reading}.0")).count(), 1, "{sent}");
        }
        for line in ["kill %1", "hms down"] {
            let answer = shell.line(line).await;
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        shell.end().await;
        example.mesh.until_nothing_runs().await;
    });
}
