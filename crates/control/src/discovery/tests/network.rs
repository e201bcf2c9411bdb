//! The same over real sockets: TLS on a free port, and the local socket.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use arc_swap::ArcSwap;
use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_wire::proto::hms::v1::authority_client::AuthorityClient;
use rustls::ClientConfig;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::ca::service::CONTROL;

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

/// Listens over TCP with the control plane's certificate.
async fn listen(mesh: &Fixture) -> (SocketAddr, Tasks) {
    let own = mesh.ca.own_svid(&mesh.identity(SYSTEM_NAMESPACE, CONTROL)).unwrap();
    let tls = hms_identity::tls::bootstrap_server_config(&own, &mesh.ca.bundle(), &[b"h2"], clock()).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = listen::accept_remote(listener, Arc::new(ArcSwap::new(tls)));
    let services = mesh.services.clone();
    let mut tasks = Tasks::default();
    tasks.spawn("serve", async move { serve(services, incoming).await.unwrap() });
    (address, tasks)
}

async fn tls_channel(address: SocketAddr, config: Arc<ClientConfig>) -> Result<Channel, tonic::transport::Error> {
    let connector = tower::service_fn(move |_: Uri| {
        let config = Arc::clone(&config);
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = hms_identity::tls::server_name();
            Ok::<_, io::Error>(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?))
        }
    });
    tonic::transport::Endpoint::from_static("http://control.mesh").connect_with_connector(connector).await
}

fn expected(mesh: &Fixture) -> BTreeSet<SpiffeId> {
    BTreeSet::from([mesh.identity(SYSTEM_NAMESPACE, CONTROL)])
}

#[tokio::test]
async fn over_tcp_the_certificate_says_who_calls() {
    let mesh = Fixture::new().await;
    let (address, _tasks) = listen(&mesh).await;
    let svid = mesh.ca.own_svid(&mesh.identity("default", "calc-svc")).unwrap();
    let bundle = mesh.ca.bundle();
    let config = hms_identity::tls::client_config(&svid, &bundle, &expected(&mesh), &[b"h2"], clock()).unwrap();
    let channel = tls_channel(address, config).await.unwrap();
    let mut control = Attached::open(channel, "p", Role::Sidecar).await.unwrap();
    let answer = control.register("calc-svc", "127.0.0.1", v1::Health::Healthy).await.unwrap();
    assert!(matches!(answer, control_message::Kind::Registered(_)), "{answer:?}");
    let other = control.register("other-svc", "127.0.0.1", v1::Health::Healthy).await.unwrap();
    assert!(matches!(other, control_message::Kind::Refused(refused) if refused.code == "HMS-4103"));
}

#[tokio::test]
async fn without_a_certificate_only_a_join_token_can_be_redeemed_and_for_one_key() {
    let mesh = Fixture::new().await;
    let (address, _tasks) = listen(&mesh).await;
    let config =
        hms_identity::tls::bootstrap_client_config(&mesh.ca.bundle(), &expected(&mesh), &[b"h2"], clock()).unwrap();
    let channel = tls_channel(address, config).await.unwrap();
    let refused = Subscriber::open(channel.clone(), "p", [Scope::Mesh]).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    let (token, _) = mesh.tokens.create(&name("calc-svc"), None).await.unwrap();
    let key = PrivateKey::generate().unwrap();
    let ask = |key: &PrivateKey| {
        let csr = key.csr().unwrap().into();
        let mut request = Request::new(v1::IssueRequest { csr, validity_seconds: 0 });
        request.metadata_mut().insert("x-hms-join-token", token.reveal().parse().unwrap());
        request
    };
    let mut authority = AuthorityClient::new(channel);
    let issued = authority.issue(ask(&key)).await.unwrap().into_inner();
    assert_eq!(issued.identity, mesh.identity("default", "calc-svc").as_str());
    let another = PrivateKey::generate().unwrap();
    assert_eq!(authority.issue(ask(&another)).await.unwrap_err().code(), Code::Unauthenticated);
    let chain = issued.chain.iter().map(|der| der.to_vec().into()).collect();
    let key = PrivateKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
    assert_eq!(Svid::new(chain, key).unwrap().identity(), &mesh.identity("default", "calc-svc"));
}

#[tokio::test]
async fn a_certificate_of_another_mesh_is_refused() {
    let (mesh, other) = (Fixture::new().await, Fixture::new().await);
    let (address, _tasks) = listen(&mesh).await;
    let foreign = other.ca.own_svid(&other.identity("default", "calc-svc")).unwrap();
    let bundle = mesh.ca.bundle();
    let config = hms_identity::tls::client_config(&foreign, &bundle, &expected(&mesh), &[b"h2"], clock()).unwrap();
    // In TLS 1.3 a client learns of the refusal with its first read.
    let opened = match tls_channel(address, config).await {
        Ok(channel) => Attached::open(channel, "p", Role::Sidecar).await.map(drop).is_ok(),
        Err(_refused) => false,
    };
    assert!(!opened);
    assert_eq!(mesh.live.proxies(), []);
}

#[tokio::test]
async fn a_client_that_never_speaks_does_not_hold_up_the_next() {
    let mesh = Fixture::new().await;
    let (address, _tasks) = listen(&mesh).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let svid = mesh.ca.own_svid(&mesh.identity("default", "calc-svc")).unwrap();
    let bundle = mesh.ca.bundle();
    let config = hms_identity::tls::client_config(&svid, &bundle, &expected(&mesh), &[b"h2"], clock()).unwrap();
    let channel = tls_channel(address, config).await.unwrap();
    assert!(Attached::open(channel, "p", Role::Sidecar).await.is_ok());
}

#[tokio::test]
async fn on_the_local_socket_the_kernel_says_who_calls() {
    use std::os::unix::fs::PermissionsExt as _;
    let mesh = Fixture::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    drop(listen::bind_local(&path).unwrap());
    let listener = listen::bind_local(&path).expect("what a dead process left is replaced");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(listen::bind_local(&path).is_err(), "what a living one serves is not");
    let (services, incoming) = (mesh.services.clone(), listen::accept_local(listener));
    let _server = tasks::spawn("serve", async move { serve(services, incoming).await.unwrap() });
    mesh.services.attestations.attest(std::process::id(), mesh.identity("default", "calc-svc"), Role::Sidecar).unwrap();
    let socket = path.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = tonic::transport::Endpoint::from_static("http://control.mesh");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let mut control = Attached::open(channel, "p", Role::Sidecar).await.unwrap();
    let answer = control.register("calc-svc", "127.0.0.1", v1::Health::Healthy).await.unwrap();
    assert!(matches!(answer, control_message::Kind::Registered(_)), "{answer:?}");
}
