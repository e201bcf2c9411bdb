//! `hms services`: the phone book, `calc-svc → 127.0.0.1:41234`.

use serde_json::Value;

use super::Context;
use super::status::state_tone;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::views::{Items, Service};

pub(super) async fn run(context: Context<'_>) -> Result<Exit, Failure> {
    let document: Value = context.client()?.get("/v1/services").await?;
    if context.output.document("ServiceList", &document) {
        return Ok(Exit::Ok);
    }
    let services: Items<Service> = read(document)?;
    if services.items.is_empty() {
        context.output.note("no services yet; next: hms register FILE, or hms run NAME -- CMD");
        return Ok(Exit::Ok);
    }
    context.output.table(&table(&services.items));
    Ok(Exit::Ok)
}

/// One row per endpoint; a service without one has a row too.
fn table(services: &[Service]) -> Table {
    let mut table = Table::new(&["SERVICE", "ADDRESS", "VERSION", "HEALTH", "SOURCE", "IDENTITY"]);
    for service in services {
        let name = service.display_name();
        if service.endpoints.is_empty() {
            table.row(vec![name.into(), "→ –".into(), "–".into(), state(&service.state), "–".into(), "–".into()]);
            continue;
        }
        for endpoint in &service.endpoints {
            table.row(vec![
                name.as_str().into(),
                format!("→ {}", endpoint.address).into(),
                endpoint.version.as_deref().filter(|version| !version.is_empty()).unwrap_or("–").into(),
                state(&endpoint.health),
                endpoint.source.as_str().into(),
                endpoint.identity.as_deref().unwrap_or("none (plain)").into(),
            ]);
        }
    }
    table
}

fn state(word: &str) -> Cell {
    Cell::text(word).tone(state_tone(word))
}

/// Reads a document that was fetched to be passed on, for people.
pub(super) fn read<T: serde::de::DeserializeOwned>(document: Value) -> Result<T, Failure> {
    serde_json::from_value(document).map_err(|error| {
        Failure::new(Exit::Failed, 1008, "the control plane's answer is not understood")
            .because(error.to_string())
            .fix("hms version   # compare the releases")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Look;

    #[test]
    fn every_endpoint_has_a_row_and_so_has_a_service_without() {
        let services: Items<Service> = read(json!({"items": [
            {"name": "calc-svc", "namespace": "default", "state": "healthy", "endpoints": [
                {"id": "1", "address": "127.0.0.1:41234", "version": "v1", "health": "healthy", "source": "sidecar",
                 "identity": "spiffe://lab/ns/default/sa/calc-svc"},
                {"id": "2", "address": "10.0.0.8:6000", "health": "unhealthy", "source": "rest", "identity": null}]},
            {"name": "pay", "namespace": "prod", "state": "waiting"}]}))
        .unwrap();
        insta::assert_snapshot!(table(&services.items).render(Look::PLAIN), @r"
        SERVICE   ADDRESS            VERSION  HEALTH     SOURCE   IDENTITY
        calc-svc  → 127.0.0.1:41234  v1       healthy    sidecar  spiffe://lab/ns/default/sa/calc-svc
        calc-svc  → 10.0.0.8:6000    –        unhealthy  rest     none (plain)
        pay.prod  → –                –        waiting    –        –
        ");
    }
}
