//! `hms proxy run`: a proxy that a static file leads, as the chapter writes it and as Envoy takes it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a scenario that cannot be set up has failed")]

mod differential;
mod reload;
mod seed;

use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::{binaries, wait};

const SECOND: Duration = Duration::from_secs(1);

/// `hms proxy run` with its proxy.
struct Run {
    process: Process,
}

impl Run {
    /// Starts it; returns when it says where it listens.
    async fn start(mesh: &Mesh, config: &str, more: &[&str]) -> Self {
        let mut command = mesh.command(binaries::hms());
        command.args(["proxy", "run", "--config", config]).args(more);
        let log = mesh.root().join(format!("{config}.log"));
        let process = Process::start(command, log);
        let mut run = Self { process };
        wait::until("the proxy listens", SECOND * 30, || {
            let said = run.process.output();
            let listens = said.contains("admin 1");
            let alive = run.process.is_running();
            std::future::ready(if listens && alive { Ok(()) } else { Err(said) })
        })
        .await;
        run
    }

    /// The address it last told for `name`.
    fn address(&self, name: &str) -> SocketAddr {
        let said = self.process.output();
        let mut words = said.split_whitespace().rev().peekable();
        while let Some(word) = words.next() {
            if words.peek() == Some(&name)
                && let Ok(address) = word.parse()
            {
                return address;
            }
        }
        panic!("no {name} in {said}")
    }

    /// A line that it writes to people, from now on or before.
    async fn until_it_says(&self, what: &str) {
        wait::until(&format!("it says {what}"), SECOND * 30, || {
            let said = self.process.output();
            std::future::ready(if said.contains(what) { Ok(()) } else { Err(said) })
        })
        .await;
    }
}

/// Which application answers `path`, or the status and code of the answer that none gave.
async fn answered_by(http: &Http, path: &str) -> String {
    match http.get(path).await {
        Ok(answer) if answer.status == 200 => answer.json()["app"].as_str().unwrap_or_default().to_owned(),
        Ok(answer) => format!("{} {}", answer.status, answer.header("x-hms-error")),
        Err(error) => error,
    }
}
