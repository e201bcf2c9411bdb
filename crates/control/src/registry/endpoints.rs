//! Registering workloads, and letting them go.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::resource::{Resource, ResourceKey};
use hms_model::spiffe::SpiffeId;
use hms_model::workload::{Endpoint, Health, Registrar, Transport};
use tokio::time::Instant;

use super::leases::LeaseId;
use super::state::stopped_key;
use super::{Registry, RegistryError, admission};
use crate::store::{COMMIT_LIMIT, Keyspace, Revision, Write};

/// What somebody wants a service to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Desired {
    /// Its application is to run.
    Started,
    /// Its application was ended on purpose: whatever its endpoints say, they get no work.
    Stopped,
}

/// From where a workload's control stream comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Over the local socket.
    Local,
    /// From this address.
    Remote(IpAddr),
}

impl Registry {
    /// A new lease, for one control stream.
    pub fn new_lease(&self) -> LeaseId {
        LeaseId(self.0.next_lease.fetch_add(1, Ordering::Relaxed))
    }

    /// Registers an endpoint on somebody's word (the REST API). Its service is declared if it was not. When it answers,
    /// [`view`](Self::view) shows it.
    pub async fn register(&self, actor: &str, endpoint: Endpoint) -> Result<Revision, RegistryError> {
        admission::shape(&endpoint).map_err(RegistryError::Refused)?;
        admission::address(&endpoint.address, &self.0.reserved.lock()).map_err(RegistryError::Refused)?;
        let identity = mesh_identity(&endpoint).cloned();
        self.bind(actor, &endpoint.service, identity.as_ref()).await?;
        let revision = {
            let _one_at_a_time = self.0.registering.lock().await;
            let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
            if self.0.state.lock().endpoints.get(&key).is_some_and(|old| old.source == Registrar::Sidecar) {
                let message = format!("`{}` of `{}` is registered by its own sidecar", endpoint.id, endpoint.service);
                return Err(RegistryError::Refused(Box::new(Finding::error(2313, message))));
            }
            self.put(endpoint, Vec::new()).await?
        };
        self.shown_live(revision).await
    }

    /// Registers the workload behind a control stream, or changes what is known of it. The stream's lease holds it from now
    /// on, also if another stream held it before: that one belonged to the proxy's former process.
    pub async fn attach(
        &self,
        lease: LeaseId,
        identity: &SpiffeId,
        peer: Peer,
        endpoint: Endpoint,
    ) -> Result<Revision, RegistryError> {
        let endpoint =
            Endpoint { source: Registrar::Sidecar, transport: Transport::Mesh(identity.clone()), ..endpoint };
        admission::shape(&endpoint).map_err(RegistryError::Refused)?;
        admission::address(&endpoint.address, &self.0.reserved.lock()).map_err(RegistryError::Refused)?;
        admission::origin(&endpoint.address, &peer).map_err(RegistryError::Refused)?;
        self.bind(identity.as_str(), &endpoint.service, Some(identity)).await?;
        let _one_at_a_time = self.0.registering.lock().await;
        let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
        let (resumed, others_own) = {
            let state = self.0.state.lock();
            let old = state.endpoints.get(&key);
            let resumed = old.is_none_or(|old| old.health != Health::Healthy) && endpoint.health == Health::Healthy;
            let others_own = old.and_then(|old| mesh_identity(old)).is_some_and(|owner| owner != identity);
            (resumed && state.stopped.contains(&endpoint.service), others_own)
        };
        if others_own {
            let message = format!("`{}` of `{}` is another workload's", endpoint.id, endpoint.service);
            return Err(RegistryError::Refused(Box::new(Finding::error(4106, message))));
        }
        // An application that came back is not stopped any more, whoever started it.
        let also = if resumed { vec![Write::Delete(stopped_key(&endpoint.service))] } else { Vec::new() };
        let revision = self.put(endpoint, also).await?;
        let mut leases = self.0.leases.lock();
        leases.hold(key, lease);
        if leases.is_holding() {
            // The finding about the many that went is to disappear with the last that comes back.
            self.0.changed.notify_one();
        }
        Ok(revision)
    }

    /// A control stream ended without a word: its workload has a grace to come back.
    pub fn detach(&self, lease: LeaseId, key: &ResourceKey) {
        self.0.leases.lock().lapse(key, lease, Instant::now());
        self.0.lapsed.notify_one();
    }

    /// A control stream ended after its workload had said goodbye, or has another one now: it leaves at once.
    pub async fn leave(&self, lease: LeaseId, key: &ResourceKey) -> Result<(), RegistryError> {
        let _one_at_a_time = self.0.registering.lock().await;
        if self.0.leases.lock().is_held_by(key, lease) {
            self.write(vec![Write::Delete(key.to_string())]).await?;
            self.0.leases.lock().forget(key);
        }
        Ok(())
    }

    /// Removes an endpoint, whoever registered it. When it answers, [`view`](Self::view) shows it no longer.
    pub async fn remove(&self, actor: &str, service: &ServiceName, id: &str) -> Result<Revision, RegistryError> {
        let key = ResourceKey::endpoint(service, id);
        let revision = {
            let _one_at_a_time = self.0.registering.lock().await;
            if !self.0.state.lock().endpoints.contains_key(&key) {
                return Err(RegistryError::NotFound(format!("endpoint `{id}` of `{service}`")));
            }
            self.0.leases.lock().forget(&key);
            tracing::info!(target: "audit", %actor, %key, "removed an endpoint");
            self.write(vec![Write::Delete(key.to_string())]).await?
        };
        self.shown_live(revision).await
    }

    /// Changes an endpoint's health.
    pub async fn set_health(&self, service: &ServiceName, id: &str, health: Health) -> Result<Revision, RegistryError> {
        let key = ResourceKey::endpoint(service, id);
        let revision = {
            let _one_at_a_time = self.0.registering.lock().await;
            let found = self.0.state.lock().endpoints.get(&key).cloned();
            let endpoint = found.ok_or_else(|| RegistryError::NotFound(format!("endpoint `{id}` of `{service}`")))?;
            self.put(Endpoint { health, ..Endpoint::clone(&endpoint) }, Vec::new()).await?
        };
        self.shown_live(revision).await
    }

    /// Says that a service was stopped on purpose, or is to run again.
    pub async fn set_desired(&self, service: &ServiceName, desired: Desired) -> Result<Revision, RegistryError> {
        if !self.view().mesh.services.contains_key(service) {
            return Err(RegistryError::NotFound(format!("service `{service}`")));
        }
        let key = stopped_key(service);
        let revision = {
            let _one_at_a_time = self.0.registering.lock().await;
            self.write(vec![match desired {
                Desired::Stopped => Write::Put(key, bytes::Bytes::new()),
                Desired::Started => Write::Delete(key),
            }])
            .await?
        };
        self.shown_live(revision).await
    }

    /// Writes an endpoint if it differs from what is stored. To be called with `registering` locked.
    async fn put(&self, endpoint: Endpoint, mut also: Vec<Write>) -> Result<Revision, RegistryError> {
        let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
        {
            let state = self.0.state.lock();
            admission::quota(&endpoint, &state.endpoints).map_err(RegistryError::Refused)?;
            if state.endpoints.get(&key).is_some_and(|old| **old == endpoint) && also.is_empty() {
                return Ok(state.live);
            }
        }
        let value = hms_wire::encode(&Resource::Endpoint(endpoint));
        also.push(Write::Put(key.to_string(), value.into()));
        self.write(also).await
    }

    /// Writes, and waits until the registry itself has it: whoever comes next compares with what is stored.
    async fn write(&self, mut writes: Vec<Write>) -> Result<Revision, RegistryError> {
        {
            // Removing what is not there makes no commit, and then there is nothing to wait for.
            let state = self.0.state.lock();
            writes.retain(|write| matches!(write, Write::Put(..)) || state.holds(write.key()));
            if writes.is_empty() {
                return Ok(state.live);
            }
        }
        let revision = self.0.store.commit(Keyspace::Live, Vec::new(), writes).await?;
        self.taken_over(revision, |applied| applied.1).await?;
        Ok(revision)
    }
}

fn mesh_identity(endpoint: &Endpoint) -> Option<&SpiffeId> {
    match &endpoint.transport {
        Transport::Mesh(identity) => Some(identity),
        Transport::Plain => None,
    }
}

/// Pause before a removal that failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Lets workloads go whose lease ended, for ever.
pub(super) async fn expire(registry: Registry) {
    loop {
        let next = registry.0.leases.lock().next();
        let lapsed = registry.0.lapsed.notified();
        match next {
            None => lapsed.await,
            Some(next) => {
                tokio::select! {
                    () = lapsed => continue,
                    () = tokio::time::sleep_until(next) => {}
                }
                if let Err(error) = registry.expire_now().await {
                    tracing::error!(%error, "cannot remove workloads that went away");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

impl Registry {
    async fn expire_now(&self) -> Result<(), RegistryError> {
        let _one_at_a_time = self.0.registering.lock().await;
        let due = self.0.leases.lock().due(Instant::now());
        if due.is_empty() {
            // The guard against a mass lapse may have spoken; people should see it.
            self.0.changed.notify_one();
        }
        for keys in due.chunks(COMMIT_LIMIT) {
            for key in keys {
                tracing::info!(%key, "the workload went away");
            }
            self.write(keys.iter().map(|key| Write::Delete(key.to_string())).collect()).await?;
            let mut leases = self.0.leases.lock();
            for key in keys {
                leases.forget(key);
            }
        }
        Ok(())
    }
}
