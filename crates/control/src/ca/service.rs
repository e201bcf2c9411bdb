//! The authority over gRPC.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hms_model::spiffe::SpiffeId;
use hms_wire::proto::hms::v1;
use hms_wire::proto::hms::v1::authority_server::Authority;
use tonic::{Request, Response, Status};

use super::attest::{Attestation, PeerIdentity};
use super::edge::EdgeCa;
use super::issuer::requested_key;
use super::tokens::{JoinError, JoinTokens};
use super::{Ca, IssueError, Issued};

pub use hms_model::names::{EGRESS, GATEWAY, SYSTEM_NAMESPACE};

/// The name of the control plane within the mesh's own namespace.
pub const CONTROL: &str = "control";
/// The metadata key of a join token.
pub const JOIN_TOKEN: &str = "x-hms-join-token";

/// The names the gateway is configured to answer for, at this moment.
pub type Hosts = dyn Fn() -> Vec<String> + Send + Sync;

/// Issues certificates to those who prove who they are.
#[derive(Clone)]
pub struct AuthorityService {
    ca: Arc<Ca>,
    edge: Arc<EdgeCa>,
    tokens: Arc<JoinTokens>,
    hosts: Arc<Hosts>,
}

impl fmt::Debug for AuthorityService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorityService").field("ca", &self.ca).finish_non_exhaustive()
    }
}

impl AuthorityService {
    /// Issues from `ca`, and from `edge` for the `hosts` of the gateway; takes `tokens`.
    pub fn new(ca: Arc<Ca>, edge: Arc<EdgeCa>, tokens: Arc<JoinTokens>, hosts: Arc<Hosts>) -> Self {
        Self { ca, edge, tokens, hosts }
    }

    /// Who asks, with the key of this fingerprint. The request must be known to be good before this is called: it binds a join token.
    async fn caller(
        &self,
        peer: Option<PeerIdentity>,
        token: Option<String>,
        fingerprint: &[u8; 32],
    ) -> Result<PeerIdentity, Status> {
        if let Some(peer) = peer {
            return Ok(peer);
        }
        let token = token.ok_or_else(|| {
            Status::unauthenticated("HMS-4210: the caller is not attested, has no certificate and brings no join token")
        })?;
        let service = self.tokens.redeem(&token, fingerprint).await.map_err(|error| match error {
            JoinError::Refused => {
                tracing::warn!(target: "audit", "refused a join token");
                Status::unauthenticated(format!("HMS-4211: {error}"))
            }
            other => Status::unavailable(format!("HMS-4212: {other}")),
        })?;
        let identity = SpiffeId::new(self.ca.trust_domain(), service.namespace(), service.name());
        let identity = identity.map_err(|error| Status::internal(error.to_string()))?;
        Ok(PeerIdentity { identity, attestation: Attestation::JoinToken })
    }

    fn answer(&self, issued: Issued, identity: String) -> Response<v1::IssueResponse> {
        let bundle = self.ca.bundle();
        let roots = bundle.roots.into_iter().map(Bytes::from).collect();
        Response::new(v1::IssueResponse {
            chain: issued.chain.into_iter().map(|certificate| Bytes::copy_from_slice(&certificate)).collect(),
            bundle: Some(v1::TrustBundle { trust_domain: bundle.trust_domain.to_string(), roots }),
            identity,
        })
    }
}

/// Who the caller is by its connection, the token it brings, and what it asks.
fn parts(request: Request<v1::IssueRequest>) -> (Option<PeerIdentity>, Option<String>, v1::IssueRequest) {
    let peer = request.extensions().get::<PeerIdentity>().cloned();
    let token = request.metadata().get(JOIN_TOKEN).and_then(|value| value.to_str().ok()).map(str::to_owned);
    (peer, token, request.into_inner())
}

fn refusal(error: &IssueError) -> Status {
    match error {
        IssueError::Request(_) => Status::invalid_argument(format!("HMS-4213: {error}")),
        IssueError::ForeignIdentity(_) | IssueError::ForeignHost(_) => {
            Status::permission_denied(format!("HMS-4214: {error}"))
        }
        IssueError::Sign(_) => Status::internal(format!("HMS-4215: {error}")),
    }
}

#[tonic::async_trait]
impl Authority for AuthorityService {
    async fn issue(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        let (peer, token, asked) = parts(request);
        requested_key(&asked.csr).map_err(|error| refusal(&error))?;
        let requested =
            hms_identity::csr::parse(&asked.csr).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let caller = self.caller(peer, token, &requested.fingerprint()).await?;
        let validity = (asked.validity_seconds > 0).then(|| Duration::from_secs(asked.validity_seconds));
        let issued = self.ca.issue(&asked.csr, &caller.identity, validity, &caller.attestation);
        let issued = issued.map_err(|error| refusal(&error))?;
        Ok(self.answer(issued, caller.identity.to_string()))
    }

    async fn issue_edge(&self, request: Request<v1::IssueRequest>) -> Result<Response<v1::IssueResponse>, Status> {
        // No token here: a gateway has its own certificate before it shows anything to the outside.
        let (peer, _token, asked) = parts(request);
        let caller = peer.ok_or_else(|| Status::unauthenticated("HMS-4210: the caller is not known"))?;
        let own_domain = caller.identity.trust_domain() == self.ca.trust_domain().as_str();
        if !own_domain || caller.identity.namespace() != SYSTEM_NAMESPACE || caller.identity.name() != GATEWAY {
            tracing::warn!(target: "audit", caller = %caller.identity, "refused an edge certificate");
            return Err(Status::permission_denied("HMS-4214: only a gateway shows a certificate to the outside"));
        }
        let issued = self.edge.issue(&asked.csr, &(self.hosts)(), &caller.attestation);
        Ok(self.answer(issued.map_err(|error| refusal(&error))?, String::new()))
    }
}

#[cfg(test)]
mod tests;
