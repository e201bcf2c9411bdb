//! Certificates of workloads: who has which, and asking for new ones.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input;
use super::problem::{Kind, Problem};
use super::services;
use super::table::Operation;
use super::view::Items;
use crate::live::CertificateReport;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/v1/certificates",
            "listCertificates",
            "The certificate that each connected proxy speaks with.",
            list,
        )
        .answers::<Items<CertificateView>>(StatusCode::OK),
        Operation::new(
            Method::POST,
            "/v1/certificates/rotate",
            "rotateCertificates",
            "Has the proxies of one service, or all, get new certificates now, and waits at most ten seconds.",
            rotate,
        )
        .takes::<RotateRequest>()
        .answers::<Rotated>(StatusCode::OK)
        .fails(&[StatusCode::NOT_FOUND]),
    ]
}

/// The certificate a proxy speaks with.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Certificate")]
struct CertificateView {
    /// Whose it is.
    identity: String,
    /// Serial number, hexadecimal.
    serial: String,
    /// The proxy.
    proxy: String,
    /// From when it is valid (RFC 3339).
    not_before: String,
    /// Until when (RFC 3339).
    not_after: String,
    /// When its proxy will renew it (RFC 3339).
    rotates_at: String,
    /// Failed renewals since the last success.
    failures: u32,
}

impl From<CertificateReport> for CertificateView {
    fn from(report: CertificateReport) -> Self {
        Self {
            identity: report.identity.to_string(),
            serial: report.serial,
            proxy: report.proxy,
            not_before: time(report.not_before),
            not_after: time(report.not_after),
            rotates_at: time(report.rotates_at),
            failures: report.failures,
        }
    }
}

/// Unix seconds as people read them; a time beyond all calendars is the epoch.
fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// A time as people read it, in whole seconds.
pub(super) fn written(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    self::time(i64::try_from(seconds).unwrap_or_default())
}

/// Which certificates are to be renewed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RotateRequest {
    /// Those of one service; of all if none is named.
    service: Option<String>,
    /// How long the new ones live; the default if nothing is stated.
    validity_seconds: Option<u64>,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
struct Rotated {
    /// One entry per proxy that was asked.
    rotated: Vec<Rotation>,
}

/// What one proxy did.
#[derive(Debug, Serialize, JsonSchema)]
struct Rotation {
    /// Whose certificate.
    identity: String,
    /// The proxy.
    proxy: String,
    /// The serial number of the new certificate, if it is known already.
    serial: Option<String>,
    /// Why there is none; null on success.
    error: Option<String>,
}

async fn list(State(context): State<Context>) -> Json<Items<CertificateView>> {
    Json(Items { items: context.parts().live.certificates().into_iter().map(Into::into).collect() })
}

async fn rotate(
    State(context): State<Context>,
    input::Json(request): input::Json<RotateRequest>,
) -> Result<Json<Rotated>, Problem> {
    let parts = context.parts();
    let validity = request.validity_seconds.map(Duration::from_secs);
    let lifetimes = parts.ca.lifetimes();
    if let Some(asked) = validity.filter(|asked| lifetimes.clamp(Some(*asked)) != *asked) {
        let (least, most) =
            (lifetimes.clamp(Some(Duration::ZERO)).as_secs(), lifetimes.clamp(Some(Duration::MAX)).as_secs());
        return Err(Problem::new(Kind::Shape, format!("`/validity_seconds`: {} is out of bounds", asked.as_secs()))
            .because(format!("a certificate lives {least} to {most} seconds")));
    }
    let service = request.service.map(|text| input::service(&text, "`/service`")).transpose()?;
    let asked = parts.live.rotate(service.as_ref(), validity.unwrap_or_default()).await;
    if let Some(service) = service.filter(|_| asked.is_empty()) {
        services::known(&parts.registry.view(), &service)?;
    }
    let rotated = asked.into_iter().map(|view| Rotation {
        identity: view.identity.to_string(),
        proxy: view.proxy,
        serial: view.serial,
        error: view.error,
    });
    Ok(Json(Rotated { rotated: rotated.collect() }))
}
