//! Endpoints that somebody registers by hand or by a pipeline (S0-5, S0-14): things without a proxy.

use std::net::{IpAddr, Ipv4Addr};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use hms_model::names::ServiceName;
use hms_model::resource::valid_id;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use schemars::JsonSchema;
use serde::Deserialize;

use super::input::{self, PathEndpoint, PathService, shown};
use super::problem::{Kind, Problem};
use super::table::Operation;
use super::view::EndpointView;
use super::{ACTOR, Context};

/// The id of an endpoint that was registered without one. There is one per service, so registering again with a new address
/// replaces the old one (S0-9).
const OWN_ID: &str = "api";
/// The version of an endpoint that was registered without one.
const VERSION: &str = "latest";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::POST,
            "/v1/services/{service}/endpoints",
            "registerEndpoint",
            "Registers an endpoint without a proxy; one of the same id, or without id the former one, is replaced.",
            register,
        )
        .takes::<EndpointRequest>()
        .answers::<EndpointView>(StatusCode::CREATED)
        .fails(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT]),
        Operation::new(
            Method::PUT,
            "/v1/services/{service}/endpoints/{id}",
            "putEndpoint",
            "Registers an endpoint without a proxy under an id, or changes it.",
            put,
        )
        .takes::<EndpointRequest>()
        .answers::<EndpointView>(StatusCode::OK)
        .fails(&[StatusCode::SERVICE_UNAVAILABLE, StatusCode::CONFLICT]),
        Operation::new(
            Method::DELETE,
            "/v1/services/{service}/endpoints/{id}",
            "removeEndpoint",
            "Removes an endpoint, whoever registered it.",
            remove,
        )
        .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// An endpoint to be registered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EndpointRequest {
    /// Its id within the service: 1 to 128 of letters, digits, `.`, `_`, `:` and `-`.
    id: Option<String>,
    /// Its IP address; `localhost` is one as well.
    host: String,
    /// Its port.
    #[schemars(range(min = 1, max = 65535))]
    port: u16,
    /// Its version; `latest` if none is stated.
    version: Option<String>,
    /// Its failure domain.
    zone: Option<String>,
    /// Its health; `healthy` if nothing is stated.
    health: Option<HealthWord>,
}

/// Whether an endpoint can be given work.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum HealthWord {
    /// It answers.
    Healthy,
    /// It does not.
    Unhealthy,
    /// It finishes what it has.
    Draining,
}

impl EndpointRequest {
    fn endpoint(self, service: ServiceName, id: String) -> Result<Endpoint, Problem> {
        let ip = match self.host.as_str() {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().map_err(|_no_address| {
                Problem::new(Kind::Shape, format!("`/host`: `{}` is no IP address", shown(host)))
                    .because("an endpoint is one place, and a name may be many")
            })?,
        };
        Ok(Endpoint {
            service,
            id,
            address: Address { ip, port: self.port },
            app_port: self.port,
            version: self.version.filter(|version| !version.is_empty()).unwrap_or_else(|| VERSION.to_owned()),
            zone: self.zone.unwrap_or_default(),
            health: match self.health {
                None | Some(HealthWord::Healthy) => Health::Healthy,
                Some(HealthWord::Unhealthy) => Health::Unhealthy,
                Some(HealthWord::Draining) => Health::Draining,
            },
            source: Registrar::Api,
            transport: Transport::Plain,
        })
    }
}

async fn register(
    State(context): State<Context>,
    PathService(service): PathService,
    input::Json(mut request): input::Json<EndpointRequest>,
) -> Result<(StatusCode, Json<EndpointView>), Problem> {
    let id = request.id.take().unwrap_or_else(|| OWN_ID.to_owned());
    if !valid_id(&id) {
        return Err(Problem::new(Kind::Shape, format!("`/id`: `{}` is no id", shown(&id)))
            .because("an id is 1 to 128 of letters, digits, '.', '_', ':' and '-'"));
    }
    let endpoint = request.endpoint(service, id)?;
    let view = EndpointView::from(&endpoint);
    context.parts().registry.register(ACTOR, endpoint).await?;
    Ok((StatusCode::CREATED, Json(view)))
}

async fn put(
    State(context): State<Context>,
    PathEndpoint { service, id }: PathEndpoint,
    input::Json(request): input::Json<EndpointRequest>,
) -> Result<Json<EndpointView>, Problem> {
    if request.id.as_ref().is_some_and(|stated| *stated != id) {
        return Err(Problem::new(Kind::Shape, "`/id`: the body names another id than the path"));
    }
    let endpoint = request.endpoint(service, id)?;
    let view = EndpointView::from(&endpoint);
    context.parts().registry.register(ACTOR, endpoint).await?;
    Ok(Json(view))
}

async fn remove(
    State(context): State<Context>,
    PathEndpoint { service, id }: PathEndpoint,
) -> Result<StatusCode, Problem> {
    context.parts().registry.remove(ACTOR, &service, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}
