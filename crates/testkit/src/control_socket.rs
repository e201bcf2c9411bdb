//! The control plane's local socket, spoken to by a process that is attested but no proxy.

use std::path::PathBuf;

use hms_wire::proto::hms::v1::IssueRequest;
use hms_wire::proto::hms::v1::authority_client::AuthorityClient;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::mesh::Mesh;

/// A connection to the socket of a mesh.
pub async fn connect(mesh: &Mesh) -> Channel {
    let path: PathBuf = mesh.run_dir().join("control.sock");
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://control.invalid").connect_with_connector(connector).await.unwrap()
}

/// Asks for a certificate for `csr`; how many certificates came, or the status and its text.
pub async fn issue(channel: &Channel, csr: &[u8]) -> Result<usize, (tonic::Code, String)> {
    let request = IssueRequest { csr: csr.to_vec().into(), validity_seconds: 0 };
    let answer = AuthorityClient::new(channel.clone()).issue(request).await;
    answer
        .map(|response| response.into_inner().chain.len())
        .map_err(|status| (status.code(), status.message().to_owned()))
}
