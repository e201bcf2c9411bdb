//! `hms enforce mtls --mode STRICT`, also `envoyctl enforce mtls --mode STRICT`: between two proxies this release knows
//! nothing but strict mutual TLS, so enforcing it means proving that no endpoint is reached in the clear.

use serde_json::json;

use super::Context;
use crate::cli::{EnforceRule, MtlsMode};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Mark;
use crate::views::{Items, Service};

pub(super) async fn run(context: Context<'_>, rule: &EnforceRule) -> Result<Exit, Failure> {
    let EnforceRule::Mtls { mode } = rule;
    if *mode == MtlsMode::Permissive {
        return Err(Failure::new(Exit::Conflict, 1022, "mTLS cannot be made PERMISSIVE")
            .because("this release has STRICT only: a proxy has no listener that takes plaintext from the mesh")
            .fix("hms enforce mtls --mode STRICT"));
    }
    let services: Items<Service> = context.client()?.get("/v1/services").await?;
    let plain: Vec<(String, String)> = services
        .items
        .iter()
        .flat_map(|service| {
            let plain = service.endpoints.iter().filter(|endpoint| endpoint.identity.is_none());
            plain.map(|endpoint| (service.display_name(), endpoint.address.clone()))
        })
        .collect();
    let output = context.output;
    let listed: Vec<_> =
        plain.iter().map(|(service, address)| json!({"service": service, "address": address})).collect();
    let document = json!({"mode": "STRICT", "services": services.items.len(), "plain": listed});
    if !output.document("MtlsMode", &document) {
        output.line(&format!("{} mTLS STRICT for {} services", output.mark(Mark::Ok), services.items.len()));
        for (service, address) in &plain {
            let text = format!("{service} at {address} has no proxy; calls to it travel in the clear");
            output.line(&format!("{} {}", output.mark(Mark::Warning), crate::output::clean(&text)));
            output.line(&format!("    fix: hms run {service} -- CMD   # gives it a sidecar"));
        }
    }
    Ok(if plain.is_empty() { Exit::Ok } else { Exit::Findings })
}
