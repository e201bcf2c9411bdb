//! The control plane's end of one stream.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hms_model::resource::ResourceKey;
use hms_model::snapshot::Scope;
use prost::Message as _;

use super::{
    HELD, ProtocolError, REASON_BYTES, REFUSED_TYPE_URL, RESPONSE_BYTES, SUBSCRIPTIONS, Version, bounded, shorten,
};
use crate::TYPE_URL;
use crate::proto::envoy::service::discovery::v3 as discovery;
use crate::proto::google::rpc;
use crate::proto::hms::v1::{RefusedResource, RefusedResources};

/// What one resource costs in a response beside its bytes and its name, generously.
const OVERHEAD: usize = 192;

/// What a proxy is to hold: everything of the scopes it subscribed to, and nothing else.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    /// The resources by key, which is also the order in which they are sent.
    pub resources: BTreeMap<ResourceKey, Encoded>,
    /// Subscribed scopes that lead nowhere.
    pub missing: BTreeSet<Scope>,
}

/// A resource as it is sent; encoded once, shared by all streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The hash of the bytes; never empty.
    pub version: Version,
    /// What [`encode`](crate::encode) made.
    pub bytes: Bytes,
}

/// What a request said.
#[derive(Debug, Default)]
pub struct Events {
    /// Who the proxy is; in the first request of a stream only.
    pub node: Option<discovery::Node>,
    /// Scopes that are new.
    pub subscribed: Vec<Scope>,
    /// Scopes that are no longer wanted.
    pub unsubscribed: Vec<Scope>,
    /// What became of the response that was under way.
    pub acknowledged: Option<Acknowledged>,
}

/// What became of a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Acknowledged {
    /// The revision the proxy has reached with it; `None` if the response was only a part.
    pub revision: Option<u64>,
    /// What it refused. These are not sent again on this stream until they change.
    pub refused: Vec<RefusedResource>,
}

/// What one stream's proxy holds and wants.
///
/// The owner feeds every request to [`on_request`](Self::on_request), and after each, and after every change of what is
/// desired, sends what [`respond`](Self::respond) returns.
#[derive(Debug, Default)]
pub struct Server {
    node: Option<String>,
    subscribed: BTreeSet<Scope>,
    held: BTreeMap<ResourceKey, Version>,
    refused: BTreeMap<ResourceKey, Refusal>,
    /// Names to be answered as removed, once: subscriptions and holdings that are no names of ours.
    strangers: BTreeSet<String>,
    /// Scopes that were already answered as leading nowhere.
    answered: BTreeSet<Scope>,
    outstanding: Option<Outstanding>,
    responses: u64,
    revision: Option<u64>,
}

/// A version that the proxy would not take.
#[derive(Debug)]
struct Refusal {
    version: Version,
    report: RefusedResource,
}

/// The response under way.
#[derive(Debug)]
struct Outstanding {
    nonce: String,
    upserts: BTreeMap<ResourceKey, Version>,
    removed: Vec<ResourceKey>,
    revision: Option<u64>,
}

/// What a response is made of, counted against the bounds.
#[derive(Debug, Default)]
struct Draft {
    resources: Vec<discovery::Resource>,
    removed: BTreeSet<String>,
    bytes: usize,
    cut: bool,
}

impl Draft {
    /// Whether there is room for so many bytes more. The first thing always has room; after one that has none, nothing has,
    /// so that the order holds over several responses.
    fn takes(&mut self, bytes: usize) -> bool {
        let count = self.resources.len() + self.removed.len();
        let fits = !self.cut && (count == 0 || (count < HELD && self.bytes + bytes + OVERHEAD <= RESPONSE_BYTES));
        if fits {
            self.bytes += bytes + OVERHEAD;
        } else {
            self.cut = true;
        }
        fits
    }
}

impl Server {
    /// The state of a new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// The scopes that are subscribed.
    pub fn subscribed(&self) -> &BTreeSet<Scope> {
        &self.subscribed
    }

    /// The newest revision of which the proxy has everything it would take.
    pub fn revision(&self) -> Option<u64> {
        self.revision
    }

    /// Whether a response waits for its acknowledgement. A proxy that keeps one waiting too long is stalled; its owner closes
    /// the stream.
    pub fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// What the proxy refuses at present, by key.
    pub fn refused(&self) -> impl Iterator<Item = &RefusedResource> {
        self.refused.values().map(|refusal| &refusal.report)
    }

    /// The version the proxy acknowledged.
    pub fn held(&self, key: &ResourceKey) -> Option<&Version> {
        self.held.get(key)
    }

    /// Takes a request. On an error the stream is to be closed.
    pub fn on_request(&mut self, request: discovery::DeltaDiscoveryRequest) -> Result<Events, ProtocolError> {
        let discovery::DeltaDiscoveryRequest {
            node,
            type_url,
            resource_names_subscribe,
            resource_names_unsubscribe,
            initial_resource_versions,
            response_nonce,
            error_detail,
        } = request;
        if type_url != TYPE_URL {
            return Err(ProtocolError::TypeUrl);
        }
        let mut events = Events { node: self.identify(node, &initial_resource_versions)?, ..Events::default() };
        if events.node.is_some() {
            self.take_initial(initial_resource_versions)?;
        }
        if response_nonce.is_empty() {
            if error_detail.is_some() {
                return Err(ProtocolError::RefusalOfNothing);
            }
        } else {
            events.acknowledged = self.on_acknowledgement(&response_nonce, error_detail)?;
        }
        events.unsubscribed = self.unsubscribe(&resource_names_unsubscribe)?;
        events.subscribed = self.subscribe(resource_names_subscribe)?;
        Ok(events)
    }

    /// The next response: the smallest change from what the proxy holds to what it is to hold at `revision`, in the order of
    /// kinds. `None` while a response waits for its acknowledgement, and when there is nothing to say; in the latter case the
    /// proxy has reached `revision`. `desired` must have been computed for the present subscriptions.
    pub fn respond(&mut self, desired: &Desired, revision: u64) -> Option<discovery::DeltaDiscoveryResponse> {
        if self.node.is_none() || self.outstanding.is_some() {
            return None;
        }
        let mut draft = Draft::default();
        let upserts = self.draft_upserts(desired, &mut draft);
        let removed = self.draft_removed(desired, &mut draft);
        self.draft_answers(desired, &mut draft);
        let Draft { resources, removed: removed_resources, cut, .. } = draft;
        if resources.is_empty() && removed_resources.is_empty() {
            self.revision = Some(revision);
            return None;
        }
        self.responses += 1;
        let nonce = self.responses.to_string();
        let reached = (!cut).then_some(revision);
        self.outstanding = Some(Outstanding { nonce: nonce.clone(), upserts, removed, revision: reached });
        Some(discovery::DeltaDiscoveryResponse {
            system_version_info: revision.to_string(),
            resources,
            type_url: TYPE_URL.to_owned(),
            nonce,
            removed_resources: removed_resources.into_iter().collect(),
        })
    }

    /// Checks who speaks; returns the node the first time.
    fn identify(
        &mut self,
        node: Option<discovery::Node>,
        initial: &BTreeMap<String, String>,
    ) -> Result<Option<discovery::Node>, ProtocolError> {
        match (&self.node, node) {
            (None, Some(node)) if !node.id.is_empty() => {
                bounded(&node.id)?;
                self.node = Some(node.id.clone());
                Ok(Some(node))
            }
            (None, _) => Err(ProtocolError::NoNode),
            (Some(_), _) if !initial.is_empty() => Err(ProtocolError::LateVersions),
            (Some(own), Some(node)) if *own != node.id => Err(ProtocolError::NodeChanged),
            (Some(_), _) => Ok(None),
        }
    }

    fn take_initial(&mut self, initial: BTreeMap<String, String>) -> Result<(), ProtocolError> {
        if initial.len() > HELD {
            return Err(ProtocolError::TooMany(HELD, "initial versions"));
        }
        for (name, version) in initial {
            bounded(&name)?;
            bounded(&version)?;
            match ResourceKey::parse(&name) {
                // The unknown version equals no real one, so the resource is sent again or removed, whichever is due.
                Some(key) => drop(self.held.insert(key, version.into())),
                None => drop(self.strangers.insert(name)),
            }
        }
        Ok(())
    }

    fn on_acknowledgement(
        &mut self,
        nonce: &str,
        error: Option<rpc::Status>,
    ) -> Result<Option<Acknowledged>, ProtocolError> {
        let Some(outstanding) = self.outstanding.take_if(|outstanding| outstanding.nonce == nonce) else {
            // Said a second time it changes nothing; never sent it is a lie.
            let sent = nonce.parse::<u64>().is_ok_and(|number| (1..=self.responses).contains(&number));
            return if sent { Ok(None) } else { Err(ProtocolError::NeverSent) };
        };
        let Outstanding { upserts, removed, revision, .. } = outstanding;
        let mut refusals = match error {
            None => BTreeMap::new(),
            Some(status) => refusals(status, &upserts)?,
        };
        let refused = refusals.values().cloned().collect();
        for (key, version) in upserts {
            if let Some(report) = refusals.remove(&key) {
                self.held.remove(&key);
                self.refused.insert(key, Refusal { version, report });
            } else {
                self.refused.remove(&key);
                self.held.insert(key, version);
            }
        }
        for key in removed {
            self.held.remove(&key);
            self.refused.remove(&key);
        }
        self.revision = revision.or(self.revision);
        Ok(Some(Acknowledged { revision, refused }))
    }

    fn subscribe(&mut self, names: Vec<String>) -> Result<Vec<Scope>, ProtocolError> {
        let too_many = ProtocolError::TooMany(SUBSCRIPTIONS, "subscriptions");
        if names.len() > SUBSCRIPTIONS {
            return Err(too_many);
        }
        let mut new = Vec::new();
        for name in names {
            bounded(&name)?;
            let Some(scope) = Scope::parse(&name) else {
                self.take_stranger(name)?;
                continue;
            };
            // Asked again, it is answered again.
            self.answered.remove(&scope);
            if self.subscribed.insert(scope.clone()) {
                new.push(scope);
            }
        }
        if self.subscribed.len() > SUBSCRIPTIONS { Err(too_many) } else { Ok(new) }
    }

    /// A name from a future that this release does not know leads nowhere. The name of a resource is a mistake: answering that
    /// as gone would take away what the proxy may rightly hold.
    fn take_stranger(&mut self, name: String) -> Result<(), ProtocolError> {
        if ResourceKey::parse(&name).is_some() {
            return Err(ProtocolError::NotAScope);
        }
        if self.strangers.len() >= 2 * HELD {
            return Err(ProtocolError::TooMany(2 * HELD, "unknown names"));
        }
        self.strangers.insert(name);
        Ok(())
    }

    /// Unsubscribing from what is not subscribed is no error: it may have been answered as leading nowhere.
    fn unsubscribe(&mut self, names: &[String]) -> Result<Vec<Scope>, ProtocolError> {
        if names.len() > SUBSCRIPTIONS {
            return Err(ProtocolError::TooMany(SUBSCRIPTIONS, "unsubscriptions"));
        }
        let scopes = names.iter().filter_map(|name| Scope::parse(name));
        Ok(scopes.filter(|scope| self.subscribed.remove(scope)).collect())
    }

    fn draft_upserts(&self, desired: &Desired, draft: &mut Draft) -> BTreeMap<ResourceKey, Version> {
        let mut upserts = BTreeMap::new();
        for (key, Encoded { version, bytes }) in &desired.resources {
            let refused = self.refused.get(key).map(|refusal| &refusal.version);
            if self.held.get(key) == Some(version) || refused == Some(version) {
                continue;
            }
            let name = key.to_string();
            if !draft.takes(bytes.len() + name.len() + version.len()) {
                break;
            }
            let any = prost_types::Any { type_url: TYPE_URL.to_owned(), value: bytes.to_vec() };
            let version_text = version.as_ref().to_owned();
            draft.resources.push(discovery::Resource { version: version_text, resource: Some(any), name });
            upserts.insert(key.clone(), Version::clone(version));
        }
        upserts
    }

    fn draft_removed(&self, desired: &Desired, draft: &mut Draft) -> Vec<ResourceKey> {
        let mut removed = Vec::new();
        let known = self.held.keys().chain(self.refused.keys());
        for key in known.filter(|key| !desired.resources.contains_key(*key)) {
            let name = key.to_string();
            if !draft.takes(name.len()) {
                break;
            }
            if draft.removed.insert(name) {
                removed.push(key.clone());
            }
        }
        removed
    }

    /// Answers subscriptions that lead nowhere and names that are none of ours, each once. These need no acknowledgement: if the
    /// stream breaks, the next one asks again.
    fn draft_answers(&mut self, desired: &Desired, draft: &mut Draft) {
        self.answered.retain(|scope| desired.missing.contains(scope));
        for scope in desired.missing.intersection(&self.subscribed) {
            let name = scope.subscription();
            // What is sent is not gone, whatever else is claimed.
            let sent = ResourceKey::parse(&name).is_some_and(|key| desired.resources.contains_key(&key));
            if sent || self.answered.contains(scope) || !draft.takes(name.len()) {
                continue;
            }
            draft.removed.insert(name);
            self.answered.insert(scope.clone());
        }
        while let Some(name) = self.strangers.pop_first() {
            if !draft.takes(name.len()) {
                self.strangers.insert(name);
                break;
            }
            draft.removed.insert(name);
        }
    }
}

/// What a refusal means: the resources it lists, which must have been in the response; without a list, all of them, as from any
/// xDS client that does not know ours.
fn refusals(
    status: rpc::Status,
    sent: &BTreeMap<ResourceKey, Version>,
) -> Result<BTreeMap<ResourceKey, RefusedResource>, ProtocolError> {
    let list = status.details.iter().find(|any| any.type_url == REFUSED_TYPE_URL);
    let listed = list.and_then(|any| RefusedResources::decode(any.value.as_slice()).ok());
    let Some(RefusedResources { refused }) = listed.filter(|listed| !listed.refused.is_empty()) else {
        let reason = shorten(status.message, REASON_BYTES);
        let all = sent.iter().map(|(key, version)| {
            let report =
                RefusedResource { name: key.to_string(), version: version.as_ref().to_owned(), reason: reason.clone() };
            (key.clone(), report)
        });
        return Ok(all.collect());
    };
    let mut refusals = BTreeMap::new();
    for RefusedResource { name, version, reason } in refused {
        let key = ResourceKey::parse(&name).ok_or(ProtocolError::NeverSent)?;
        if sent.get(&key).is_none_or(|sent| **sent != *version) {
            return Err(ProtocolError::NeverSent);
        }
        refusals.insert(key, RefusedResource { name, version, reason: shorten(reason, REASON_BYTES) });
    }
    Ok(refusals)
}
