//! The examples, as their READMEs tell a reader to run them: every command is typed into a real shell, and what it prints is
//! compared with the page. Once as whoever runs the tests, which is root in CI, and once as an ordinary user.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_testkit::example::Example;
use hms_testkit::processes::{Process, signal};
use hms_testkit::readme::{Block, Typed, masked};
use hms_testkit::shell::Shell;
use hms_testkit::user::User;
use hms_testkit::{scenario, wait};
use nix::sys::signal::Signal;

/// The whole of one README.
const LIMIT: Duration = Duration::from_mins(3);
/// Until something in another terminal has said what the page shows.
const PATIENCE: Duration = Duration::from_secs(30);
/// Sections that are not typed here: what was installed before, and the story that needs fixed ports.
const ELSEWHERE: [&str; 2] = ["Install", "The story's registry"];

/// Types the page from its start to its end.
async fn follow(name: &str, user: User) {
    let example = Example::new(name, user);
    let mut shell = example.shell().await;
    let blocks: Vec<&Block> =
        example.blocks.iter().filter(|block| !ELSEWHERE.contains(&block.section.as_str())).collect();
    let mut taps = Vec::new();
    let mut others = Vec::new();
    for (index, block) in blocks.iter().enumerate() {
        if !block.elsewhere {
            for typed in &block.commands {
                check(&example, &mut shell, typed).await;
            }
            continue;
        }
        for typed in &block.commands {
            let mut command = example.command("sh");
            command.args(["-c", &format!("exec {}", typed.line)]);
            let log = example.mesh.root().join(format!("terminal-{index}.log"));
            let process = Process::start(command, log);
            if typed.line.starts_with("hms tap") {
                let calls = &blocks.get(index + 1).expect("calls after the tap").commands;
                every_hop(&example, &mut shell, &process, typed, calls).await;
                taps.push(process);
            } else {
                let before = instances(&example, typed).await;
                wait::until("the instance in another terminal is known", PATIENCE, || async {
                    let now = instances(&example, typed).await;
                    if now > before { Ok(()) } else { Err(format!("{now}: {}", process.output())) }
                })
                .await;
                others.push((typed, process));
            }
        }
    }
    for (typed, process) in &mut others {
        let shown = masked(&process.output());
        assert_eq!(shown, masked(&typed.output), "{name}: `{}`", typed.line);
    }
    drop((taps, others));
    example.mesh.until_nothing_runs().await;
}

/// Types one command and compares.
async fn check(example: &Example, shell: &mut Shell, typed: &Typed) {
    // Several tests run at a time, and the ports with names are there once.
    let line = typed.line.replace("hms up -d --wait", "hms up -d --wait --ports auto");
    let answer = shell.line(&line).await;
    let (mut shown, mut wanted) = (masked(&answer.out), masked(&typed.output));
    if line.starts_with("hms up") {
        // Whoever is ready first is shown first.
        (shown, wanted) = (sorted(&shown), sorted(&wanted));
    }
    assert_eq!(shown, wanted, "`{line}` says {answer:?}\n{}", example.mesh.logs());
}

/// Makes the calls until the tap has shown every hop of the page, each of them encrypted, and ends the tap.
async fn every_hop(example: &Example, shell: &mut Shell, tap: &Process, typed: &Typed, calls: &[Typed]) {
    let wanted = counted(&typed.output);
    // A tap begins some time after its process, and the page's reader is slower than we are.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        for call in calls {
            let answer = shell.line(&call.line).await;
            assert_eq!(answer.code, 0, "`{}`: {answer:?}", call.line);
        }
        let shown = counted(&tap.output());
        if wanted.iter().all(|(line, times)| shown.get(line).is_some_and(|seen| seen >= times)) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the page: {wanted:#?}\nthe tap: {shown:#?}");
    }
    let output = tap.output();
    let plain: Vec<&str> = output.lines().filter(|line| !line.contains(" mTLS ")).collect();
    assert!(plain.is_empty(), "hops without mutual TLS: {plain:?}\n{}", example.mesh.logs());
    signal(tap.pid(), Signal::SIGINT);
}

/// How many healthy instances there are of the service that `hms run` names.
async fn instances(example: &Example, typed: &Typed) -> usize {
    let service = typed.line.split_whitespace().nth(2).expect("hms run SERVICE");
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
    ($($name:ident $ordinary:ident $folder:literal;)*) => {$(
        #[test]
        fn $name() {
            scenario(LIMIT, follow($folder, User::Own));
        }

        #[test]
        fn $ordinary() {
            scenario(LIMIT, follow($folder, User::Ordinary));
        }
    )*};
}

examples! {
    benefits_does_what_its_readme_says benefits_does_it_for_an_ordinary_user "benefits";
    passport_does_what_its_readme_says passport_does_it_for_an_ordinary_user "passport";
}
