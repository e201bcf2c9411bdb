//! Questions to a supervisor over its own socket: one line of JSON, one line back. The socket lies in a folder only its user
//! may enter.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::intercept::Capture;
use crate::exit::Exit;
use crate::failure::Failure;

/// The longest question or answer.
const LONGEST: u64 = 1 << 20;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Ask {
    /// What runs here?
    Status,
    /// End a service's application.
    Stop {
        /// The service.
        service: String,
    },
    /// Start it again.
    Start {
        /// The service.
        service: String,
    },
    /// End and start it.
    Restart {
        /// The service.
        service: String,
    },
    /// Replace its proxy's process by a new one.
    RestartProxy {
        /// The service.
        service: String,
    },
    /// End everything here.
    Shutdown,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// What was done, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) said: String,
    /// What runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) units: Vec<UnitReport>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Value>,
}

/// One service of a supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitReport {
    /// The service.
    pub(crate) service: String,
    /// starting, running, stopped, exited.
    pub(crate) phase: String,
    /// What it is called where units of one service are told apart.
    #[serde(default)]
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Unix seconds since when.
    pub(crate) since: i64,
    /// The application's process.
    pub(crate) app_pid: Option<u32>,
    /// Where it listens.
    pub(crate) app_port: Option<u16>,
    /// Its exit code, once it has ended.
    pub(crate) exit_code: Option<u8>,
    /// The proxy's process.
    pub(crate) proxy_pid: Option<u32>,
    /// The proxy's listener for other proxies.
    pub(crate) inbound: Option<SocketAddr>,
    /// The proxy's listener for its application.
    pub(crate) outbound: Option<SocketAddr>,
    /// Listeners per upstream service.
    pub(crate) upstreams: std::collections::BTreeMap<String, SocketAddr>,
    /// The journal.
    pub(crate) log: String,
    /// The application's last lines.
    pub(crate) last_lines: Vec<String>,
    /// The program.
    pub(crate) command: String,
    /// The name of its proxy's private folder.
    #[serde(default)]
    pub(crate) proxy_folder: String,
    /// How it is captured.
    #[serde(default)]
    pub(crate) capture: Option<Capture>,
    /// Ports of the laptop's loopback that it may use.
    #[serde(default)]
    pub(crate) host_ports: Vec<u16>,
    /// Where its own port is open on the laptop, around the mesh.
    #[serde(default)]
    pub(crate) publish: Option<u16>,
    /// The engine's number for its container, if it runs in one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) container: String,
}

impl UnitReport {
    /// What it is called where programs of one service are told apart. A supervisor of an earlier release does not say.
    pub(crate) fn label(&self) -> &str {
        if self.name.is_empty() { &self.service } else { &self.name }
    }

    /// Whether a person who writes `name` means it: its service, or it alone.
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.service == name || self.label() == name
    }
}

/// Asks a supervisor.
pub(crate) async fn ask(socket: &Path, question: &Ask, patience: Duration) -> Result<Answer, Failure> {
    let failed = |exit: Exit, why: String| {
        Failure::new(exit, 1107, "the supervisor does not answer")
            .at(socket.display().to_string())
            .because(why)
            .fix("hms down")
    };
    let exchange = async {
        let mut stream = UnixStream::connect(socket).await?;
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut answer = String::new();
        BufReader::new(stream).take(LONGEST).read_line(&mut answer).await?;
        Ok::<Answer, std::io::Error>(serde_json::from_str(&answer)?)
    };
    let answer = tokio::time::timeout(patience, exchange)
        .await
        .map_err(|_elapsed| failed(Exit::Deadline, format!("waited {} s", patience.as_secs())))?
        .map_err(|error| failed(Exit::Failed, error.to_string()))?;
    match &answer.error {
        Some(error) => Err(Failure::from_json(error)),
        None => Ok(answer),
    }
}

/// Takes the next question; returns it with the stream that waits for the answer. Lines that are no question are answered
/// here.
pub(crate) async fn next_question(listener: &UnixListener) -> (Ask, UnixStream) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut line = String::new();
        let mut reader = BufReader::new(&mut stream).take(LONGEST);
        let read = tokio::time::timeout(Duration::from_secs(1), reader.read_line(&mut line)).await;
        drop(reader);
        if !matches!(read, Ok(Ok(1..))) {
            continue;
        }
        match serde_json::from_str(&line) {
            Ok(question) => return (question, stream),
            Err(error) => {
                let failure = Failure::new(Exit::Usage, 1107, "that is no question").because(error.to_string());
                answer(stream, &Answer { error: Some(failure.to_json()), ..Answer::default() }).await;
            }
        }
    }
}

/// Sends an answer. The asker may be gone; that is its business.
pub(crate) async fn answer(mut stream: UnixStream, answer: &Answer) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    drop(stream.write_all(&line).await);
    drop(stream.shutdown().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_nonsense_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.sock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::bind(&path).unwrap();
            let server = async {
                let (question, stream) = next_question(&listener).await;
                answer(stream, &Answer { said: format!("{question:?}"), ..Answer::default() }).await;
            };
            let client = async {
                let mut nonsense = UnixStream::connect(&path).await.unwrap();
                nonsense.write_all(b"{\"do\":\"explode\"}\n").await.unwrap();
                let mut refused = String::new();
                nonsense.read_to_string(&mut refused).await.unwrap();
                assert!(refused.contains("HMS-1107"), "{refused}");
                ask(&path, &Ask::Stop { service: "calc-svc".into() }, Duration::from_secs(5)).await.unwrap()
            };
            let ((), answer) = tokio::join!(server, client);
            assert_eq!(answer.said, "Stop { service: \"calc-svc\" }");
        });
    }
}
