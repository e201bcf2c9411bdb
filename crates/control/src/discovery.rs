//! The gRPC side: proxies subscribe to their part of the mesh, keep their control stream, and ask for certificates.
//!
//! Two ways lead in. On the local socket the kernel says which process calls, and the supervisor has said what that process is.
//! Over TCP it is mutual TLS; a caller without a certificate can only redeem a join token at the authority. Whoever is not
//! recognised is turned away before a byte of a message is read.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hms_model::listener::Role;
use hms_model::spiffe::SpiffeId;
use hms_wire::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use hms_wire::proto::hms::v1::authority_server::AuthorityServer;
use hms_wire::proto::hms::v1::control_server::ControlServer;
use tokio::sync::watch;
use tonic::{Request, Status};

use crate::ca::attest::{Attestation, Attestations, PeerIdentity};
use crate::ca::service::{AuthorityService, EGRESS, GATEWAY, SYSTEM_NAMESPACE};
use crate::live::Live;
use crate::registry::Registry;

mod aggregated;
mod attach;
pub mod connection;
pub mod listen;
#[cfg(test)]
mod tests;

use self::connection::{Caller, Connection};

/// A proxy whose connection is silent is asked after so long...
const KEEPALIVE: Duration = Duration::from_secs(5);
/// ...and given up after so much longer, so that with the grace of its lease it is gone within fifteen seconds.
const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a proxy may leave a message unread or a response unacknowledged.
const STALLED: Duration = Duration::from_secs(30);
/// Calls at the same time on one connection; a proxy has three.
const CALLS: u32 = 16;
/// Longest message of a control stream, and of a certificate request.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// Longest message of a discovery stream: after a reconnect a gateway lists everything it holds, up to
/// [`HELD`](hms_wire::delta::HELD) names with their versions.
const DISCOVERY_BYTES: usize = 8 * 1024 * 1024;

/// What the services work with.
#[derive(Debug, Clone)]
pub struct Services {
    /// What there is to know.
    pub registry: Registry,
    /// Where reports go.
    pub live: Live,
    /// What the supervisor said of local processes.
    pub attestations: Arc<Attestations>,
    /// The certificate authority.
    pub authority: AuthorityService,
    /// Becomes true when the control plane stops: open streams end then, and nobody loses a lease for it.
    pub stopped: watch::Receiver<bool>,
}

/// Waits until the control plane stops. One that was dropped has stopped too.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    drop(stopped.wait_for(|stopped| *stopped).await.map(drop));
}

/// Serves every connection of `incoming` until the control plane stops.
pub async fn serve<I>(services: Services, incoming: I) -> Result<(), tonic::transport::Error>
where
    I: Stream<Item = io::Result<Connection>> + Send,
{
    let Services { registry, live, attestations, authority, mut stopped } = services;
    let recognise = move |request: Request<()>| Ok::<_, Status>(recognise(&attestations, request));
    let aggregated = aggregated::Aggregated::new(registry.clone(), live.clone(), stopped.clone());
    let aggregated = AggregatedDiscoveryServiceServer::new(aggregated)
        .max_decoding_message_size(DISCOVERY_BYTES)
        .max_encoding_message_size(hms_wire::MESSAGE_BYTES);
    let control = attach::Attach::new(registry, live, stopped.clone());
    let control = ControlServer::new(control).max_decoding_message_size(MESSAGE_BYTES);
    let authority = AuthorityServer::new(authority).max_decoding_message_size(MESSAGE_BYTES);
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
        .max_concurrent_streams(CALLS)
        .http2_max_header_list_size(16 * 1024)
        .layer(tonic::service::InterceptorLayer::new(recognise))
        .add_service(aggregated)
        .add_service(control)
        .add_service(authority)
        .serve_with_incoming_shutdown(incoming, async move { stop(&mut stopped).await })
        .await
}

/// Notes who calls, if that is known. A local process may be attested after it connected, so this is asked for every call.
fn recognise(attestations: &Attestations, mut request: Request<()>) -> Request<()> {
    let peer = match request.extensions().get::<Caller>() {
        Some(Caller::Process { process, user }) => attestations.identify(*process, *user).map(|(peer, _role)| peer),
        Some(Caller::Remote { identity: Some(identity), .. }) => {
            Some(PeerIdentity { identity: identity.clone(), attestation: Attestation::Svid })
        }
        Some(Caller::Remote { identity: None, .. }) | None => None,
    };
    // Nobody can have put one there: extensions do not travel.
    request.extensions_mut().remove::<PeerIdentity>();
    if let Some(peer) = peer {
        request.extensions_mut().insert(peer);
    }
    request
}

/// Who calls, or the refusal.
fn identity_of<T>(request: &Request<T>) -> Result<SpiffeId, Status> {
    let peer = request.extensions().get::<PeerIdentity>();
    peer.map(|peer| peer.identity.clone()).ok_or_else(|| {
        Status::unauthenticated("HMS-4210: the caller is neither an attested process nor has it a certificate")
    })
}

/// The one kind of proxy that an identity may be.
fn role_of(identity: &SpiffeId) -> Role {
    match (identity.namespace(), identity.name()) {
        (SYSTEM_NAMESPACE, GATEWAY) => Role::Gateway,
        (SYSTEM_NAMESPACE, EGRESS) => Role::Egress,
        _ => Role::Sidecar,
    }
}
