//! The kinds of object that are read.

use hms_model::finding::Finding;

use crate::document::short;
use crate::read::{Field, Reader, nearest};
use crate::{appmesh, consul};

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SMI's.
    TrafficSplit,
    /// The Gateway API's.
    HttpRoute,
    /// The Gateway API's.
    GrpcRoute,
    /// The Gateway API's.
    TcpRoute,
    /// The Gateway API's.
    TlsRoute,
    /// The Gateway API's.
    Gateway,
    /// The Gateway API's.
    ReferenceGrant,
    /// The Gateway API's.
    BackendTlsPolicy,
    /// Istio's.
    VirtualService,
    /// Istio's.
    DestinationRule,
    /// Istio's.
    ServiceEntry,
    /// SMI's.
    HttpRouteGroup,
    /// SMI's.
    TrafficTarget,
    /// Linkerd's `HTTPRoute`.
    LinkerdRoute,
    /// Kubernetes' own, for Linkerd's annotations.
    Service,
    /// Consul's.
    ServiceRouter,
    /// Consul's.
    ServiceSplitter,
    /// Consul's.
    ServiceResolver,
    /// Consul's.
    ServiceDefaults,
    /// Consul's.
    ServiceIntentions,
    /// App Mesh's.
    AppMeshService,
    /// App Mesh's.
    AppMeshRouter,
    /// App Mesh's, as the command line has it.
    AppMeshRoute,
    /// App Mesh's.
    AppMeshNode,
    /// App Mesh's.
    AppMeshGatewayRoute,
    /// App Mesh's, of which there is one here.
    AppMeshOther,
}

impl Kind {
    /// Whose it is, in the words of `hms convert --from`.
    pub(crate) fn format(self) -> &'static str {
        match self {
            Self::TrafficSplit | Self::HttpRouteGroup | Self::TrafficTarget => "smi",
            Self::LinkerdRoute | Self::Service => "linkerd",
            Self::VirtualService | Self::DestinationRule | Self::ServiceEntry => "istio",
            Self::ServiceRouter
            | Self::ServiceSplitter
            | Self::ServiceResolver
            | Self::ServiceDefaults
            | Self::ServiceIntentions => "consul",
            Self::AppMeshService
            | Self::AppMeshRouter
            | Self::AppMeshRoute
            | Self::AppMeshNode
            | Self::AppMeshGatewayRoute
            | Self::AppMeshOther => "appmesh",
            _ => "gateway-api",
        }
    }

    /// The kind that it shares its names with: all that become routes for requests are stored as such.
    pub(crate) fn stored_as(self) -> Self {
        match self {
            Self::GrpcRoute
            | Self::LinkerdRoute
            | Self::VirtualService
            | Self::ServiceRouter
            | Self::AppMeshGatewayRoute => Self::HttpRoute,
            own => own,
        }
    }
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A row: group, kind, versions with the usual one first, what it is.
type Row = (&'static str, &'static str, &'static [&'static str], Kind);

const KINDS: &[Row] = &[
    (GATEWAY_API, "HTTPRoute", &["v1", "v1beta1"], Kind::HttpRoute),
    (GATEWAY_API, "GRPCRoute", &["v1", "v1alpha2"], Kind::GrpcRoute),
    (GATEWAY_API, "TCPRoute", &["v1", "v1alpha2"], Kind::TcpRoute),
    (GATEWAY_API, "TLSRoute", &["v1", "v1alpha3", "v1alpha2"], Kind::TlsRoute),
    (GATEWAY_API, "Gateway", &["v1", "v1beta1"], Kind::Gateway),
    (GATEWAY_API, "ReferenceGrant", &["v1", "v1beta1", "v1alpha2"], Kind::ReferenceGrant),
    (GATEWAY_API, "BackendTLSPolicy", &["v1", "v1alpha3"], Kind::BackendTlsPolicy),
    ("", "Service", &["v1"], Kind::Service),
    ("policy.linkerd.io", "HTTPRoute", &["v1beta3", "v1beta2", "v1beta1", "v1alpha1"], Kind::LinkerdRoute),
    ("networking.istio.io", "VirtualService", &["v1", "v1beta1", "v1alpha3"], Kind::VirtualService),
    ("networking.istio.io", "DestinationRule", &["v1", "v1beta1", "v1alpha3"], Kind::DestinationRule),
    ("networking.istio.io", "ServiceEntry", &["v1", "v1beta1", "v1alpha3"], Kind::ServiceEntry),
    ("specs.smi-spec.io", "HTTPRouteGroup", &["v1alpha4", "v1alpha3", "v1alpha2", "v1alpha1"], Kind::HttpRouteGroup),
    ("access.smi-spec.io", "TrafficTarget", &["v1alpha3", "v1alpha2", "v1alpha1"], Kind::TrafficTarget),
    (appmesh::GROUP, "VirtualService", &["v1beta2"], Kind::AppMeshService),
    (appmesh::GROUP, "VirtualRouter", &["v1beta2"], Kind::AppMeshRouter),
    (appmesh::GROUP, "VirtualNode", &["v1beta2"], Kind::AppMeshNode),
    (appmesh::GROUP, "GatewayRoute", &["v1beta2"], Kind::AppMeshGatewayRoute),
    (appmesh::GROUP, "VirtualGateway", &["v1beta2"], Kind::AppMeshOther),
    (appmesh::GROUP, "Mesh", &["v1beta2"], Kind::AppMeshOther),
    (appmesh::GROUP, "BackendGroup", &["v1beta2"], Kind::AppMeshOther),
    (consul::GROUP, "ServiceRouter", &["v1alpha1"], Kind::ServiceRouter),
    (consul::GROUP, "ServiceSplitter", &["v1alpha1"], Kind::ServiceSplitter),
    (consul::GROUP, "ServiceResolver", &["v1alpha1"], Kind::ServiceResolver),
    (consul::GROUP, "ServiceDefaults", &["v1alpha1"], Kind::ServiceDefaults),
    (consul::GROUP, "ServiceIntentions", &["v1alpha1"], Kind::ServiceIntentions),
    ("split.smi-spec.io", "TrafficSplit", &["v1alpha2", "v1alpha3", "v1alpha4"], Kind::TrafficSplit),
];

/// What an object is; `None` with a finding if it is none that is read.
pub(crate) fn of(reader: &mut Reader<'_>, heads: &[Field<'_>; 2]) -> Option<Kind> {
    let [version, kind] = heads;
    let api = reader.text(version, "a group and a version")?;
    let word = reader.text(kind, "the kind of an object")?;
    let (group, number) = api.split_once('/').unwrap_or(("", api));
    let namesakes: Vec<&Row> = KINDS.iter().filter(|row| row.1 == word).collect();
    let Some(first) = namesakes.first() else {
        unknown(reader, kind, word);
        return None;
    };
    let written = |row: &Row| {
        let version = row.2.first().copied().unwrap_or_default();
        if row.0.is_empty() { version.to_owned() } else { format!("{}/{version}", row.0) }
    };
    let Some(row) = namesakes.iter().find(|row| row.0 == group) else {
        let known: Vec<String> = namesakes.iter().map(|row| written(row)).collect();
        let groups: Vec<&str> = namesakes.iter().map(|row| row.0).collect();
        let near = nearest(group, &groups).and_then(|near| namesakes.iter().find(|row| row.0 == near));
        let finding = Finding::error(2170, format!("`{word}` of `{}` is not read", short(api)));
        let fix = format!("apiVersion: {}", written(near.unwrap_or(first)));
        reader.report(version.node.span, finding.because(format!("known: {}", known.join(", "))).fix(fix));
        return None;
    };
    if !row.2.contains(&number) {
        // The rest is read all the same, for its own mistakes.
        let finding = Finding::error(2170, format!("the version `{}` of `{word}` is not read", short(number)));
        let why = format!("known: {}", row.2.join(", "));
        reader.report(version.node.span, finding.because(why).fix(format!("apiVersion: {}", written(row))));
    }
    Some(row.3)
}

fn unknown(reader: &mut Reader<'_>, kind: &Field<'_>, word: &str) {
    let mut known: Vec<&str> = KINDS.iter().map(|row| row.1).collect();
    known.dedup();
    known.sort_unstable();
    known.dedup();
    let finding = match nearest(word, &known) {
        Some(near) => Finding::error(2170, format!("no kind `{}`; did you mean `{near}`?", short(word)))
            .fix(format!("kind: {near}")),
        None => Finding::error(2170, format!("objects of the kind `{}` are not read", short(word)))
            .fix("leave it out of these files"),
    };
    reader.report(kind.node.span, finding.because(format!("known: {}", known.join(", "))));
}
