//! Changing the configuration.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use hms_model::finding::Finding;
use hms_model::mesh::{self, Resources, changed};
use hms_model::names::ServiceName;
use hms_model::resource::{Declaration, Kind, Resource, ResourceKey};
use hms_model::spiffe::SpiffeId;

use super::history::{self, Author, CommitRecord, Difference, Head};
use super::{Registry, RegistryError, state::State};
use crate::store::{Revision, StoreError, VALUE_LIMIT};

/// One change of a commit.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "short-lived and few; a box would be noise for every caller")]
pub enum Change {
    /// Sets a resource: a [`Declaration`], route, gateway, defaults or trust bundle. A declaration without identities keeps
    /// those that are bound already.
    Put(Resource),
    /// Removes one; an error if there is none.
    Delete(ResourceKey),
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// The revision of the configuration that has it.
    pub revision: Revision,
    /// Every resource that is another now, in the order of the keys; none if everything was so already.
    pub altered: Vec<Altered>,
}

/// A resource before and after a change. It is not on both sides absent, nor the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Altered {
    /// Its name.
    pub key: ResourceKey,
    /// What it was; `None` if it was not there.
    pub before: Option<Arc<Resource>>,
    /// What it is; `None` if it is gone.
    pub after: Option<Arc<Resource>>,
}

impl Altered {
    /// What became of it.
    pub fn difference(&self) -> Difference {
        match (&self.before, &self.after) {
            (None, _) => Difference::Added,
            (Some(_), Some(_)) => Difference::Changed,
            (Some(_), None) => Difference::Removed,
        }
    }
}

fn altered(before: &Resources, after: &Resources) -> Vec<Altered> {
    let altered = |(key, before, after): mesh::Changed<'_, ResourceKey, Arc<Resource>>| Altered {
        key: ResourceKey::clone(key),
        before: before.cloned(),
        after: after.cloned(),
    };
    changed(before, after).into_iter().map(altered).collect()
}

/// Services one mesh may have.
const SERVICES: usize = 10_000;
/// Changes of one commit.
const CHANGES: usize = 20_000;

impl Registry {
    /// Does all changes or none. With `expected` it does so only if the configuration is still at that revision. When it
    /// answers, [`view`](Self::view) shows the change.
    pub async fn commit(
        &self,
        actor: &str,
        changes: Vec<Change>,
        expected: Option<Revision>,
    ) -> Result<Revision, RegistryError> {
        Ok(self.change(actor, changes, expected).await?.revision)
    }

    /// The same, and says what came of it.
    pub async fn change(
        &self,
        actor: &str,
        changes: Vec<Change>,
        expected: Option<Revision>,
    ) -> Result<Changed, RegistryError> {
        let changed = {
            let _one_at_a_time = self.0.configuring.lock().await;
            let head = Arc::clone(&self.0.state.lock().config);
            let resources = self.planned(&head, changes, expected)?;
            let altered = altered(&head.resources, &resources);
            Changed { revision: self.flip(actor, &head, resources).await?, altered }
        };
        self.shown_config(changed.revision).await?;
        Ok(changed)
    }

    /// What [`change`](Self::change) would come to at this moment; nothing is changed, and the revision is the present one.
    pub fn preview(&self, changes: Vec<Change>, expected: Option<Revision>) -> Result<Changed, RegistryError> {
        let head = Arc::clone(&self.0.state.lock().config);
        let resources = self.planned(&head, changes, expected)?;
        Ok(Changed { revision: head.revision, altered: altered(&head.resources, &resources) })
    }

    fn planned(
        &self,
        head: &Head,
        changes: Vec<Change>,
        expected: Option<Revision>,
    ) -> Result<Arc<Resources>, RegistryError> {
        if let Some(expected) = expected
            && expected != head.revision
        {
            return Err(RegistryError::Conflict { current: head.revision });
        }
        self.changed_resources(head, changes)
    }

    /// The latest commits, newest first.
    pub async fn history(&self, limit: usize) -> Result<Vec<CommitRecord>, RegistryError> {
        let head = Arc::clone(&self.0.state.lock().config);
        Ok(history::log(&*self.0.store, &head, limit).await?)
    }

    /// The resources as they were at a revision of the history; `None` if it is not kept.
    pub async fn at(&self, revision: Revision) -> Result<Option<Arc<Resources>>, RegistryError> {
        let head = Arc::clone(&self.0.state.lock().config);
        Ok(history::at(&*self.0.store, &head, revision).await?)
    }

    /// Sees to it that a service is declared and owns `identity`, if it may be given to it without an operator: a service that
    /// nobody owns yet belongs to the first workload that has its very name as identity.
    pub(super) async fn bind(
        &self,
        actor: &str,
        service: &ServiceName,
        identity: Option<&SpiffeId>,
    ) -> Result<(), RegistryError> {
        if owns(&self.0.state.lock(), service, identity) {
            return Ok(());
        }
        let _one_at_a_time = self.0.configuring.lock().await;
        let head = Arc::clone(&self.0.state.lock().config);
        let key = ResourceKey::of(Kind::Declaration, service);
        let mut declaration = match head.resources.get(&key).map(AsRef::as_ref) {
            Some(Resource::Declaration(declaration)) => declaration.clone(),
            _ => Declaration::new(service.clone()),
        };
        if let Some(identity) = identity
            && !declaration.identities.contains(identity)
        {
            let namesake = identity.namespace() == service.namespace() && identity.name() == service.name();
            if !declaration.identities.is_empty() || !namesake {
                tracing::warn!(target: "audit", %actor, %service, %identity, "refused to serve the service");
                return Err(RegistryError::Refused(Box::new(foreign(service, identity, &declaration))));
            }
            tracing::info!(target: "audit", %actor, %service, %identity, "bound the identity to the service");
            declaration.identities.push(identity.clone());
        }
        let resources = self.changed_resources(&head, vec![Change::Put(Resource::Declaration(declaration))])?;
        let revision = self.flip(actor, &head, resources).await?;
        self.taken_over(revision, |applied| applied.0).await
    }

    /// Writes a commit and waits until the registry itself has it, so that the next one begins there.
    async fn flip(&self, actor: &str, head: &Head, resources: Arc<Resources>) -> Result<Revision, RegistryError> {
        self.number(&resources).await?;
        let time = self.0.clock.now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let author = Author { actor, time };
        let new = match history::commit(&*self.0.store, head, author, resources).await {
            Ok(new) => new,
            // Another control plane on the same store.
            Err(StoreError::Conflict(_)) => return Err(RegistryError::Conflict { current: head.revision }),
            Err(error) => return Err(error.into()),
        };
        if new.revision != head.revision {
            tracing::info!(target: "audit", %actor, revision = %new.revision, "changed the configuration");
        }
        self.taken_over(new.revision, |applied| applied.0).await?;
        Ok(new.revision)
    }

    fn changed_resources(&self, head: &Head, changes: Vec<Change>) -> Result<Arc<Resources>, RegistryError> {
        if changes.len() > CHANGES {
            let finding = Finding::error(2320, format!("{} changes at once, {CHANGES} are taken", changes.len()));
            return Err(RegistryError::Invalid(vec![finding]));
        }
        let mut findings = Vec::new();
        let mut resources = Resources::clone(&head.resources);
        for change in changes {
            match change {
                Change::Put(resource) => match self.checked(resource, &resources) {
                    Ok(resource) => drop(resources.insert(resource.key(), Arc::new(resource))),
                    Err(finding) => findings.push(*finding),
                },
                Change::Delete(key) => {
                    if resources.remove(&key).is_none() {
                        return Err(RegistryError::NotFound(key.to_string()));
                    }
                }
            }
        }
        let services = resources.keys().filter(|key| key.kind == Kind::Declaration).count();
        if services > SERVICES {
            findings.push(Finding::error(2321, format!("{services} services, a mesh has at most {SERVICES}")));
        }
        if findings.is_empty() { Ok(Arc::new(resources)) } else { Err(RegistryError::Invalid(findings)) }
    }

    /// A resource as it may be stored.
    fn checked(&self, mut resource: Resource, before: &Resources) -> Result<Resource, Box<Finding>> {
        let key = resource.key();
        match &mut resource {
            Resource::Declaration(declaration) => {
                if let Some(Resource::Declaration(old)) = before.get(&key).map(AsRef::as_ref)
                    && declaration.identities.is_empty()
                {
                    declaration.identities.clone_from(&old.identities);
                }
                let own = self.0.trust_domain.as_str();
                if let Some(foreign) = declaration.identities.iter().find(|id| id.trust_domain() != own) {
                    let message = format!("`{}` cannot be served by {foreign}", declaration.name);
                    return Err(Box::new(Finding::error(4104, message).because(format!("this mesh is `{own}`"))));
                }
            }
            Resource::Trust(bundle) if bundle.trust_domain != self.0.trust_domain => {
                return Err(Box::new(Finding::error(
                    4105,
                    format!("`{}` is not this mesh's domain", bundle.trust_domain),
                )));
            }
            Resource::Trust(_)
            | Resource::Defaults(_)
            | Resource::Route(_)
            | Resource::Egress(_)
            | Resource::Split(_)
            | Resource::HttpRoute(_)
            | Resource::Stamps(_) => {}
            // They are resources of their own.
            Resource::Gateway(gateway) => (gateway.routes, gateway.is_open) = (Vec::new(), false),
            Resource::Entry(_) | Resource::Service(_) | Resource::Endpoint(_) => {
                return Err(Box::new(Finding::error(2322, format!("`{key}` cannot be configured"))));
            }
        }
        // What cannot be read back, or be sent, must not get in: the bounds are those of the wire.
        let bytes = hms_wire::encode(&resource);
        if bytes.len() > VALUE_LIMIT {
            let why = format!("it has {} bytes, {VALUE_LIMIT} are taken", bytes.len());
            return Err(Box::new(Finding::error(2323, format!("`{key}` is too large")).because(why)));
        }
        match hms_wire::decode(&bytes) {
            Ok(_) => Ok(resource),
            Err(error) => {
                let finding = Finding::error(2323, format!("`{key}` is out of bounds"));
                Err(Box::new(finding.because(error.to_string())))
            }
        }
    }
}

/// Whether a service is declared, and owns the identity if there is one.
fn owns(state: &State, service: &ServiceName, identity: Option<&SpiffeId>) -> bool {
    match state.config.resources.get(&ResourceKey::of(Kind::Declaration, service)).map(AsRef::as_ref) {
        Some(Resource::Declaration(declaration)) => identity.is_none_or(|id| declaration.identities.contains(id)),
        _ => false,
    }
}

fn foreign(service: &ServiceName, identity: &SpiffeId, declaration: &Declaration) -> Finding {
    let owners: Vec<String> = declaration.identities.iter().map(ToString::to_string).collect();
    let why = if owners.is_empty() {
        "a workload may take a service that nobody owns only under its own name".to_owned()
    } else {
        format!("it belongs to {}", owners.join(", "))
    };
    Finding::error(4103, format!("{identity} may not serve `{service}`"))
        .because(why)
        .fix(format!("add the identity to the declaration of `{service}`"))
}
