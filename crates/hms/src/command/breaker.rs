//! `hms breaker ls|show`: `calc-svc OPEN 27s left · 3×connect-refused · seen by gateway · next probe 12:05:31`.

use serde_json::Value;

use super::Context;
use super::services::read;
use super::status::breaker_tone;
use crate::cli::BreakerVerb;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Output, Tone, clean};
use crate::views::{Breaker, Items, proxy_name};

pub(super) async fn run(context: Context<'_>, verb: &BreakerVerb) -> Result<Exit, Failure> {
    let client = context.client()?;
    match verb {
        BreakerVerb::Ls => {
            let document: Value = client.get("/v1/breakers").await?;
            if !context.output.document("BreakerList", &document) {
                let breakers: Items<Breaker> = read(document)?;
                context.output.table(&table(&breakers.items));
            }
        }
        BreakerVerb::Show(options) => {
            let service = context.service(&options.service)?;
            let document: Value = client.get(&format!("/v1/breakers/{}", crate::client::segment(&service))).await?;
            if !context.output.document("Breaker", &document) {
                let breaker: Breaker = read(document)?;
                for line in lines(context.output, &breaker, &jiff::Zoned::now()) {
                    context.output.line(&line);
                }
            }
        }
    }
    Ok(Exit::Ok)
}

/// The sentence, then one line per endpoint and observer that has something to tell.
fn lines(output: &Output, breaker: &Breaker, now: &jiff::Zoned) -> Vec<String> {
    let phase = output.tint(breaker_tone(&breaker.phase), &breaker.phase);
    let mut facts = Vec::new();
    if let Some(left) = breaker.next_probe_ms.filter(|_| breaker.phase != "CLOSED") {
        facts.push(format!("{}s left", left.div_ceil(1000)));
    }
    if !breaker.reason.is_empty() {
        facts.push(reason(output, &breaker.reason));
    }
    let observers: Vec<&str> = breaker
        .seen_by
        .iter()
        .filter(|sight| sight.phase == breaker.phase)
        .map(|sight| proxy_name(&sight.proxy))
        .collect();
    if !observers.is_empty() && breaker.phase != "CLOSED" {
        facts.push(format!("seen by {}", observers.join(", ")));
    }
    if let Some(at) = breaker.next_probe_ms.filter(|_| breaker.phase != "CLOSED").and_then(|left| probe_at(now, left)) {
        facts.push(format!("next probe {at}"));
    }
    let separator = format!(" {} ", output.dot());
    let mut lines =
        vec![format!("{} {phase} {}", clean(&breaker.service), clean(&facts.join(&separator))).trim_end().to_owned()];
    for sight in &breaker.seen_by {
        for endpoint in
            sight.endpoints.iter().filter(|endpoint| endpoint.phase != "CLOSED" || endpoint.consecutive_failures > 0)
        {
            let text = format!(
                "  {} sees {} {} {} failures in a row {}",
                proxy_name(&sight.proxy),
                endpoint.address,
                endpoint.phase,
                endpoint.consecutive_failures,
                endpoint.reason
            );
            lines.push(output.tint(Tone::Dim, clean(text.trim_end()).as_str()));
        }
    }
    lines
}

/// `3 x connect refused` as people read it: `3×connect-refused`.
fn reason(output: &Output, text: &str) -> String {
    match text.split_once(" x ") {
        Some((count, what)) if count.chars().all(|c| c.is_ascii_digit()) => {
            format!("{count}{}{}", output.times(), what.replace(' ', "-"))
        }
        _ => text.to_owned(),
    }
}

fn probe_at(now: &jiff::Zoned, left: u64) -> Option<String> {
    let at = now.checked_add(jiff::SignedDuration::from_millis(i64::try_from(left).ok()?)).ok()?;
    Some(at.strftime("%H:%M:%S").to_string())
}

fn table(breakers: &[Breaker]) -> Table {
    let mut table = Table::new(&["SERVICE", "BREAKER", "REASON", "NEXT PROBE", "SEEN BY"]);
    for breaker in breakers {
        let probe = breaker.next_probe_ms.filter(|_| breaker.phase != "CLOSED");
        let observers: Vec<&str> = breaker.seen_by.iter().map(|sight| proxy_name(&sight.proxy)).collect();
        table.row(vec![
            breaker.service.as_str().into(),
            Cell::text(&breaker.phase).tone(breaker_tone(&breaker.phase)),
            if breaker.reason.is_empty() { "–" } else { breaker.reason.as_str() }.into(),
            Cell::number(probe.map_or_else(|| "–".to_owned(), |left| format!("{}s", left.div_ceil(1000)))),
            observers.join(", ").into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Look;

    fn breaker() -> Breaker {
        read(json!({"service": "calc-svc", "phase": "OPEN", "reason": "3 x connect refused", "next_probe_ms": 26_400,
            "seen_by": [{"proxy": "gateway.hms-system/1", "phase": "OPEN", "endpoints": [
                {"id": "1", "address": "127.0.0.1:41001", "phase": "OPEN", "reason": "connect refused",
                 "consecutive_failures": 3, "next_probe_ms": 26_400}]},
                {"proxy": "hello-svc/1", "phase": "CLOSED", "endpoints": []}]}))
        .unwrap()
    }

    #[test]
    fn an_open_breaker_says_why_who_and_when() {
        let now = "2026-11-20T12:05:04.6Z".parse::<jiff::Timestamp>().unwrap().to_zoned(jiff::tz::TimeZone::UTC);
        let output = Output::for_tests();
        insta::assert_snapshot!(lines(&output, &breaker(), &now).join("\n"), @r"
        calc-svc OPEN 27s left · 3×connect-refused · seen by gateway · next probe 12:05:31
          gateway sees 127.0.0.1:41001 OPEN 3 failures in a row connect refused
        ");
        let closed = Breaker { phase: "CLOSED".into(), reason: String::new(), seen_by: vec![], ..breaker() };
        assert_eq!(lines(&output, &closed, &now), ["calc-svc CLOSED"]);
        insta::assert_snapshot!(table(&[breaker(), closed]).render(Look::PLAIN), @r"
        SERVICE   BREAKER  REASON               NEXT PROBE  SEEN BY
        calc-svc  OPEN     3 x connect refused         27s  gateway, hello-svc
        calc-svc  CLOSED   –                             –
        ");
    }
}
