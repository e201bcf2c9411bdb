//! What has been made of the objects so far.

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::http_route::HttpRoute;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::egress::{EgressHost, MOST_HOSTS};
use hms_model::resource::Overlay;
use hms_model::split::Split;

use super::kind::Kind;
use super::object::{Object, no_equal, not_carried};
use super::{Objects, Policies, overlaid, size};
use crate::appmesh::{self, World};
use crate::consul::{self, Chain, Division};
use crate::document::short;
use crate::gateway_api::{self, Scene};
use crate::istio::{self, Outside, Subsets};
use crate::linkerd;
use crate::read::{Reader, Span};
use crate::smi::{self, Groups};
use crate::traffic_split::{self, Meaning};

/// What has been made so far, by the file it is from.
#[derive(Debug, Default)]
pub(super) struct Made {
    routes: Vec<(u16, HttpRoute)>,
    splits: Vec<(u16, Split)>,
    divided: BTreeMap<ServiceName, Span>,
    pub(super) hosts: Vec<(u16, String)>,
    services: Vec<(u16, ServiceName, Policies)>,
    pub(super) groups: Groups,
    subsets: Subsets,
    pub(super) chain: Chain,
    pub(super) world: World,
    /// What rules say of hosts outside.
    outside: Outside,
    egress: BTreeMap<Label, (u16, EgressHost)>,
    claimed: BTreeSet<(String, u16)>,
    /// What the labels of hosts outside begin with.
    entries: Vec<(u16, String)>,
    /// Services of Consul's that are hosts outside.
    pub(super) lie_outside: BTreeSet<ServiceName>,
    /// Where it is first said who may call a service, and whether that is all.
    allowing: BTreeMap<ServiceName, (Span, bool)>,
    /// How much the routes come to.
    bytes: usize,
    /// The names of the routes, and where each is from.
    named: BTreeMap<ServiceName, Span>,
    /// What the first node of a service said.
    of_nodes: BTreeMap<ServiceName, Policies>,
}

impl Made {
    pub(super) fn add(&mut self, reader: &mut Reader<'_>, kind: Kind, object: &Object<'_>, scene: &Scene<'_>) {
        let file = object.at.file;
        let route = match kind {
            Kind::TrafficSplit => match traffic_split::read(reader, object, &self.groups) {
                Some(Meaning::All(split, at)) => return self.divide(reader, Some((split, at))),
                Some(Meaning::Some(route)) => Some(route),
                None => return,
            },
            Kind::TrafficTarget => {
                let Some((service, allow)) = smi::target(reader, object, &self.groups) else { return };
                if self.may_allow(reader, object, &service, false) {
                    self.services.push((file, service, Policies { allow, ..Policies::default() }));
                }
                return;
            }
            Kind::TcpRoute | Kind::TlsRoute => {
                let split = gateway_api::streams::read(reader, object, scene);
                return self.divide(reader, split);
            }
            Kind::HttpRoute => gateway_api::http_route(reader, object, scene),
            Kind::GrpcRoute => gateway_api::grpc::read(reader, object, scene),
            Kind::LinkerdRoute => linkerd::read(reader, object, scene),
            Kind::VirtualService => istio::virtual_service(reader, object, &self.subsets),
            Kind::ServiceRouter => consul::router(reader, object, &self.chain),
            Kind::ServiceSplitter | Kind::ServiceResolver => return self.divided(reader, kind, object),
            Kind::ServiceDefaults => return self.defaults(reader, object),
            Kind::ServiceIntentions => {
                return self.intentions(reader, object);
            }
            Kind::AppMeshService => match appmesh::virtual_service(reader, object, &self.world) {
                Some(appmesh::Meaning::Split(split, at)) => return self.divide(reader, Some((split, at))),
                Some(appmesh::Meaning::Route(route)) => Some(route),
                None => return,
            },
            Kind::Service => {
                let Some(linkerd::Annotated { service, overlay, ports }) = linkerd::service(reader, object) else {
                    return;
                };
                self.services.push((file, service, Policies { overlay, ports, ..Policies::default() }));
                return;
            }
            Kind::ServiceEntry => return self.entry(reader, object),
            Kind::AppMeshNode => return self.node(reader, object),
            Kind::AppMeshGatewayRoute => appmesh::gateway_route(reader, object, &self.world),
            Kind::AppMeshOther => return appmesh::only_one(reader, object),
            Kind::BackendTlsPolicy => return gateway_api::backend_tls(reader, object),
            // Read before, because others refer to them.
            Kind::Gateway
            | Kind::ReferenceGrant
            | Kind::HttpRouteGroup
            | Kind::DestinationRule
            | Kind::AppMeshRouter
            | Kind::AppMeshRoute => return,
        };
        let Some(mut route) = route else { return };
        linkerd::annotations::over(reader, object, &mut route);
        self.keep(reader, object, route);
    }

    /// Keeps a route: one of each name, and of a size that can be stored.
    fn keep(&mut self, reader: &mut Reader<'_>, object: &Object<'_>, route: HttpRoute) {
        let bytes = size::of(&route);
        if bytes > size::MOST {
            let finding = Finding::error(2112, format!("the route `{}` comes to {bytes} bytes", route.name));
            let why =
                format!("a route has at most {}; each method of a match counts, and each share of a rule", size::MOST);
            return reader.report(object.at, finding.because(why).fix("divide it among several routes"));
        }
        if let Some(first) = self.named.get(&route.name) {
            let why = format!("{} makes one of this name as well", reader.origin(*first));
            let finding = Finding::error(2110, format!("there are two routes `{}`", route.name));
            return reader.report(object.at, finding.because(why).fix("give one of the two another name"));
        }
        self.bytes += bytes;
        if self.bytes > size::MOST_ALL {
            let finding = Finding::error(2112, format!("the routes come to more than {} bytes", size::MOST_ALL));
            return reader.report(object.at, finding.fix("apply fewer files at once"));
        }
        self.named.insert(route.name.clone(), object.at);
        self.routes.push((object.at.file, route));
    }

    /// What a rule of Istio's says of a service.
    pub(super) fn rule(&mut self, reader: &mut Reader<'_>, object: &Object<'_>, outside: &BTreeSet<String>) {
        if let Some((host, external)) = istio::outside_rule(reader, object, outside) {
            if self.outside.contains_key(&host) {
                let finding = Finding::error(2110, format!("there are two rules for {host}"));
                let why = "of a host outside one says how it is called, and whether with TLS";
                return reader.report(object.at, finding.because(why).fix("put them into one"));
            }
            self.outside.insert(host, external);
            return;
        }
        let Some((service, overlay)) = istio::destination_rule(reader, object, &mut self.subsets) else { return };
        if overlay != Overlay::default() {
            self.services.push((object.at.file, service, Policies { overlay, ..Policies::default() }));
        }
    }

    /// Hosts outside; none has a name or a port that another has.
    fn entry(&mut self, reader: &mut Reader<'_>, object: &Object<'_>) {
        self.entries.push((object.at.file, istio::stem(object)));
        for (label, host) in istio::service_entry(reader, object, &self.outside) {
            self.external(reader, object, label, host);
        }
    }

    fn external(&mut self, reader: &mut Reader<'_>, object: &Object<'_>, label: Label, host: EgressHost) {
        let taken = host.ports.iter().find(|port| self.claimed.contains(&(host.host.clone(), **port)));
        let message = match taken {
            Some(port) => format!("port {port} of {} is listed twice", host.host),
            None if self.egress.contains_key(&label) => format!("two hosts are called `{label}`"),
            None if self.egress.len() >= MOST_HOSTS => format!("more than {MOST_HOSTS} hosts outside of the mesh"),
            None => {
                self.claimed.extend(host.ports.iter().map(|port| (host.host.clone(), *port)));
                self.egress.insert(label, (object.at.file, host));
                return;
            }
        };
        reader.report(object.at, Finding::error(2110, message).fix("keep one of them"));
    }

    /// What a node of App Mesh says of its service. Of several the first one counts.
    fn node(&mut self, reader: &mut Reader<'_>, object: &Object<'_>) {
        let Some((service, overlay, protocol)) = appmesh::policies(reader, object) else { return };
        let policies = Policies { overlay, protocol, ..Policies::default() };
        if policies == Policies::default() {
            return;
        }
        match self.of_nodes.get(&service) {
            None => {
                self.of_nodes.insert(service.clone(), policies.clone());
                self.services.push((object.at.file, service, policies));
            }
            // It says nothing else.
            Some(first)
                if overlaid(policies.overlay.clone(), &first.overlay) == first.overlay
                    && policies.protocol.is_none_or(|own| first.protocol == Some(own)) => {}
            Some(_) => {
                let what = format!("what `{}` says of its listener", short(object.name));
                let why = format!("policies are those of `{service}` whatever its version; its first node's hold");
                not_carried(reader, object.at, &what, &why);
            }
        }
    }

    /// What is spoken, and what lies outside.
    fn defaults(&mut self, reader: &mut Reader<'_>, object: &Object<'_>) {
        let Some(said) = consul::defaults(reader, object) else { return };
        if !said.hosts.is_empty() {
            self.entries.push((object.at.file, said.service.name().to_owned()));
        }
        if said.protocol.is_some() {
            let policies = Policies { protocol: said.protocol, ..Policies::default() };
            self.services.push((object.at.file, said.service, policies));
        }
        for (label, host) in said.hosts {
            self.external(reader, object, label, host);
        }
    }

    /// Who may call a service, and nobody else.
    fn intentions(&mut self, reader: &mut Reader<'_>, object: &Object<'_>) {
        let Some((service, allow)) = consul::intentions(reader, object) else { return };
        if self.lie_outside.contains(&service) {
            let what = format!("saying who may call `{service}`, which lies outside of the mesh,");
            let why = "a host that is listed is open to every member of the mesh";
            return no_equal(reader, object.at, &what, why, "leave it out, or do not list the host");
        }
        if self.may_allow(reader, object, &service, true) {
            let policies = Policies { allow, is_whole: true, ..Policies::default() };
            self.services.push((object.at.file, service, policies));
        }
    }

    /// Whether an object may say who calls a service: where one says who all are, it is the only one.
    fn may_allow(
        &mut self,
        reader: &mut Reader<'_>,
        object: &Object<'_>,
        service: &ServiceName,
        is_whole: bool,
    ) -> bool {
        let Some((first, was_whole)) = self.allowing.get(service) else {
            self.allowing.insert(service.clone(), (object.at, is_whole));
            return true;
        };
        let may = !is_whole && !was_whole;
        if !may {
            let why = format!("{} says it as well, and one of the two is to be all of it", reader.origin(*first));
            let finding = Finding::error(2110, format!("who may call `{service}` is said twice"));
            reader.report(object.at, finding.because(why).fix("put them into one"));
        }
        may
    }

    /// What a splitter or a resolver of Consul's says of a service.
    fn divided(&mut self, reader: &mut Reader<'_>, kind: Kind, object: &Object<'_>) {
        if kind == Kind::ServiceResolver
            && let Some((service, overlay)) = consul::policies(reader, object)
        {
            self.services.push((object.at.file, service, Policies { overlay, ..Policies::default() }));
        }
        match self.chain.division(reader, kind, object) {
            Some(Division::Split(split, at)) => self.divide(reader, Some((split, at))),
            Some(Division::Route(route)) => self.keep(reader, object, route),
            None => {}
        }
    }

    /// A service is divided once.
    fn divide(&mut self, reader: &mut Reader<'_>, split: Option<(Split, Span)>) {
        let Some((split, at)) = split else { return };
        if let Some(first) = self.divided.get(&split.service) {
            let why = format!("{} says it as well", reader.origin(*first));
            let finding = Finding::error(2110, format!("the calls to `{}` are divided twice", split.service));
            return reader.report(at, finding.because(why).fix("keep one of the two"));
        }
        self.divided.insert(split.service.clone(), at);
        self.splits.push((at.file, split));
    }

    /// What stands in files without an error.
    pub(super) fn clean(self, reader: &Reader<'_>) -> Objects {
        let is_clean = |file: u16| !reader.has_errors(file);
        let mut hosts: Vec<String> =
            self.hosts.into_iter().filter(|(file, _)| is_clean(*file)).map(|(_, host)| host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let mut services: BTreeMap<ServiceName, Policies> = BTreeMap::new();
        for (_, name, policies) in self.services.into_iter().filter(|(file, ..)| is_clean(*file)) {
            let own = services.entry(name).or_default();
            own.overlay = overlaid(policies.overlay, &own.overlay);
            own.allow.extend(policies.allow);
            own.is_whole |= policies.is_whole;
            own.protocol = policies.protocol.or(own.protocol);
            if !policies.ports.is_empty() {
                own.ports = policies.ports;
            }
        }
        Objects {
            formats: BTreeSet::new(),
            services,
            routes: self.routes.into_iter().filter(|(file, _)| is_clean(*file)).map(|(_, route)| route).collect(),
            splits: self.splits.into_iter().filter(|(file, _)| is_clean(*file)).map(|(_, split)| split).collect(),
            hosts,
            entries: self.entries.into_iter().filter(|(file, _)| is_clean(*file)).map(|(_, stem)| stem).collect(),
            ruled: self.outside.into_keys().collect(),
            egress: self
                .egress
                .into_iter()
                .filter(|(_, (file, _))| is_clean(*file))
                .map(|(label, (_, host))| (label, host))
                .collect(),
        }
    }
}
