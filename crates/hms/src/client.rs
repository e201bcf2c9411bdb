//! A small HTTP client for the control plane's REST API: JSON in, JSON out, problem documents become failures.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::project::Project;
use crate::settings::Settings;
use crate::tasks;

/// The most we read of one answer.
const LARGEST_ANSWER: usize = 16 << 20;
/// The longest line of a stream.
const LONGEST_LINE: usize = 1 << 20;

/// What the control plane writes about itself while it serves (`control.json`).
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct ControlRecord {
    /// The process.
    #[serde(flatten)]
    pub(crate) process: crate::processes::ProcessId,
    /// Address of REST.
    pub(crate) rest: String,
    /// Address of gRPC.
    #[serde(default)]
    pub(crate) grpc: String,
    /// The project's trust domain.
    #[serde(default)]
    pub(crate) trust_domain: String,
}

impl ControlRecord {
    /// The record of a living control plane of this project.
    pub(crate) fn read(project: &Project) -> Option<Self> {
        let text = std::fs::read_to_string(project.control_file()).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        record.process.is_alive().then_some(record)
    }
}

/// A bearer token; not shown by `Debug`.
#[derive(Clone)]
struct Bearer(String);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// Talks to one control plane.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: String,
    bearer: Option<Bearer>,
    timeout: Duration,
    /// The revision that the configuration must still have for a change.
    expected: Option<u64>,
}

impl Client {
    /// The control plane that was named, or the one that serves this project.
    pub(crate) fn find(settings: &Settings, project: &Project) -> Result<Self, Failure> {
        let address = match &settings.server {
            Some(url) => loopback_address(url)?,
            None => match ControlRecord::read(project) {
                Some(record) => record.rest,
                None => return Err(absent(project)),
            },
        };
        Ok(Self::new(address, project, settings.timeout))
    }

    /// A client for a known address, with the project's token.
    pub(crate) fn new(address: String, project: &Project, timeout: Duration) -> Self {
        let token = std::fs::read_to_string(crate::laptop::records::data_dir(project).join("admin.token"));
        Self { address, bearer: token.ok().map(|token| Bearer(token.trim().to_owned())), timeout, expected: None }
    }

    /// Address and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// `GET`, as JSON.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json("GET", path, None).await
    }

    /// `POST` a document, get one back.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.json("POST", path, Some(encode(body))).await
    }

    /// `PUT` a document, get one back.
    pub(crate) async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        self.json("PUT", path, Some(encode(body))).await
    }

    /// `PUT` a document, get one back, unless the configuration is at another revision by now.
    pub(crate) async fn put_at<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        revision: u64,
    ) -> Result<T, Failure> {
        let expected = Self { expected: Some(revision), ..self.clone() };
        expected.json("PUT", path, Some(encode(body))).await
    }

    /// `DELETE` something, get a document back.
    pub(crate) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.json("DELETE", path, None).await
    }

    /// `GET`, as text.
    pub(crate) async fn text(&self, path: &str) -> Result<String, Failure> {
        let bytes = self.bytes("GET", path, None).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `GET` a stream of JSON documents, one per line.
    pub(crate) async fn stream(&self, path: &str) -> Result<Lines, Failure> {
        let response = self.deadline(self.send("GET", path, None)).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = self.deadline(collect(response.into_body())).await?;
            return Err(problem(status.as_u16(), path, &body));
        }
        Ok(Lines { body: response.into_body(), buffer: BytesMut::new() })
    }

    async fn json<T: DeserializeOwned>(&self, method: &str, path: &str, body: Option<Bytes>) -> Result<T, Failure> {
        let bytes = self.bytes(method, path, body).await?;
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|error| {
            Failure::new(Exit::Failed, 1008, "the control plane's answer is not understood")
                .at(format!("{method} http://{}{path}", self.address))
                .because(error.to_string())
                .fix("hms version   # compare the releases")
        })
    }

    async fn bytes(&self, method: &str, path: &str, body: Option<Bytes>) -> Result<Bytes, Failure> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let status = response.status();
            let body = collect(response.into_body()).await?;
            if status.is_success() { Ok(body) } else { Err(problem(status.as_u16(), path, &body)) }
        };
        self.deadline(exchange).await
    }

    async fn deadline<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.timeout, work).await.unwrap_or_else(|_| {
            Err(Failure::new(Exit::Deadline, 1003, "the control plane did not answer in time")
                .at(format!("http://{}", self.address))
                .because(format!("waited {:.1} s", self.timeout.as_secs_f64()))
                .fix("hms check --only control-plane"))
        })
    }

    async fn send(&self, method: &str, path: &str, body: Option<Bytes>) -> Result<hyper::Response<Incoming>, Failure> {
        let unreachable = |why: String| {
            Failure::new(Exit::Unreachable, 1001, "the control plane cannot be reached")
                .at(format!("http://{}", self.address))
                .because(why)
                .fix("hms up -d")
        };
        let stream = TcpStream::connect(&self.address).await.map_err(|error| unreachable(error.to_string()))?;
        // Requests are small and come one at a time; waiting to fill a segment would only add latency.
        drop(stream.set_nodelay(true));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        tasks::spawn("rest connection", async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "rest connection ended");
            }
        });
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.address)
            .header("user-agent", concat!("hms/", env!("CARGO_PKG_VERSION")))
            .header("accept", "application/json, application/x-ndjson, text/plain");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(revision) = self.expected {
            request = request.header("if-match", format!("\"{revision}\""));
        }
        if let Some(bearer) = &self.bearer {
            request = request.header("authorization", format!("Bearer {}", bearer.0));
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(|error| {
            Failure::new(Exit::Failed, 1008, "this request cannot be written").because(error.to_string())
        })?;
        sender.send_request(request).await.map_err(|error| unreachable(error.to_string()))
    }
}

/// The lines of an NDJSON stream.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    buffer: BytesMut,
}

impl Lines {
    /// The next document; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                match serde_json::from_slice(&line) {
                    Ok(value) => return Some(value),
                    Err(_) => continue,
                }
            }
            if self.buffer.len() > LONGEST_LINE {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }
}

fn encode(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).map(Bytes::from).unwrap_or_default()
}

async fn collect(mut body: Incoming) -> Result<Bytes, Failure> {
    let broken = |why: String| Failure::new(Exit::Failed, 1008, "the control plane's answer broke off").because(why);
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            all.extend_from_slice(data);
        }
        if all.len() > LARGEST_ANSWER {
            return Err(broken(format!("it is longer than {LARGEST_ANSWER} bytes")));
        }
    }
    Ok(all.freeze())
}

/// The failure when no control plane serves a project.
pub(crate) fn absent(project: &Project) -> Failure {
    Failure::new(Exit::Unreachable, 1001, "no control plane serves this project")
        .at(project.root.display().to_string())
        .because(format!("{} names no living process", project.control_file().display()))
        .fix("hms up -d")
}

/// The address in a server URL. Only plain HTTP to this machine is spoken: the token must not cross a network in the clear.
fn loopback_address(url: &str) -> Result<String, Failure> {
    let refuse = |why: &str| {
        Failure::new(Exit::Usage, 1012, format!("`{url}` is no server this program talks to"))
            .because(why)
            .fix("--server http://127.0.0.1:15014")
    };
    let rest = url.strip_prefix("http://").ok_or_else(|| refuse("only http:// to this machine is spoken"))?;
    let authority = rest.trim_end_matches('/');
    let parsed: http::uri::Authority = authority.parse().map_err(|_invalid| refuse("that is no host and port"))?;
    let host = parsed.host().trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !loopback {
        return Err(refuse("the token would cross a network in the clear"));
    }
    if parsed.as_str().contains('@') {
        return Err(refuse("credentials do not belong into a URL"));
    }
    Ok(if parsed.port_u16().is_some() { authority.to_owned() } else { format!("{authority}:15014") })
}

/// A problem document (RFC 9457) as a failure.
fn problem(status: u16, path: &str, body: &[u8]) -> Failure {
    let exit = match status {
        401 | 403 => Exit::NotPermitted,
        408 | 504 => Exit::Deadline,
        409 | 412 => Exit::Conflict,
        _ => Exit::Failed,
    };
    let document: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let fallback = if status == 404 { 1004 } else { 1008 };
    let code = text("code").strip_prefix("HMS-").and_then(|digits| digits.parse().ok()).unwrap_or(fallback);
    let message = [text("detail"), text("title")].into_iter().find(|text| !text.is_empty());
    let message = message.map_or_else(|| format!("the control plane answered {status} to {path}"), str::to_owned);
    let findings: Vec<_> = document
        .get("findings")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(finding_from_json)
        .collect();
    let mut failure = Failure::new(exit, code, message).because(text("why")).findings(findings);
    match document.get("fix") {
        Some(Value::Array(fixes)) => {
            for fix in fixes.iter().filter_map(Value::as_str) {
                failure = failure.fix(fix);
            }
        }
        Some(Value::String(fix)) if !fix.is_empty() => failure = failure.fix(fix.as_str()),
        _ if exit == Exit::NotPermitted => {
            failure = failure.fix("use the project's own folder (--project), or the token's owner's account");
        }
        _ => {}
    }
    failure
}

/// A text as one segment of a path.
pub(crate) fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_talked_to_in_the_clear() {
        assert_eq!(loopback_address("http://127.0.0.1:15014/").unwrap(), "127.0.0.1:15014");
        assert_eq!(loopback_address("http://localhost").unwrap(), "localhost:15014");
        assert_eq!(loopback_address("http://[::1]:9").unwrap(), "[::1]:9");
        for url in ["https://127.0.0.1", "http://10.0.0.1:1", "http://a@localhost", "localhost:1", "http://"] {
            let failure = loopback_address(url).unwrap_err();
            assert_eq!(failure.exit(), Exit::Usage, "{url}");
        }
    }

    #[test]
    fn problem_documents_become_failures_with_their_exit_code() {
        let body = br#"{"status":400,"title":"Bad","detail":"two errors","code":"HMS-2103","why":"w","fix":["f"],
            "findings":[{"severity":"error","code":"HMS-2103","place":null,"message":"m","why":"","fix":""}]}"#;
        let failure = problem(400, "/v1/mesh", body);
        assert_eq!((failure.exit(), failure.message(), failure.all_findings().len()), (Exit::Failed, "two errors", 1));
        assert_eq!(problem(403, "/", b"").exit(), Exit::NotPermitted);
        assert_eq!(problem(409, "/", b"<html>").exit(), Exit::Conflict);
        assert_eq!(problem(404, "/v1/x", b"").code().to_string(), "HMS-1004");
    }

    #[test]
    fn names_cannot_leave_their_path_segment() {
        assert_eq!(segment("calc-svc.default"), "calc-svc.default");
        assert_eq!(segment("../a b?"), "..%2Fa%20b%3F");
    }
}
