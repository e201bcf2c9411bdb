//! What really went over the loopback interface, as tcpdump saw it.

use std::path::PathBuf;
use std::time::Duration;

use tokio::process::Command;

use crate::processes::{self, Process};
use crate::wait;

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures loopback TCP traffic that matches `filter` into a file below `folder`. Needs tcpdump and the right to use it.
    pub async fn start(folder: &std::path::Path, filter: &str) -> Self {
        Self::start_at("lo", folder, filter).await
    }

    /// The same at another interface.
    pub async fn start_at(interface: &str, folder: &std::path::Path, filter: &str) -> Self {
        let file = folder.join("capture.pcap");
        let mut command = Command::new("tcpdump");
        // -U writes each packet at once; -Z keeps the user, so that the file can be written; -B is the kernel's buffer in KiB.
        command.args(["-i", interface, "-s", "0", "-U", "-B", "16384", "-Z", "root", "-w"]).arg(&file).arg(filter);
        let process = Process::start(command, folder.join("tcpdump.log"));
        let capture = Self { process, file };
        wait::until_true(
            "tcpdump captures (apt-get install tcpdump, and CAP_NET_RAW)",
            Duration::from_secs(10),
            || capture.process.output().contains("listening on"),
        )
        .await;
        capture
    }

    /// The bytes captured so far.
    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.file).unwrap_or_default()
    }

    /// Ends the capture and returns everything, packet headers included.
    pub async fn finish(mut self) -> Vec<u8> {
        processes::signal(self.process.pid(), nix::sys::signal::Signal::SIGINT);
        let _code = self.process.ended(Duration::from_secs(10)).await;
        self.bytes()
    }
}

/// Whether `needle` occurs in `bytes`.
pub fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}
