//! What the registry holds in memory, as it follows from the store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hms_model::finding::Finding;
use hms_model::mesh::Inputs;
use hms_model::names::ServiceName;
use hms_model::resource::{Kind, Resource, ResourceKey};
use hms_model::workload::{Endpoint, Health, Registrar};

use super::history::{self, Head};
use super::numbers::{self, Numbers};
use crate::store::{Batch, Keyspace, Revision, Store, StoreError};

/// The word that begins the key of a stopped service.
const STOPPED: &str = "stopped";

/// Everything stored, decoded.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) config: Arc<Head>,
    pub(super) live: Revision,
    pub(super) endpoints: BTreeMap<ResourceKey, Arc<Endpoint>>,
    pub(super) stopped: BTreeSet<ServiceName>,
    pub(super) numbers: Numbers,
    /// Endpoints that could not be read; the rest goes on without them.
    unreadable: BTreeMap<String, String>,
}

/// A copy of the state from which a view is made.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The revision of the configuration.
    pub(crate) config: Revision,
    /// The revision of the endpoints.
    pub(crate) live: Revision,
    /// What the mesh is put together from, with the endpoints of stopped services unhealthy.
    pub(crate) inputs: Inputs,
    /// Services that somebody stopped.
    pub(crate) stopped: BTreeSet<ServiceName>,
    /// What people should know beside what assembling finds.
    pub(crate) findings: Vec<Finding>,
}

/// The key of the mark that a service is stopped.
pub(super) fn stopped_key(service: &ServiceName) -> String {
    format!("{STOPPED}/{}/{}", service.namespace(), service.name())
}

fn stopped_service(key: &str) -> Option<ServiceName> {
    let (namespace, name) = key.strip_prefix(STOPPED)?.strip_prefix('/')?.split_once('/')?;
    ServiceName::in_namespace(namespace, name).ok()
}

impl State {
    /// Everything there is in the store.
    pub(super) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let config = Arc::new(history::load(store, &Head::default()).await?);
        let mut state = Self { config, ..Self::default() };
        state.relist(store).await?;
        Ok(state)
    }

    /// Reads the live keyspace anew and replaces what is held of it.
    pub(super) async fn relist(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let listing = store.list(Keyspace::Live, "").await?;
        let fresh: BTreeMap<String, Bytes> =
            listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        self.endpoints.clear();
        self.stopped.clear();
        self.numbers = Numbers::default();
        self.unreadable.clear();
        for (key, value) in fresh {
            self.put(&key, &value);
        }
        self.live = listing.revision;
        Ok(())
    }

    /// Takes over one commit of the live keyspace.
    pub(super) fn apply(&mut self, batch: Batch) {
        for change in batch.changes {
            match change.value {
                Some(value) => self.put(&change.key, &value),
                None => self.remove(&change.key),
            }
        }
        self.live = batch.revision;
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        self.unreadable.remove(key);
        if let Some(service) = stopped_service(key) {
            self.stopped.insert(service);
            return;
        }
        if let Some(number) = numbers::of_key(key) {
            if let Err(why) = self.numbers.put(number, value) {
                self.unreadable.insert(key.to_owned(), why);
            }
            return;
        }
        let Some(name) = ResourceKey::parse(key).filter(|name| name.kind == Kind::Endpoint) else {
            self.unreadable.insert(key.to_owned(), "it is no endpoint".to_owned());
            return;
        };
        match hms_wire::decode(value) {
            Ok(Resource::Endpoint(endpoint)) => drop(self.endpoints.insert(name, Arc::new(endpoint))),
            Ok(_) => drop(self.unreadable.insert(key.to_owned(), "it holds no endpoint".to_owned())),
            Err(error) => drop(self.unreadable.insert(key.to_owned(), error.to_string())),
        }
    }

    fn remove(&mut self, key: &str) {
        self.unreadable.remove(key);
        if let Some(service) = stopped_service(key) {
            self.stopped.remove(&service);
        } else if let Some(name) = ResourceKey::parse(key) {
            self.endpoints.remove(&name);
        }
    }

    /// Whether the live keyspace has this key.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.unreadable.contains_key(key)
            || numbers::of_key(key).is_some_and(|number| self.numbers.holds(number))
            || stopped_service(key).is_some_and(|service| self.stopped.contains(&service))
            || ResourceKey::parse(key).is_some_and(|name| self.endpoints.contains_key(&name))
    }

    /// Endpoints that live by a control stream.
    pub(super) fn leased(&self) -> Vec<ResourceKey> {
        let leased = self.endpoints.iter().filter(|(_, endpoint)| endpoint.source == Registrar::Sidecar);
        leased.map(|(key, _)| key.clone()).collect()
    }

    /// An endpoint with what lies over it.
    fn as_shown(&self, endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
        if endpoint.health == Health::Healthy && self.stopped.contains(&endpoint.service) {
            return Arc::new(Endpoint { health: Health::Unhealthy, ..Endpoint::clone(endpoint) });
        }
        Arc::clone(endpoint)
    }

    /// A copy with everything that lies over the stored values.
    pub(super) fn gather(&self) -> Gathered {
        let endpoints = self.endpoints.iter().map(|(key, endpoint)| (key.clone(), self.as_shown(endpoint)));
        let unreadable = self.unreadable.iter().map(|(key, reason)| {
            Finding::error(2324, format!("the stored entry `{key}` is left out")).because(reason.clone())
        });
        Gathered {
            config: self.config.revision,
            live: self.live,
            inputs: Inputs {
                resources: Arc::clone(&self.config.resources),
                endpoints: endpoints.collect(),
                addresses: Arc::clone(self.numbers.addresses()),
                unlisted: None,
            },
            stopped: self.stopped.clone(),
            findings: unreadable.collect(),
        }
    }
}
