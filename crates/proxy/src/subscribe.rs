//! Configuration as the control plane sends it: received, decoded, built, swapped in, acknowledged.
//!
//! Without a control plane the tables stay as they are, from memory or, after a restart, from the last-good file. Nothing is
//! evicted while the control plane is away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hms_model::http_route::HttpRoute;
use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::policy::authorization::Source;
use hms_model::policy::egress::Through;
use hms_model::resource::{Kind, Resource, ResourceKey};
use hms_model::snapshot::{Scope, Snapshot};
use hms_traffic::backoff::Backoff;
use hms_traffic::dice::Dice;
use hms_wire::delta::client::{Client, Update};
use hms_wire::proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use hms_wire::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Locality, Node};
use hms_wire::{MESSAGE_BYTES, WireError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::control_channel;
use crate::egress;
use crate::last_good::{self, Held};
use crate::worker::Shared;

/// Requests on their way to the control plane.
const QUEUE: usize = 64;

/// The subscription of one proxy.
#[derive(Debug)]
pub struct Subscription {
    shared: Arc<Shared>,
    client: Client,
    held: Held,
    wanted: mpsc::Receiver<ServiceName>,
    dice: Dice,
    /// Updates applied so far; a stream that brought one was a good one.
    applied: u64,
    /// Becomes true with the first configuration, from wherever.
    configured: watch::Sender<bool>,
}

impl Subscription {
    /// Begins with what the last-good file holds.
    pub fn new(
        shared: Arc<Shared>,
        wanted: mpsc::Receiver<ServiceName>,
        dice: Dice,
        configured: watch::Sender<bool>,
    ) -> Self {
        let dir = &shared.settings.runtime_dir;
        let held = shared.holder.current().and_then(|own| last_good::load_resources(dir, own.svid.key()));
        let held = held.unwrap_or_default();
        let known = held.iter().map(|(name, (version, _))| (name.clone(), version.clone())).collect();
        let mut client = Client::new(node(&shared), known);
        let own = Scope::Service(shared.settings.service.clone());
        let role = (shared.settings.role == Role::Gateway).then_some(Scope::Gateway);
        // The mesh, our own role and what was in use before are always within the bound.
        let _surplus = client.subscribe([Scope::Mesh, own].into_iter().chain(role)).is_empty();
        let used = held.values().filter_map(|(_, resource)| match resource {
            Resource::Service(service) => Some(Scope::Service(service.name.clone())),
            _ => None,
        });
        if shared.settings.role != Role::Gateway {
            let _surplus =
                client.subscribe(used.chain(shared.settings.upstreams.keys().cloned().map(Scope::Service))).is_empty();
        }
        let mut subscription = Self { shared, client, held, wanted, dice, applied: 0, configured };
        if !subscription.held.is_empty() {
            subscription.swap();
        }
        subscription
    }

    /// Stays subscribed until the process drains.
    pub async fn run(mut self) {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
        let mut failures = 0;
        loop {
            if self.shared.holder.watch().wait_for(|generation| *generation > 0).await.is_err() {
                return;
            }
            let before = self.applied;
            if let Err(error) = self.stream().await {
                failures += 1;
                tracing::debug!(%error, failures, "not subscribed");
            }
            if self.applied != before {
                failures = 0;
            }
            self.client.disconnected();
            if self.shared.drain.is_draining() || self.shared.drain.is_handed_over() {
                return;
            }
            let pause = backoff.full(failures.max(1), &mut self.dice).max(Duration::from_millis(20));
            tokio::time::sleep(pause).await;
        }
    }

    /// One stream, from its first request until it breaks.
    async fn stream(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let channel = control_channel::open(&self.shared).await?;
        let mut service = AggregatedDiscoveryServiceClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES)
            .max_encoding_message_size(MESSAGE_BYTES);
        let (requests, outgoing) = mpsc::channel(QUEUE);
        requests.send(self.client.connected()).await?;
        let mut responses = service.delta_aggregated_resources(ReceiverStream::new(outgoing)).await?.into_inner();
        self.exchange(&requests, &mut responses).await
    }

    async fn exchange(
        &mut self,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut certificates = self.shared.holder.watch();
        loop {
            tokio::select! {
                response = responses.message() => {
                    let Some(response) = response? else { return Ok(()) };
                    let update = self.client.on_response(response)?;
                    let nonce = update.nonce.clone();
                    self.apply(update);
                    if let Some(acknowledgement) = self.client.acknowledge(&nonce, Vec::new()) {
                        requests.send(acknowledgement).await?;
                    }
                }
                // The file is authenticated with the certificate's key, so a new one needs a new file.
                Ok(()) = certificates.changed() => self.keep(),
                Some(name) = self.wanted.recv() => {
                    let surplus = self.client.subscribe([Scope::Service(name)]);
                    if !surplus.is_empty() {
                        tracing::warn!(?surplus, "too many services in use; not subscribed");
                    }
                }
                () = self.shared.drain.begun() => return Ok(()),
                () = self.shared.drain.handed_over() => return Ok(()),
            }
            if let Some(request) = self.client.next_request() {
                requests.send(request).await?;
            }
        }
    }

    /// Everything of an update at once: what could be read is taken, the rest was refused by name.
    fn apply(&mut self, update: Update) {
        self.applied += 1;
        for upsert in update.upserts {
            match upsert.resource {
                Ok(resource) => {
                    self.held.insert(upsert.name, (upsert.version, resource));
                }
                Err(error) => {
                    tracing::warn!(name = %upsert.name, %error, "resource refused");
                    // What needs a newer proxy may forbid what the old form allowed: without it the target is closed.
                    if matches!(error, WireError::Level { .. }) {
                        self.held.remove(&upsert.name);
                    }
                }
            }
        }
        for name in &update.removed {
            self.held.remove(name);
        }
        self.swap();
        self.keep();
    }

    /// Keeps what is held for a start without a control plane.
    fn keep(&self) {
        let Some(own) = self.shared.holder.current() else { return };
        let service = ResourceKey::of(Kind::Service, &self.shared.settings.service).to_string();
        if self.shared.settings.role == Role::Sidecar && !self.held.contains_key(&service) {
            // A control plane that lost its store knows nothing of us; what it knew before is the better start.
            return;
        }
        if let Err(error) = last_good::save_resources(&self.shared.settings.runtime_dir, &self.held, own.svid.key()) {
            tracing::warn!(%error, "the last good configuration could not be kept");
        }
    }

    fn swap(&mut self) {
        let resources: Vec<&Resource> = self.held.values().map(|(_, resource)| resource).collect();
        let snapshot = Snapshot::from_resources(&resources);
        if let Some(bundle) = &snapshot.trust
            && let Err(error) = self.shared.holder.trust(bundle)
        {
            tracing::warn!(%error, "the new roots cannot be used");
        }
        self.subscribe_to_sources(&snapshot);
        self.shared.current.apply(snapshot, self.shared.clock.now(), &mut self.dice);
        self.configured.send_replace(true);
    }

    /// An allow rule speaks of other services' identities, so these services are needed too.
    fn subscribe_to_sources(&mut self, snapshot: &Snapshot) {
        if snapshot.egress.through == Through::Gateway
            && let Some(gateway) = egress::gateway::name()
        {
            // Whoever calls out first should not wait for it.
            let _surplus = self.client.subscribe([Scope::Service(gateway.clone())]).is_empty();
        }
        let shares = snapshot.services.values().flat_map(|state| &state.service.split);
        let routes = snapshot.services.values().flat_map(|state| &state.service.http);
        let routes = routes.chain(snapshot.gateway.iter().flat_map(|gateway| &gateway.routes));
        let led = routes.flat_map(HttpRoute::services);
        let shared: BTreeSet<Scope> =
            shares.map(|share| &share.service).chain(led).map(|name| Scope::Service(name.clone())).collect();
        // Before the first call goes there.
        let _surplus = self.client.subscribe(shared).is_empty();
        let Some(own) = snapshot.services.get(&self.shared.settings.service) else { return };
        let sources: BTreeSet<Scope> = own
            .service
            .authorization
            .allow
            .iter()
            .filter_map(|rule| match &rule.source {
                Source::Service(name) => Some(Scope::Service(name.clone())),
                Source::Any | Source::Gateway => None,
            })
            .collect();
        if !self.client.subscribe(sources).is_empty() {
            tracing::warn!("too many services named in allow rules; those beyond the bound are denied");
        }
    }
}

fn node(shared: &Shared) -> Node {
    let settings = &shared.settings;
    Node {
        // The same as in the control stream's hello, by which the control plane knows that both streams are one proxy's.
        id: format!("{}/{}", settings.service, settings.workload_id),
        cluster: settings.service.to_string(),
        metadata: None,
        locality: Some(Locality { zone: settings.zone.clone(), ..Locality::default() }),
        user_agent_name: format!("hms-proxy/{}", env!("CARGO_PKG_VERSION")),
    }
}
