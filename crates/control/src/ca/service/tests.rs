use hms_identity::clock::{Clock, FixedClock};
use hms_identity::key::PrivateKey;
use hms_model::names::ServiceName;

use super::*;
use crate::ca::tests::{HOUR, clock, domain, identity, names, open, start};
use crate::store::{MemoryStore, SqliteStore, Store};

struct World {
    service: AuthorityService,
    ca: Arc<Ca>,
    tokens: Arc<JoinTokens>,
    clock: Arc<FixedClock>,
    _directory: tempfile::TempDir,
}

fn world() -> World {
    world_on(|_directory| Arc::new(MemoryStore::new()))
}

fn world_on(store: impl Fn(&std::path::Path) -> Arc<dyn Store>) -> World {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let ca = Arc::new(open(directory.path(), Arc::clone(&clock)).unwrap());
    let shared: Arc<dyn Clock> = Arc::<FixedClock>::clone(&clock);
    let edge = Arc::new(EdgeCa::open(&directory.path().join("edge"), Arc::clone(&shared)).unwrap());
    let tokens = Arc::new(JoinTokens::new(store(directory.path()), shared));
    let service = AuthorityService::new(Arc::clone(&ca), edge, Arc::clone(&tokens), Arc::new(Vec::new));
    World { service, ca, tokens, clock, _directory: directory }
}

fn request(token: Option<&str>, peer: Option<SpiffeId>) -> Request<v1::IssueRequest> {
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let mut request = Request::new(v1::IssueRequest { csr: csr.into(), validity_seconds: 0 });
    if let Some(token) = token {
        request.metadata_mut().insert(JOIN_TOKEN, token.parse().unwrap());
    }
    if let Some(identity) = peer {
        request.extensions_mut().insert(PeerIdentity { identity, attestation: Attestation::Svid });
    }
    request
}

#[tokio::test]
async fn a_hundred_uses_of_one_join_token_make_one_certificate() {
    // Every use has read the token from the file before the first of them takes it.
    let world = world_on(|directory| Arc::new(SqliteStore::open(&directory.join("mesh.db")).unwrap()));
    let service = ServiceName::new("calc-svc").unwrap();
    let (token, _) = world.tokens.create(&service, None).await.unwrap();
    let uses = (0..100).map(|_| world.service.issue(request(Some(token.reveal()), None)));
    let answers = futures_util::future::join_all(uses).await;
    let issued: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    assert_eq!(issued.len(), 1);
    assert_eq!(issued[0].get_ref().identity, identity("calc-svc").as_str());
    assert_eq!(world.ca.issued(), 1);
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert!(!refused.message().contains(token.reveal()));
    }
}

#[tokio::test]
async fn the_key_that_took_a_token_may_ask_again_when_the_answer_was_lost() {
    let world = world();
    let (token, _) = world.tokens.create(&ServiceName::new("calc-svc").unwrap(), Some(HOUR)).await.unwrap();
    let first = request(Some(token.reveal()), None);
    let mut again = request(Some(token.reveal()), None);
    again.get_mut().csr = first.get_ref().csr.clone();
    assert!(world.service.issue(first).await.is_ok());
    assert!(world.service.issue(again).await.is_ok());
    let other = world.service.issue(request(Some(token.reveal()), None)).await.unwrap_err();
    assert_eq!(other.code(), tonic::Code::Unauthenticated);
}

#[tokio::test]
async fn a_token_that_is_none_or_has_ended_is_refused() {
    let world = world();
    let service = ServiceName::new("calc-svc").unwrap();
    let (token, expires_at) = world.tokens.create(&service, Some(HOUR)).await.unwrap();
    assert_eq!(expires_at, start() + HOUR);
    for wrong in ["", "x", "hms-join-0000000000000000000000000000000000000000000000000000000000000000"] {
        let refused = world.service.issue(request(Some(wrong), None)).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated, "{wrong}");
    }
    world.clock.advance(HOUR);
    assert_eq!(world.tokens.redeem(token.reveal(), &[7; 32]).await, Err(JoinError::Refused));
    assert_eq!(world.ca.issued(), 0);
}

#[tokio::test]
async fn a_request_that_is_refused_does_not_use_up_the_token() {
    let world = world();
    let (token, _) = world.tokens.create(&ServiceName::new("calc-svc").unwrap(), None).await.unwrap();
    let mut bad = request(Some(token.reveal()), None);
    bad.get_mut().csr = vec![1, 2, 3].into();
    assert_eq!(world.service.issue(bad).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(world.service.issue(request(Some(token.reveal()), None)).await.is_ok());
}

#[tokio::test]
async fn nobody_gets_a_certificate_for_nothing() {
    let world = world();
    let refused = world.service.issue(request(None, None)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    let renewed = world.service.issue(request(None, Some(identity("calc-svc")))).await.unwrap().into_inner();
    assert_eq!(renewed.identity, identity("calc-svc").as_str());
    assert_eq!(renewed.chain.len(), 2);
    assert_eq!(renewed.bundle.unwrap().trust_domain, "k3.hms");
}

#[tokio::test]
async fn only_a_gateway_shows_a_certificate_to_the_outside() {
    let world = world();
    let gateway = SpiffeId::new(&domain(), "hms-system", "gateway").unwrap();
    let issued = world.service.issue_edge(request(None, Some(gateway))).await.unwrap().into_inner();
    assert!(issued.identity.is_empty());
    assert!(names(&issued.chain[0]).iter().any(|name| name.contains("gateway.local")));
    for other in ["spiffe://k3.hms/ns/default/sa/gateway", "spiffe://other/ns/hms-system/sa/gateway"] {
        let refused = world.service.issue_edge(request(None, Some(SpiffeId::parse(other).unwrap()))).await;
        assert_eq!(refused.unwrap_err().code(), tonic::Code::PermissionDenied, "{other}");
    }
    let refused = world.service.issue_edge(request(None, None)).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
}
