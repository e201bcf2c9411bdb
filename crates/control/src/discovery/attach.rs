//! The control stream: while it is open the proxy's workload is registered.

use std::net::IpAddr;
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::resource::ResourceKey;
use hms_model::spiffe::SpiffeId;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_wire::proto::hms::v1;
use hms_wire::proto::hms::v1::control_server::Control;
use hms_wire::proto::hms::v1::{control_message, proxy_message};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::connection::Caller;
use super::{STALLED, identity_of, role_of, stop};
use crate::live::{Live, ProxyHello, Session};
use crate::registry::{LeaseId, Peer, Registry, RegistryError};
use crate::tasks;

/// How long a proxy may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a workload that leaves waits until its callers have heard it; one that hears nothing must not hold it up for ever.
const PROPAGATED: Duration = Duration::from_secs(1);
/// Answers that may wait for the proxy to read.
const ANSWERS: usize = 16;

/// The service.
#[derive(Debug)]
pub(super) struct Attach {
    registry: Registry,
    live: Live,
    stopped: watch::Receiver<bool>,
}

impl Attach {
    pub(super) fn new(registry: Registry, live: Live, stopped: watch::Receiver<bool>) -> Self {
        Self { registry, live, stopped }
    }
}

type Answer = Result<v1::ControlMessage, Status>;

#[tonic::async_trait]
impl Control for Attach {
    type AttachStream = ReceiverStream<Answer>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ProxyMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let identity = identity_of(&request)?;
        let peer = match request.extensions().get::<Caller>() {
            Some(Caller::Process { .. }) => Peer::Local,
            Some(Caller::Remote { ip, .. }) => Peer::Remote(*ip),
            None => return Err(Status::internal("a connection without a caller")),
        };
        let (answers, receiver) = mpsc::channel(ANSWERS);
        let lease = self.registry.new_lease();
        let stream = Stream {
            registry: self.registry.clone(),
            live: self.live.clone(),
            stopped: self.stopped.clone(),
            identity,
            peer,
            lease,
            workload: None,
            draining: false,
        };
        tasks::spawn("control-stream", stream.run(request.into_inner(), answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One proxy's control stream.
struct Stream {
    registry: Registry,
    live: Live,
    stopped: watch::Receiver<bool>,
    identity: SpiffeId,
    peer: Peer,
    lease: LeaseId,
    workload: Option<ResourceKey>,
    draining: bool,
}

impl Stream {
    async fn run(mut self, mut messages: Streaming<v1::ProxyMessage>, answers: mpsc::Sender<Answer>) {
        if let Err(status) = Box::pin(self.converse(&mut messages, &answers)).await {
            tracing::debug!(identity = %self.identity, %status, "a control stream ended");
            drop(answers.try_send(Err(status)));
        }
        let Some(key) = self.workload.take() else { return };
        if *self.stopped.borrow() {
            // It is we who go: the workload stays.
            return;
        }
        if self.draining
            && let Err(error) = self.registry.leave(self.lease, &key).await
        {
            tracing::warn!(%error, %key, "cannot remove a workload that said goodbye");
        }
        // After a goodbye this does nothing, unless the removal failed: then it is tried again.
        self.registry.detach(self.lease, &key);
    }

    async fn converse(
        &mut self,
        messages: &mut Streaming<v1::ProxyMessage>,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), Status> {
        let first = tokio::time::timeout(HELLO, messages.message()).await;
        let first = first.map_err(|_late| Status::deadline_exceeded("no hello within 10 seconds"))??;
        let Some(v1::ProxyMessage { kind: Some(proxy_message::Kind::Hello(hello)) }) = first else {
            return Err(Status::invalid_argument("the first message is a hello"));
        };
        let (session, mut outbox) = self.live.connect(read_hello(hello, &self.identity)?);
        loop {
            let answer = tokio::select! {
                message = messages.message() => match message? {
                    Some(v1::ProxyMessage { kind: Some(kind) }) => self.on_message(kind, &session).await?,
                    // A kind that a later release added.
                    Some(v1::ProxyMessage { kind: None }) => None,
                    None => return Ok(()),
                },
                message = outbox.recv() => match message {
                    Some(message) => Some(message),
                    None => return Err(Status::aborted("the proxy opened another control stream")),
                },
                () = answers.closed() => return Ok(()),
                () = stop(&mut self.stopped) => return Err(Status::unavailable("the control plane stops")),
            };
            if let Some(answer) = answer {
                answers
                    .send_timeout(Ok(answer), STALLED)
                    .await
                    .map_err(|_stalled| Status::deadline_exceeded("nothing was read for 30 seconds"))?;
            }
        }
    }

    async fn on_message(
        &mut self,
        kind: proxy_message::Kind,
        session: &Session,
    ) -> Result<Option<v1::ControlMessage>, Status> {
        match kind {
            proxy_message::Kind::Hello(_) => Err(Status::invalid_argument("a second hello")),
            proxy_message::Kind::Workload(state) => self.on_workload(state, session).await.map(Some),
            report => {
                session.report(report);
                Ok(None)
            }
        }
    }

    async fn on_workload(&mut self, state: v1::WorkloadState, session: &Session) -> Result<v1::ControlMessage, Status> {
        let endpoint = match read_workload(state, &self.identity) {
            Ok(endpoint) => endpoint,
            Err(reason) => return Ok(refused("HMS-2311", reason)),
        };
        let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
        if let Some(former) = self.workload.take_if(|former| *former != key) {
            self.registry.leave(self.lease, &former).await.map_err(|error| unavailable(&error))?;
        }
        let (service, draining) = (endpoint.service.clone(), endpoint.health == Health::Draining);
        match self.registry.attach(self.lease, &self.identity, self.peer, endpoint).await {
            Ok(revision) => {
                session.serves(service);
                self.workload = Some(key);
                self.draining = draining;
                if draining && tokio::time::timeout(PROPAGATED, self.live.all_reached(revision.0)).await.is_err() {
                    tracing::debug!("not every proxy has heard that a workload leaves");
                }
                let registered = v1::Registered { revision: revision.0 };
                Ok(v1::ControlMessage { kind: Some(control_message::Kind::Registered(registered)) })
            }
            Err(RegistryError::Refused(finding)) => {
                tracing::warn!(target: "audit", identity = %self.identity, %finding, "refused a registration");
                let reason = if finding.why.is_empty() {
                    finding.message
                } else {
                    format!("{}: {}", finding.message, finding.why)
                };
                Ok(refused(&finding.code.to_string(), reason))
            }
            Err(error) => Err(unavailable(&error)),
        }
    }
}

fn refused(code: &str, reason: String) -> v1::ControlMessage {
    let refused = v1::Refused { code: code.to_owned(), reason };
    v1::ControlMessage { kind: Some(control_message::Kind::Refused(refused)) }
}

/// The proxy comes back and says it again.
fn unavailable(error: &RegistryError) -> Status {
    Status::unavailable(error.to_string())
}

fn read_hello(hello: v1::Hello, identity: &SpiffeId) -> Result<ProxyHello, Status> {
    let word = |text: &str, most: usize| text.len() <= most && !text.chars().any(char::is_control);
    if hello.proxy_id.is_empty() || !word(&hello.proxy_id, 128) || !word(&hello.release, 64) {
        return Err(Status::invalid_argument("a hello has a proxy id of 1 to 128 and a release of up to 64 bytes"));
    }
    let role = match hello.role.as_str() {
        "sidecar" => Role::Sidecar,
        "gateway" => Role::Gateway,
        "egress" => Role::Egress,
        other => return Err(Status::invalid_argument(format!("`{}` is no role", other.escape_debug()))),
    };
    if role != role_of(identity) {
        tracing::warn!(target: "audit", %identity, %role, "refused a proxy in a role that is not its own");
        return Err(Status::permission_denied(format!("HMS-4216: {identity} is no {role}")));
    }
    Ok(ProxyHello {
        id: hello.proxy_id,
        role,
        release: hello.release,
        level: hello.level,
        admin: hello.admin_address.parse().ok(),
        process: hello.process_id,
        identity: identity.clone(),
    })
}

fn read_workload(state: v1::WorkloadState, identity: &SpiffeId) -> Result<Endpoint, String> {
    let name = state.service.ok_or("a workload serves a service")?;
    let service = ServiceName::in_namespace(&name.namespace, &name.name).map_err(|error| error.to_string())?;
    let ip: IpAddr = state.ip.parse().map_err(|_no_address| "a workload has an IP address".to_owned())?;
    let port = |value: u32| u16::try_from(value).map_err(|_too_large| format!("{value} is no port"));
    let health = match v1::Health::try_from(state.health) {
        Ok(v1::Health::Healthy) => Health::Healthy,
        Ok(v1::Health::Draining) => Health::Draining,
        // What a later release may mean by another number is not healthy to us.
        Ok(v1::Health::Unhealthy) | Err(_) => Health::Unhealthy,
    };
    let version = if state.version.is_empty() { "latest".to_owned() } else { state.version };
    Ok(Endpoint {
        service,
        id: state.id,
        address: Address { ip, port: port(state.port)? },
        app_port: port(state.app_port)?,
        version,
        zone: state.zone,
        health,
        source: Registrar::Sidecar,
        transport: Transport::Mesh(identity.clone()),
    })
}
