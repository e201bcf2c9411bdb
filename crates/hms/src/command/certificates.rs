//! `hms certificates ls|rotate`, also `envoyctl certificates rotate --validity 24h`.

use serde_json::{Value, json};

use super::Context;
use super::services::read;
use super::status::span;
use crate::cli::{CertificatesVerb, Rotate};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Tone};
use crate::views::{Certificate, Items, Rotated};

pub(super) async fn run(context: Context<'_>, verb: &CertificatesVerb) -> Result<Exit, Failure> {
    match verb {
        CertificatesVerb::Ls => {
            let document: Value = context.client()?.get("/v1/certificates").await?;
            if !context.output.document("CertificateList", &document) {
                let certificates: Items<Certificate> = read(document)?;
                context.output.table(&table(&certificates.items, jiff::Timestamp::now().as_second()));
            }
            Ok(Exit::Ok)
        }
        CertificatesVerb::Rotate(options) => rotate(context, options).await,
    }
}

async fn rotate(context: Context<'_>, options: &Rotate) -> Result<Exit, Failure> {
    let mut body = serde_json::Map::new();
    if let Some(service) = &options.service {
        body.insert("service".to_owned(), json!(context.service(service)?));
    }
    if let Some(validity) = options.validity {
        body.insert("validity_seconds".to_owned(), json!(validity.as_secs()));
    }
    let document: Value = context.client()?.post("/v1/certificates/rotate", &body).await?;
    let results: Vec<Rotated> = read(document.get("rotated").cloned().unwrap_or_default())?;
    let failed = results.iter().filter(|result| result.error.is_some()).count();
    if !context.output.document("Rotation", &document) {
        for result in &results {
            let (mark, text) = match (&result.error, &result.serial) {
                (Some(error), _) => (Mark::Failed, format!("{}: {error}", result.identity)),
                (None, Some(serial)) => (Mark::Ok, format!("{} rotated, serial {serial}", result.identity)),
                (None, None) => (Mark::Ok, format!("{} rotated", result.identity)),
            };
            context.output.line(&format!("{} {}", context.output.mark(mark), crate::output::clean(&text)));
        }
        if results.is_empty() {
            context.output.note("no proxy holds a certificate");
        }
    }
    if failed > 0 {
        let message = format!("{failed} of {} certificates were not rotated", results.len());
        return Err(Failure::new(Exit::Failed, 4301, message)
            .because("the old ones stay in use")
            .fix("hms check --only certificates"));
    }
    Ok(Exit::Ok)
}

fn table(certificates: &[Certificate], now: i64) -> Table {
    let mut table = Table::new(&["SUBJECT", "SERIAL", "EXPIRES", "LEFT", "ROTATES_IN", "HELD BY"]);
    for certificate in certificates {
        let left = certificate.not_after.saturating_sub(now);
        let due = certificate.rotates_at.saturating_sub(now);
        let tone = match (left, certificate.failures) {
            (..=0, _) => Tone::Bad,
            (_, 1..) => Tone::Warn,
            _ => Tone::Good,
        };
        let expires = jiff::Timestamp::from_second(certificate.not_after)
            .map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
            .unwrap_or_default();
        let failures =
            if certificate.failures > 0 { format!(" ({} failed)", certificate.failures) } else { String::new() };
        table.row(vec![
            certificate.identity.as_str().into(),
            certificate.serial.as_str().into(),
            expires.into(),
            Cell::number(if left > 0 { span(left) } else { "expired".to_owned() }).tone(tone),
            Cell::number(format!("{}{failures}", if due > 0 { span(due) } else { "now".to_owned() })),
            certificate.proxy.as_str().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Look;

    #[test]
    fn certificates_show_what_is_left_of_them() {
        let certificate = Certificate {
            identity: "spiffe://lab/ns/default/sa/calc-svc".into(),
            serial: "4a17".into(),
            proxy: "calc-svc-1".into(),
            not_after: 1_796_990_400,
            rotates_at: 1_796_932_800,
            failures: 0,
        };
        let late = Certificate { failures: 2, not_after: 1_796_904_001, rotates_at: 0, ..certificate.clone() };
        insta::assert_snapshot!(table(&[certificate, late], 1_796_904_000).render(Look::PLAIN), @r"
        SUBJECT                              SERIAL  EXPIRES               LEFT   ROTATES_IN      HELD BY
        spiffe://lab/ns/default/sa/calc-svc  4a17    2026-12-11T12:00:00Z  1d00h           8h00m  calc-svc-1
        spiffe://lab/ns/default/sa/calc-svc  4a17    2026-12-10T12:00:01Z     1s  now (2 failed)  calc-svc-1
        ");
    }
}
