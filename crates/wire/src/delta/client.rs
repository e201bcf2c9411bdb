//! The proxy's end of a stream.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use hms_model::resource::Resource;
use hms_model::snapshot::Scope;
use prost::Message as _;

use super::{HELD, ProtocolError, REASON_BYTES, REFUSED_TYPE_URL, SUBSCRIPTIONS, UNKNOWN_VERSION, bounded, shorten};
use crate::proto::envoy::service::discovery::v3 as discovery;
use crate::proto::google::rpc;
use crate::proto::hms::v1::{RefusedResource, RefusedResources};
use crate::{TYPE_URL, WireError, decode};

/// `INVALID_ARGUMENT`, what xDS clients put into a refusal.
const INVALID_ARGUMENT: i32 = 3;

/// What a proxy holds and wants, over any number of streams.
///
/// The owner calls [`connected`](Self::connected) for every new stream and sends what it returns, feeds every response to
/// [`on_response`](Self::on_response), applies it, and sends what [`acknowledge`](Self::acknowledge) returns. After
/// [`subscribe`](Self::subscribe) and [`unsubscribe`](Self::unsubscribe) it sends [`next_request`](Self::next_request).
#[derive(Debug)]
pub struct Client {
    node: discovery::Node,
    held: BTreeMap<String, String>,
    subscribed: BTreeSet<String>,
    stream: Option<Stream>,
}

/// What is under way on the present stream.
#[derive(Debug, Default)]
struct Stream {
    subscribe: BTreeSet<String>,
    unsubscribe: BTreeSet<String>,
    pending: Option<Pending>,
    last_nonce: String,
}

/// A response that is not yet acknowledged.
#[derive(Debug)]
struct Pending {
    nonce: String,
    upserts: BTreeMap<String, String>,
    removed: Vec<String>,
    /// What could not be read or kept; refused whatever the owner says.
    unreadable: BTreeMap<String, RefusedResource>,
}

/// One transaction: everything that changed, to be applied as a whole.
#[derive(Debug)]
pub struct Update {
    /// What is new or different, in the order in which it was sent.
    pub upserts: Vec<Upsert>,
    /// Names of what is gone, whether it was held or not. A subscription that leads nowhere is answered here.
    pub removed: Vec<String>,
    /// What [`Client::acknowledge`] wants back.
    pub nonce: String,
    /// The control plane's word for the state this belongs to: its revision.
    pub revision: String,
}

/// One resource that is new or different.
#[derive(Debug)]
pub struct Upsert {
    /// Its name, a [`ResourceKey`](hms_model::resource::ResourceKey) unless it could not be read.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The resource, or why it cannot be used; the latter is refused without the owner's doing.
    pub resource: Result<Resource, WireError>,
}

impl Client {
    /// A client that already holds `known` (name to version), say from its last-good file. What goes beyond
    /// [`HELD`] is not kept: whoever has more drops what [`held`](Self::held) does not list.
    pub fn new(node: discovery::Node, known: BTreeMap<String, String>) -> Self {
        let held = known.into_iter().take(HELD).collect();
        Self { node, held, subscribed: BTreeSet::new(), stream: None }
    }

    /// What is held, name to version. The empty version marks a name whose content was refused or is uncertain.
    pub fn held(&self) -> &BTreeMap<String, String> {
        &self.held
    }

    /// Wants these scopes from now on. Those beyond [`SUBSCRIPTIONS`] are returned, and not subscribed.
    pub fn subscribe(&mut self, scopes: impl IntoIterator<Item = Scope>) -> Vec<Scope> {
        let mut surplus = Vec::new();
        for scope in scopes {
            let name = scope.subscription();
            if self.subscribed.contains(&name) {
                continue;
            }
            if self.subscribed.len() >= SUBSCRIPTIONS {
                surplus.push(scope);
                continue;
            }
            if let Some(stream) = &mut self.stream {
                stream.subscribe.insert(name.clone());
            }
            self.subscribed.insert(name);
        }
        surplus
    }

    /// Wants these scopes no longer. Their resources stay until the control plane removes them.
    pub fn unsubscribe(&mut self, scopes: impl IntoIterator<Item = Scope>) {
        for scope in scopes {
            let name = scope.subscription();
            if self.subscribed.remove(&name)
                && let Some(stream) = &mut self.stream
            {
                stream.subscribe.remove(&name);
                stream.unsubscribe.insert(name);
            }
        }
    }

    /// Whether a scope is subscribed.
    pub fn is_subscribed(&self, scope: &Scope) -> bool {
        self.subscribed.contains(&scope.subscription())
    }

    /// Begins a new stream; returns its first request: who we are, what we hold, what we want. An update of the previous
    /// stream that was not acknowledged may or may not have been applied, so what it brought is presented as unknown.
    pub fn connected(&mut self) -> discovery::DeltaDiscoveryRequest {
        self.disconnected();
        self.stream = Some(Stream::default());
        discovery::DeltaDiscoveryRequest {
            node: Some(self.node.clone()),
            type_url: TYPE_URL.to_owned(),
            resource_names_subscribe: self.subscribed.iter().cloned().collect(),
            initial_resource_versions: self.held.clone(),
            ..Default::default()
        }
    }

    /// The stream ended. [`acknowledge`](Self::acknowledge) of what it brought comes too late from here on.
    pub fn disconnected(&mut self) {
        let Some(pending) = self.stream.take().and_then(|stream| stream.pending) else { return };
        for name in pending.upserts.into_keys() {
            self.held.insert(name, UNKNOWN_VERSION.to_owned());
        }
        for name in &pending.removed {
            if let Some(version) = self.held.get_mut(name) {
                UNKNOWN_VERSION.clone_into(version);
            }
        }
    }

    /// The changed subscriptions, if there are any and a stream to tell them on.
    pub fn next_request(&mut self) -> Option<discovery::DeltaDiscoveryRequest> {
        let stream = self.stream.as_mut()?;
        if stream.subscribe.is_empty() && stream.unsubscribe.is_empty() {
            return None;
        }
        Some(discovery::DeltaDiscoveryRequest {
            type_url: TYPE_URL.to_owned(),
            resource_names_subscribe: mem::take(&mut stream.subscribe).into_iter().collect(),
            resource_names_unsubscribe: mem::take(&mut stream.unsubscribe).into_iter().collect(),
            ..Default::default()
        })
    }

    /// Takes a response apart. Nothing counts as held until [`acknowledge`](Self::acknowledge). On an error the stream is to
    /// be closed and everything stays as it was.
    pub fn on_response(&mut self, response: discovery::DeltaDiscoveryResponse) -> Result<Update, ProtocolError> {
        let room = HELD.saturating_sub(self.held.len());
        let stream = self.stream.as_mut().ok_or(ProtocolError::NotConnected)?;
        check(&response, stream)?;
        let discovery::DeltaDiscoveryResponse { system_version_info, resources, nonce, removed_resources, .. } =
            response;
        let mut pending = Pending {
            nonce: nonce.clone(),
            upserts: BTreeMap::new(),
            removed: removed_resources.clone(),
            unreadable: BTreeMap::new(),
        };
        let mut upserts = Vec::with_capacity(resources.len());
        let mut new = 0_usize;
        for discovery::Resource { version, resource, name } in resources {
            let is_new = !self.held.contains_key(&name);
            let fits = !is_new || new < room;
            new += usize::from(is_new && fits);
            let resource = if fits { read(&name, resource) } else { Err(WireError::Full(HELD)) };
            if let Err(error) = &resource {
                let reason = shorten(error.to_string(), REASON_BYTES);
                let refused = RefusedResource { name: name.clone(), version: version.clone(), reason };
                pending.unreadable.insert(name.clone(), refused);
            }
            if fits {
                pending.upserts.insert(name.clone(), version.clone());
            }
            upserts.push(Upsert { name, version, resource });
        }
        stream.last_nonce.clone_from(&nonce);
        stream.pending = Some(pending);
        Ok(Update { upserts, removed: removed_resources, nonce, revision: system_version_info })
    }

    /// Says what became of an update: all of it was applied, but for `refused` (and for what could not be read, which need
    /// not be listed). `None` if the update's stream has ended meanwhile: then there is nobody to tell, and the next stream
    /// brings the same again.
    pub fn acknowledge(
        &mut self,
        nonce: &str,
        refused: Vec<RefusedResource>,
    ) -> Option<discovery::DeltaDiscoveryRequest> {
        let pending = self.stream.as_mut()?.pending.take_if(|pending| pending.nonce == nonce)?;
        let Pending { nonce, upserts, removed, unreadable } = pending;
        let mut refusals = unreadable;
        for RefusedResource { name, reason, .. } in refused {
            if let Some(version) = upserts.get(&name) {
                let reason = shorten(reason, REASON_BYTES);
                let refusal = RefusedResource { name: name.clone(), version: version.clone(), reason };
                refusals.entry(name).or_insert(refusal);
            }
        }
        for (name, version) in upserts {
            let version = if refusals.contains_key(&name) { UNKNOWN_VERSION.to_owned() } else { version };
            self.held.insert(name, version);
        }
        for name in &removed {
            self.held.remove(name);
        }
        Some(discovery::DeltaDiscoveryRequest {
            type_url: TYPE_URL.to_owned(),
            response_nonce: nonce,
            error_detail: refusal_status(refusals.into_values().collect()),
            ..Default::default()
        })
    }
}

/// The bounds of a response as a whole.
fn check(response: &discovery::DeltaDiscoveryResponse, stream: &Stream) -> Result<(), ProtocolError> {
    if stream.pending.is_some() {
        return Err(ProtocolError::TooEager);
    }
    if response.type_url != TYPE_URL {
        return Err(ProtocolError::TypeUrl);
    }
    // A repeated nonce would make an acknowledgement ambiguous.
    if response.nonce.is_empty() || response.nonce == stream.last_nonce {
        return Err(ProtocolError::NoNonce);
    }
    bounded(&response.nonce)?;
    if response.resources.len() > HELD {
        return Err(ProtocolError::TooMany(HELD, "resources"));
    }
    if response.removed_resources.len() > 2 * HELD {
        return Err(ProtocolError::TooMany(2 * HELD, "removed resources"));
    }
    let mut names = BTreeSet::new();
    for resource in &response.resources {
        if resource.version.is_empty() {
            return Err(ProtocolError::NoVersion);
        }
        bounded(&resource.version)?;
    }
    let all = response.resources.iter().map(|resource| &resource.name).chain(&response.removed_resources);
    for name in all {
        bounded(name)?;
        if !names.insert(name.as_str()) {
            return Err(ProtocolError::Twice);
        }
    }
    Ok(())
}

/// Reads one resource, which must be what its name says.
fn read(name: &str, any: Option<prost_types::Any>) -> Result<Resource, WireError> {
    let any = any.ok_or(WireError::Missing("resource"))?;
    if any.type_url != TYPE_URL {
        return Err(WireError::TypeUrl);
    }
    let resource = decode(&any.value)?;
    let own = resource.key().to_string();
    if own == name { Ok(resource) } else { Err(WireError::Name { sent: name.to_owned(), own }) }
}

/// The error that lists what was refused; none if nothing was.
fn refusal_status(refused: Vec<RefusedResource>) -> Option<rpc::Status> {
    if refused.is_empty() {
        return None;
    }
    let message = format!("{} of the resources were refused", refused.len());
    let value = RefusedResources { refused }.encode_to_vec();
    let details = vec![prost_types::Any { type_url: REFUSED_TYPE_URL.to_owned(), value }];
    Some(rpc::Status { code: INVALID_ARGUMENT, message, details })
}
