//! What the authorities are asked for beside certificates: their roots, join tokens, and who a process is.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::listener::Role;
use hms_model::names::ServiceName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::certificates::written;
use super::input;
use super::problem::{Kind, Problem};
use super::table::Operation;
use super::tokens::{IssuedToken, life};
use crate::ca::attest::AttestError;
use crate::ca::service::{EGRESS, GATEWAY, SYSTEM_NAMESPACE};
use crate::ca::tokens::{JoinError, LONGEST_LIFE};

/// RFC 8555 §9.1.
const PEM: &str = "application/pem-certificate-chain";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/ca/root", "meshRoot", "The root of the mesh's trust domain, PEM.", root)
            .text(PEM),
        Operation::new(
            Method::GET,
            "/v1/ca/edge",
            "edgeRoot",
            "The root of the edge authority, PEM: what curl and browsers are to trust.",
            edge,
        )
        .text(PEM),
        Operation::new(
            Method::POST,
            "/v1/join-tokens",
            "createJoinToken",
            "A token that lets one workload on another host get its first certificate, once.",
            join_token,
        )
        .takes::<JoinTokenRequest>()
        .answers::<IssuedToken>(StatusCode::CREATED)
        .fails(&[StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(
            Method::POST,
            "/v1/attestations",
            "attest",
            "Says which service's proxy a process of this machine and user is.",
            attest,
        )
        .takes::<AttestationRequest>()
        .fails(&[StatusCode::UNPROCESSABLE_ENTITY, StatusCode::TOO_MANY_REQUESTS]),
    ]
}

/// For whom a join token is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JoinTokenRequest {
    /// The service that whoever uses it becomes.
    service: String,
    /// How long it may be used: one hour if nothing is stated, at most a day.
    #[schemars(range(min = 1, max = 86400))]
    ttl_seconds: Option<u64>,
}

/// What a process is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AttestationRequest {
    /// The process; it must run as the control plane's own user.
    #[schemars(range(min = 1, max = 4_194_304))]
    process_id: u32,
    /// The service it stands beside; `gateway` for a gateway, `egress` for an egress gateway.
    service: String,
    /// What kind of proxy it is.
    role: RoleWord,
}

/// The kinds of proxy that are attested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RoleWord {
    /// Beside a workload.
    Sidecar,
    /// Where traffic from outside enters.
    Gateway,
    /// Where traffic to the outside leaves.
    Egress,
}

async fn root(State(context): State<Context>) -> Response {
    pem(context.parts().ca.root_pem())
}

async fn edge(State(context): State<Context>) -> Response {
    pem(context.parts().edge.root_pem())
}

fn pem(text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(PEM))], text).into_response()
}

async fn join_token(
    State(context): State<Context>,
    input::Json(request): input::Json<JoinTokenRequest>,
) -> Result<(StatusCode, Json<IssuedToken>), Problem> {
    let service = input::service(&request.service, "`/service`")?;
    if service.namespace() == SYSTEM_NAMESPACE {
        return Err(Problem::new(Kind::Shape, format!("`/service`: `{SYSTEM_NAMESPACE}` is the mesh's own namespace")));
    }
    let life = life(request.ttl_seconds, LONGEST_LIFE)?;
    let (token, expires_at) = context.parts().tokens.create(&service, life).await.map_err(|error| match error {
        JoinError::TooMany => Problem::new(Kind::TooMany, error.to_string()),
        JoinError::Store(error) => error.into(),
        JoinError::Refused | JoinError::Make(_) => Problem::internal(&error),
    })?;
    let issued = IssuedToken { token: token.reveal().to_owned(), expires_at: written(expires_at) };
    Ok((StatusCode::CREATED, Json(issued)))
}

async fn attest(
    State(context): State<Context>,
    input::Json(request): input::Json<AttestationRequest>,
) -> Result<StatusCode, Problem> {
    let named = input::service(&request.service, "`/service`")?;
    let role = match request.role {
        RoleWord::Sidecar => Role::Sidecar,
        RoleWord::Gateway => Role::Gateway,
        RoleWord::Egress => Role::Egress,
    };
    let identity = context.identity(&workload(&named, role)?)?;
    let attested = context.parts().attestations.attest(request.process_id, identity.clone(), role);
    attested.map_err(|error| match error {
        AttestError::Full => Problem::new(Kind::TooMany, error.to_string()),
        AttestError::NoProcess(_) | AttestError::OtherUser(_) => Problem::new(Kind::Identity, error.to_string())
            .because("only living processes of the control plane's own user are attested"),
    })?;
    tracing::info!(target: "audit", process = request.process_id, %identity, %role, "attested a process");
    Ok(StatusCode::NO_CONTENT)
}

/// Whose proxy it is: the mesh's own namespace belongs to gateways of both kinds alone, and they to it.
fn workload(named: &ServiceName, role: Role) -> Result<ServiceName, Problem> {
    let own = named.namespace() == SYSTEM_NAMESPACE;
    match (role, named.name()) {
        (Role::Gateway, GATEWAY) | (Role::Egress, EGRESS) => {
            ServiceName::in_namespace(SYSTEM_NAMESPACE, named.name()).map_err(|error| Problem::internal(&error))
        }
        (Role::Sidecar, _) if !own => Ok(named.clone()),
        _ => Err(Problem::new(Kind::Shape, format!("`/service`: a {role} is none of `{named}`")).because(format!(
            "gateways are `{GATEWAY}`, egress gateways `{EGRESS}`, and `{SYSTEM_NAMESPACE}` has no others"
        ))),
    }
}
