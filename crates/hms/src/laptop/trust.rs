//! The public files by which clients trust and find the gateway: certificates, a bundle with the system's roots, a `.curlrc`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::environment::{Variables, curlrc};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes::ProcessId;
use crate::project::{Project, write_file};
use crate::settings::Settings;

/// Where distributions keep the system's roots, in the order OpenSSL users look for them.
const SYSTEM_ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// A larger file is no set of roots.
const LARGEST_ROOTS: u64 = 16 << 20;

/// What the gateway's supervisor writes into `gateway.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GatewayRecord {
    /// The supervisor.
    #[serde(flatten)]
    pub(crate) process: ProcessId,
    /// Where the gateway listens.
    pub(crate) https: SocketAddr,
    /// The names it answers for.
    pub(crate) hosts: Vec<String>,
}

impl GatewayRecord {
    /// The record of a living gateway of this project.
    pub(crate) fn read(project: &Project) -> Option<Self> {
        let text = std::fs::read_to_string(project.gateway_file()).ok()?;
        let record: Self = serde_json::from_str(&text).ok()?;
        record.process.is_alive().then_some(record)
    }

    /// Writes it.
    pub(crate) fn write(&self, project: &Project) -> Result<(), Failure> {
        let text = serde_json::to_string(self).unwrap_or_default();
        write_file(&project.gateway_file(), &text, false).map_err(|error| unwritable(&project.gateway_file(), &error))
    }
}

/// The failure when there is no gateway.
pub(crate) fn no_gateway(project: &Project) -> Failure {
    Failure::new(Exit::Conflict, 1016, "this project's gateway does not run")
        .at(project.root.display().to_string())
        .fix("hms up -d")
}

/// Fetches the authorities' certificates and writes everything clients need. The files are public; their folder is not.
pub(crate) async fn write(settings: &Settings, project: &Project, gateway: &GatewayRecord) -> Result<PathBuf, Failure> {
    let client = Client::find(settings, project)?;
    let edge = client.text("/v1/ca/edge").await?;
    let root = client.text("/v1/ca/root").await?;
    let certs = project.certs_dir();
    let bundle = certs.join("bundle.pem");
    let mut all = system_roots(settings);
    if !all.is_empty() && !all.ends_with('\n') {
        all.push('\n');
    }
    all.push_str(&edge);
    let curlrc = curlrc(&bundle.display().to_string(), &gateway.hosts, gateway.https);
    for (path, text) in [
        (certs.join("edge-root.pem"), edge.as_str()),
        (certs.join("mesh-root.pem"), root.as_str()),
        (bundle.clone(), all.as_str()),
        (project.curl_dir().join(".curlrc"), curlrc.as_str()),
    ] {
        write_file(&path, text, true).map_err(|error| unwritable(&path, &error))?;
    }
    Ok(bundle)
}

/// The variables of `hms env`.
pub(crate) fn variables(
    project: &Project,
    gateway: &GatewayRecord,
    bundle: &Path,
    server: &str,
    token: &str,
) -> Variables {
    let bundle = bundle.display().to_string();
    let curl = project.curl_dir().display().to_string();
    let host = gateway.hosts.first().map_or("gateway.local", String::as_str);
    [
        ("JWT", token.to_owned()),
        ("CURL_HOME", curl),
        ("SSL_CERT_FILE", bundle.clone()),
        ("REQUESTS_CA_BUNDLE", bundle.clone()),
        ("NODE_EXTRA_CA_CERTS", bundle),
        ("HMS_PROJECT", project.root.display().to_string()),
        ("HMS_API", format!("http://{server}")),
        ("HMS_GATEWAY", gateway.https.to_string()),
        ("HMS_GATEWAY_URL", format!("https://{host}")),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// The system's roots, or those the user already chose by `SSL_CERT_FILE`; empty if none are found.
fn system_roots(settings: &Settings) -> String {
    let chosen = settings.environment.text("SSL_CERT_FILE").map(PathBuf::from);
    // After `eval "$(hms env)"` the variable names our own bundle; reading that again would let it grow.
    let chosen = chosen.filter(|path| !path.starts_with(&settings.directories.state));
    chosen
        .into_iter()
        .chain(SYSTEM_ROOTS.map(PathBuf::from))
        .filter(|path| {
            std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= LARGEST_ROOTS)
        })
        .find_map(|path| std::fs::read_to_string(path).ok())
        .unwrap_or_default()
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failed, 1009, format!("cannot write {}", path.display())).because(error.to_string())
}
