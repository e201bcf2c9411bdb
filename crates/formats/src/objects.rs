//! Objects of other meshes and of Kubernetes, as files have them: one front door for all of them.
//!
//! A file may hold several YAML documents, or JSON, or a `List`. What an object is, its `apiVersion` and `kind` say; one that is not
//! known is an error, as are two of the same name. References across namespaces need a `ReferenceGrant` among the same files.

pub(crate) mod kind;
mod made;
pub(crate) mod object;
pub(crate) mod order;
mod size;
pub(crate) mod words;

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::http_route::HttpRoute;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::authorization::{AllowRule, Source as Caller};
use hms_model::policy::egress::EgressHost;
use hms_model::port::{AppProtocol, Port};
use hms_model::resource::{Declaration, Overlay, Resource};
use hms_model::route::Match;
use hms_model::split::Split;

use self::kind::Kind;
use self::made::Made;
use self::object::{Object, heads, items};
use crate::appmesh::{self, World};
use crate::document::{self, Node, Value, short};
use crate::gateway_api::Scene;
use crate::read::{Reader, Span};
use crate::source::Source;
use crate::{consul, istio, smi};

/// Objects of one `List`.
const MOST_ITEMS: usize = 10_000;

/// What objects come to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Objects {
    /// How requests are led.
    pub routes: Vec<HttpRoute>,
    /// How calls are divided.
    pub splits: Vec<Split>,
    /// Policies of services, whose other policies stay.
    pub services: BTreeMap<ServiceName, Policies>,
    /// Whose objects there are: `appmesh`, `consul`, `gateway-api`, `istio`, `linkerd`, `smi`.
    pub formats: BTreeSet<&'static str>,
    /// Host names that the gateway is to answer for.
    pub hosts: Vec<String>,
    /// Hosts outside of the mesh that may be called.
    pub egress: BTreeMap<Label, EgressHost>,
    /// What the labels of these hosts begin with, each an object's; behind it stands at most a number.
    pub entries: BTreeSet<String>,
    /// Hosts outside of which it is said how they are called.
    pub ruled: BTreeSet<String>,
}

/// What objects add to the policies of a service.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policies {
    /// Instead of the service's own.
    pub overlay: Overlay,
    /// Further rules of who may call it.
    pub allow: Vec<AllowRule>,
    /// Whether these are all: it is said that nobody else may.
    pub is_whole: bool,
    /// What is spoken on its ports that do not say so themselves.
    pub protocol: Option<AppProtocol>,
    /// Its ports, if not empty, instead of those that it has.
    pub ports: Vec<Port>,
}

impl Policies {
    /// The rules of a declaration that let somebody in who may not, as this says. Laid over it they would stay.
    pub fn contradicted<'d>(&self, declaration: &'d Declaration) -> Vec<&'d AllowRule> {
        let rules = declaration.authorization.iter().flat_map(|own| &own.allow);
        let is_said = |rule: &AllowRule| {
            let fits = |own: &&AllowRule| own.source == rule.source || own.source == Caller::Any;
            let fitting: Vec<&AllowRule> = self.allow.iter().filter(fits).collect();
            let has = |one: &Match| fitting.iter().any(|own| own.matches.contains(one));
            fitting.iter().any(|own| own.matches.is_empty())
                || (!rule.matches.is_empty() && rule.matches.iter().all(has))
        };
        rules.filter(|rule| self.is_whole && !is_said(rule)).collect()
    }

    /// Lays this over what a declaration says.
    pub fn over(&self, declaration: &mut Declaration) {
        declaration.overlay = overlaid(self.overlay.clone(), &declaration.overlay);
        declaration.protocol = self.protocol.unwrap_or(declaration.protocol);
        if !self.ports.is_empty() {
            declaration.ports.clone_from(&self.ports);
        }
        if self.allow.is_empty() {
            return;
        }
        let rules = &mut declaration.authorization.get_or_insert_default().allow;
        for rule in &self.allow {
            if !rules.iter().any(|own| own.source == rule.source && own.matches == rule.matches) {
                rules.push(rule.clone());
            }
        }
    }
}

/// One overlay over another.
fn overlaid(new: Overlay, own: &Overlay) -> Overlay {
    Overlay {
        retry: new.retry.or_else(|| own.retry.clone()),
        timeouts: new.timeouts.or(own.timeouts),
        outlier: new.outlier.or(own.outlier),
        balance: new.balance.or_else(|| own.balance.clone()),
        limits: new.limits.or(own.limits),
        keep_alive: new.keep_alive.or(own.keep_alive),
        probe: new.probe.or_else(|| own.probe.clone()),
    }
}

impl Objects {
    /// Everything of it that is stored as it is.
    pub fn resources(&self) -> impl Iterator<Item = Resource> {
        let splits = self.splits.iter().cloned().map(Resource::Split);
        splits.chain(self.routes.iter().cloned().map(Resource::HttpRoute))
    }

    /// Whether a finding about the mesh as a whole is about one of these.
    pub fn is_about(&self, finding: &Finding) -> bool {
        let divided = self.splits.iter().any(|split| finding.message.contains(&format!("`{}`", split.service)));
        let says = |text: &str| {
            let named = |route: &HttpRoute| text.contains(&format!("the route `{}`", route.name));
            let origins = self.routes.iter().flat_map(|route| &route.rules).map(|rule| &rule.origin);
            self.routes.iter().any(named)
                || origins.filter(|origin| !origin.is_empty()).any(|origin| text.starts_with(&format!("{origin} ")))
        };
        divided || says(&finding.message) || says(&finding.why)
    }

    /// What people call each: the service of a division, the name of a route.
    pub fn names(&self) -> impl Iterator<Item = &ServiceName> {
        let led = self.splits.iter().map(|split| &split.service).chain(self.routes.iter().map(|route| &route.name));
        led.chain(self.services.keys())
    }
}

/// Whether a finding about the mesh says what was said of the file already: the same of a place in it.
pub fn repeats(said: &[Finding], finding: &Finding) -> bool {
    let file = |one: &Finding| one.place.as_ref().map(|place| place.file.clone());
    let predicate = |one: &Finding| one.message.rsplit('`').next().unwrap_or_default().to_owned();
    let same =
        |one: &Finding| one.code == finding.code && file(one) == file(finding) && predicate(one) == predicate(finding);
    finding.place.is_some() && said.iter().any(same)
}

/// Whether a file holds objects: `apiVersion` or `kind` begins a line of it, or it is JSON that names them, or Consul's HCL.
pub fn recognises(source: &Source) -> bool {
    let text = source.text.trim_start_matches('\u{feff}');
    if text.trim_start().starts_with(['{', '[']) {
        let is_object = ["\"apiVersion\"", "\"Kind\""].iter().any(|key| text.contains(key));
        return is_object || consul::recognises(text) || appmesh::recognises(text);
    }
    let is_key = text.lines().any(|line| {
        let word = line.trim_start_matches(['"', '\'']).split([':', '"', '\'']).next().unwrap_or_default();
        line.contains(':') && matches!(word, "apiVersion" | "kind" | "Kind")
    });
    is_key || consul::is_hcl(text) || appmesh::recognises(text)
}

/// Reads files that are to take effect together. A file with an error yields nothing; one error anywhere means that nothing is to
/// be applied.
pub fn translate(sources: &[Source]) -> (Objects, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut roots: Vec<Node> = Vec::new();
    for source in sources {
        let Some(file) = reader.add(source) else { continue };
        if consul::is_hcl(&source.text) {
            consul::refuse_hcl(&mut reader, file);
            continue;
        }
        let Some(documents) = document::parse_all(&mut reader, file) else { continue };
        if documents.is_empty() {
            let finding =
                Finding::error(2102, "the file is empty").fix("write an object: apiVersion, kind, metadata, spec");
            reader.report(Span::new(file, 0, 0), finding);
        }
        roots.extend(documents);
    }
    let objects = known(&mut reader, &roots);
    let scene = Scene::read(&mut reader, objects.iter().map(|(kind, object)| (*kind, object)));
    let mut made = Made::default();
    made.hosts = scene.hosts();
    for (_, object) in objects.iter().filter(|(kind, _)| *kind == Kind::HttpRouteGroup) {
        smi::group(&mut reader, object, &mut made.groups);
    }
    let entries = objects.iter().filter(|(kind, _)| *kind == Kind::ServiceEntry);
    made.lie_outside = consul::lying_outside(&objects);
    let outside: BTreeSet<String> = entries.flat_map(|(_, object)| istio::outside_hosts(object)).collect();
    for (_, object) in objects.iter().filter(|(kind, _)| *kind == Kind::DestinationRule) {
        made.rule(&mut reader, object, &outside);
    }
    for (kind, object) in &objects {
        made.chain.add(&mut reader, *kind, object);
    }
    made.world = World::read(&mut reader, &objects);
    for (kind, object) in &objects {
        made.add(&mut reader, *kind, object, &scene);
    }
    let formats = objects.iter().map(|(kind, _)| kind.format()).collect();
    let objects = Objects { formats, ..made.clean(&reader) };
    (objects, reader.into_findings())
}

/// The objects whose kind is known, each once.
fn known<'n>(reader: &mut Reader<'_>, roots: &'n [Node]) -> Vec<(Kind, Object<'n>)> {
    let mut objects = Vec::new();
    let mut seen: BTreeMap<(Kind, &str, &str), Span> = BTreeMap::new();
    let mut waiting: Vec<&Node> = roots.iter().rev().collect();
    while let Some(root) = waiting.pop() {
        if let Value::List(entries) = &root.value {
            // As an API answers that lists them.
            waiting.extend(entries.iter().rev());
            continue;
        }
        let (kind, object) = if consul::is_entry(root) {
            let Some(entry) = consul::entry(reader, root) else { continue };
            entry
        } else if appmesh::is_entry(root) {
            let Some(entry) = appmesh::entry(reader, root) else { continue };
            entry
        } else {
            let Some(heads) = heads(reader, root) else { continue };
            if is_list(&heads[1].node.value) {
                let table = reader.open_table(root, "");
                let within = table.map(|table| items(reader, &table, "items", MOST_ITEMS, "a list of objects"));
                waiting.extend(within.unwrap_or_default().iter().rev().map(|item| item.node));
                continue;
            }
            let Some(kind) = kind::of(reader, &heads) else { continue };
            let Some(object) = Object::read(reader, root, &heads[1]) else { continue };
            (kind, object)
        };
        let stored = (kind.stored_as(), object.namespace, object.name);
        if let Some(first) = seen.get(&stored) {
            let why = format!("first at {}", reader.origin(*first));
            let finding = Finding::error(2110, format!("there are two objects `{}`", short(object.name)));
            reader.report(object.at, finding.because(why).fix("keep one of the two, or give it another name"));
            continue;
        }
        seen.insert(stored, object.at);
        objects.push((kind, object));
    }
    objects
}

fn is_list(kind: &Value) -> bool {
    matches!(kind, Value::Scalar(text, _) if text.ends_with("List") && text.len() <= 64)
}
