//! `cargo xtask test`: everything CI runs, and nothing else runs in CI.

use crate::process::{self, capture, cargo_command, say};
use crate::python::{self, Venv};
use crate::settings::target;
use crate::steps::{Action, Step, chosen, list, run_all};
use crate::{Outcome, codegen, debian, demo, examples, fuzz, golang, reference, size, tidy};

/// Cheap ones first; the real binaries last.
const STEPS: &[Step] = &[
    Step { name: "format", action: Action::Cargo(&["fmt", "--all", "--check"]) },
    Step { name: "clippy", action: Action::Cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]) },
    Step { name: "deny", action: Action::Own(deny) },
    Step { name: "codegen", action: Action::Own(|| codegen::run(&["--check".to_owned()])) },
    Step { name: "tidy", action: Action::Own(|| tidy::run(&[])) },
    Step {
        name: "units",
        action: Action::Cargo(&["test", "--no-fail-fast", "--workspace", "--exclude", "hms-testkit"]),
    },
    Step { name: "loom", action: Action::Own(loom) },
    // A release is linked by one processor for minutes, and a fuzz target runs on one.
    Step { name: "fuzz", action: Action::Own(|| process::beside(&mut size::build(), fuzz::smoke)) },
    Step { name: "size", action: Action::Own(size::measure) },
    Step { name: "tools", action: Action::Own(tools) },
    Step { name: "mesh", action: Action::Own(mesh) },
    Step { name: "reference", action: Action::Own(|| reference::run(&["--check".to_owned()])) },
    Step { name: "demo", action: Action::Own(|| demo::run(&["--exit".to_owned()])) },
];

/// Runs all steps, or those named.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if arguments == ["--list"] {
        say(&list(STEPS));
        return Ok(());
    }
    run_all(&chosen(STEPS, arguments)?)
}

/// Licences, sources and who may depend on what. Advisories need a database that CI cannot always reach; SECURITY.md says how
/// to ask for them.
fn deny() -> Outcome {
    let there = capture(&mut cargo_command(&["deny", "--version"])).is_ok_and(|output| output.status.success());
    if !there {
        say("installing cargo-deny");
        process::run(&mut cargo_command(&["install", "--locked", "cargo-deny"]))?;
    }
    process::run(&mut cargo_command(&["deny", "check", "bans", "licenses", "sources"]))
}

/// The shared cells under a model checker that tries every order of their threads. In a folder of its own, because the flag
/// changes every crate.
fn loom() -> Outcome {
    let mut command = cargo_command(&["test", "-p", "hms-traffic", "--lib", "loom"]);
    process::run(command.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target().join("loom")))
}

/// Everything that the steps after it need from elsewhere. What cannot be had is a failure, never a test left out.
fn tools() -> Outcome {
    debian::program("curl", "--version")?;
    debian::program("tcpdump", "--version")?;
    debian::program("strace", "--version")?;
    // The other side of the table of HTTP/1.1 strictness.
    debian::program("nginx", "-v")?;
    debian::program("haproxy", "-v")?;
    // Resolvers that nobody here wrote, and what makes a namespace to ask them in.
    debian::tool("dig", "bind9-dnsutils", "-v")?;
    debian::tool("dnsmasq", "dnsmasq-base", "--version")?;
    debian::tool("node", "nodejs", "--version")?;
    debian::tool("ip", "iproute2", "-V")?;
    golang::h2spec()?;
    examples::programs()?;
    examples::install()?;
    Venv::with(&python::TESTS).map(drop)
}

/// The tests that run the real binaries.
fn mesh() -> Outcome {
    let venv = Venv::with(&python::TESTS)?;
    process::run(&mut cargo_command(&["build", "-p", "hms", "-p", "hms-proxy"]))?;
    // One run tells everything that fails.
    let mut command = cargo_command(&["test", "--no-fail-fast", "-p", "hms-testkit"]);
    command
        // Most of them wait for something most of the time.
        .env("RUST_TEST_THREADS", "3")
        .env("HMS_TEST_BIN", target().join("debug"))
        .env("HMS_TEST_PYTHON", venv.python())
        .env("HMS_TEST_H2SPEC", golang::h2spec()?)
        .env("HMS_TEST_EXAMPLES", examples::install()?)
        .env("HMS_TEST_PROXY_RELEASE", size::release_proxy());
    process::run(&mut command)
}
