use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use hms_identity::clock::{Clock, SystemClock};
use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::snapshot::Scope;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_wire::delta::client::{Client, Update};
use hms_wire::proto::envoy::service::discovery::v3 as discovery;
use hms_wire::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use hms_wire::proto::hms::v1;
use hms_wire::proto::hms::v1::control_client::ControlClient;
use hms_wire::proto::hms::v1::{control_message, proxy_message};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Streaming};

use super::*;
use crate::ca::edge::EdgeCa;
use crate::ca::tokens::JoinTokens;
use crate::ca::{Ca, Lifetimes};
use crate::registry::View;
use crate::store::{MemoryStore, Store};
use crate::tasks::{self, Tasks};

mod network;
mod streams;

/// A control plane in memory whose connections are made by the test.
struct Fixture {
    registry: Registry,
    live: Live,
    services: Services,
    ca: Arc<Ca>,
    tokens: Arc<JoinTokens>,
    connections: mpsc::Sender<io::Result<Connection>>,
    _stop: watch::Sender<bool>,
    _tasks: Tasks,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let lifetimes = Lifetimes::default();
        let ca = Arc::new(Ca::open(&directory.path().join("ca"), None, lifetimes, Arc::clone(&clock)).unwrap());
        let edge = Arc::new(EdgeCa::open(&directory.path().join("edge"), Arc::clone(&clock)).unwrap());
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let domain = ca.trust_domain().clone();
        let registry = Registry::open(Arc::clone(&store), domain, Arc::clone(&clock)).await.unwrap();
        let mut background = registry.start();
        let tokens = Arc::new(JoinTokens::new(store, clock));
        let authority = AuthorityService::new(Arc::clone(&ca), edge, Arc::clone(&tokens), Arc::new(Vec::new));
        let (stop, stopped) = watch::channel(false);
        let live = Live::new();
        let attestations = Arc::new(Attestations::default());
        let services = Services { registry: registry.clone(), live: live.clone(), attestations, authority, stopped };
        let (connections, incoming) = mpsc::channel(64);
        let serving = services.clone();
        background.spawn("serve", async move { serve(serving, ReceiverStream::new(incoming)).await.unwrap() });
        Self {
            registry,
            live,
            services,
            ca,
            tokens,
            connections,
            _stop: stop,
            _tasks: background,
            _directory: directory,
        }
    }

    fn identity(&self, namespace: &str, name: &str) -> SpiffeId {
        SpiffeId::new(self.ca.trust_domain(), namespace, name).unwrap()
    }

    /// A channel of somebody with this identity, calling from another host.
    async fn channel(&self, identity: Option<SpiffeId>) -> Channel {
        self.channel_of(Caller::Remote { ip: [10, 0, 0, 7].into(), identity }).await.0
    }

    async fn channel_of(&self, caller: Caller) -> (Channel, Arc<AtomicBool>) {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.connections.send(Ok(Connection::new(caller, theirs))).await.unwrap();
        let frozen = Arc::new(AtomicBool::new(false));
        let mut ours = Some(TokioIo::new(Freezable { inner: ours, frozen: Arc::clone(&frozen) }));
        let connector = tower::service_fn(move |_: Uri| {
            let ours = ours.take().ok_or_else(|| io::Error::other("there is one connection only"));
            std::future::ready(ours)
        });
        let endpoint = tonic::transport::Endpoint::from_static("http://control.mesh");
        (endpoint.connect_with_connector(connector).await.unwrap(), frozen)
    }

    async fn register(&self, service: &str, port: u16) -> u64 {
        let endpoint = Endpoint {
            service: name(service),
            id: "1".to_owned(),
            address: Address { ip: [10, 0, 0, 9].into(), port },
            app_port: 0,
            version: "v1".to_owned(),
            zone: String::new(),
            health: Health::Healthy,
            source: Registrar::Api,
            transport: Transport::Plain,
        };
        self.registry.register("test", endpoint).await.unwrap().0
    }

    async fn until(&self, what: impl Fn(&View) -> bool) {
        self.registry.watch().wait_for(|view| what(view)).await.unwrap();
    }
}

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

/// A connection that can fall silent without ending, as when a cable is cut.
struct Freezable {
    inner: DuplexStream,
    frozen: Arc<AtomicBool>,
}

impl AsyncRead for Freezable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.frozen.load(Ordering::Relaxed) { Poll::Pending } else { Pin::new(&mut self.inner).poll_read(cx, buf) }
    }
}

impl AsyncWrite for Freezable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.frozen.load(Ordering::Relaxed) { Poll::Pending } else { Pin::new(&mut self.inner).poll_write(cx, buf) }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A proxy's discovery stream, driven by the real client machine.
struct Subscriber {
    client: Client,
    requests: mpsc::Sender<discovery::DeltaDiscoveryRequest>,
    responses: Streaming<discovery::DeltaDiscoveryResponse>,
}

impl Subscriber {
    async fn open(channel: Channel, id: &str, scopes: impl IntoIterator<Item = Scope>) -> Result<Self, Status> {
        let node = discovery::Node { id: id.to_owned(), ..discovery::Node::default() };
        let mut client = Client::new(node, BTreeMap::new());
        client.subscribe(scopes);
        let (requests, outgoing) = mpsc::channel(8);
        requests.send(client.connected()).await.unwrap();
        let mut service = AggregatedDiscoveryServiceClient::new(channel);
        let responses = service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { client, requests, responses })
    }

    /// The next update, not yet acknowledged.
    async fn receive(&mut self) -> Result<Update, Status> {
        let response = self.responses.message().await?.ok_or_else(|| Status::aborted("the stream ended"))?;
        Ok(self.client.on_response(response).unwrap())
    }

    /// The next update, acknowledged but for `refused`.
    async fn update(&mut self, refused: Vec<v1::RefusedResource>) -> Result<Update, Status> {
        let update = self.receive().await?;
        let acknowledgement = self.client.acknowledge(&update.nonce, refused).unwrap();
        self.requests.send(acknowledgement).await.unwrap();
        Ok(update)
    }
}

/// A proxy's control stream.
struct Attached {
    messages: mpsc::Sender<v1::ProxyMessage>,
    answers: Streaming<v1::ControlMessage>,
}

impl Attached {
    async fn open(channel: Channel, id: &str, role: Role) -> Result<Self, Status> {
        let (messages, outgoing) = mpsc::channel(8);
        let hello = v1::Hello { proxy_id: id.to_owned(), role: role.to_string(), level: 1, ..v1::Hello::default() };
        messages.send(v1::ProxyMessage { kind: Some(proxy_message::Kind::Hello(hello)) }).await.unwrap();
        let mut service = ControlClient::new(channel);
        let answers = service.attach(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { messages, answers })
    }

    async fn register(&mut self, service: &str, ip: &str, health: v1::Health) -> Result<control_message::Kind, Status> {
        let state = v1::WorkloadState {
            service: Some(v1::ServiceName { namespace: "default".to_owned(), name: service.to_owned() }),
            id: "1".to_owned(),
            ip: ip.to_owned(),
            port: 4000,
            app_port: 7000,
            health: health.into(),
            ..v1::WorkloadState::default()
        };
        self.messages.send(v1::ProxyMessage { kind: Some(proxy_message::Kind::Workload(state)) }).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> Result<control_message::Kind, Status> {
        let answer = self.answers.message().await?.ok_or_else(|| Status::aborted("the stream ended"))?;
        Ok(answer.kind.unwrap())
    }
}
