//! `hms shift SVC VERSION=PERCENT`: divides the calls to a service among its versions.

use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};
use hms_model::split;
use hms_traffic::split::{NoDivision, divide};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use super::services::read;
use super::taken;
use crate::cli;
use crate::client::segment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Tone};
use crate::views::{Service, Share, Split};

/// All calls; so a ten-thousandth of a percent is the finest share.
const ALL: u32 = split::MOST_WEIGHT;
/// What one percent of them is.
const PERCENT: u32 = ALL / 100;

pub(super) async fn run(context: Context<'_>, options: &cli::Shift) -> Result<Exit, Failure> {
    let client = context.client()?;
    let service = context.service(&options.service)?;
    let path = format!("/v1/services/{}/split", segment(&service));
    if options.shares.is_empty() && !options.clear {
        let document: Value = client.get(&path).await?;
        show(context, &document)?;
        return Ok(Exit::Ok);
    }
    let begun = Instant::now();
    let document: Value = if options.clear {
        client.delete(&path).await?
    } else {
        let now: Split = client.get(&path).await?;
        let known: Service = client.get(&format!("/v1/services/{}", segment(&service))).await?;
        let shares = divided(&service, &now.shares, &known.versions, &wanted(&options.shares)?)?;
        let shares: Vec<Value> = shares
            .iter()
            .map(|share| json!({"service": share.service, "version": share.version, "weight": share.weight}))
            .collect();
        client.put_at(&path, &json!({ "shares": shares }), now.revision).await?
    };
    let split = show(context, &document)?;
    taken::everywhere(context, &client, taken::Made::to(&service, split.revision, begun)).await
}

/// Prints a split.
fn show(context: Context<'_>, document: &Value) -> Result<Split, Failure> {
    let split: Split = read(document.clone())?;
    if context.output.document("Split", document) {
        return Ok(split);
    }
    if split.shares.is_empty() {
        context.output.line(&format!("{}: every instance is called, whatever its version", split.service));
        return Ok(split);
    }
    context.output.table(&table(&split));
    for share in split.shares.iter().filter(|share| share.weight > 0 && share.endpoints == 0) {
        let text = format!("{} has no healthy instance; until then the others get its share", named(&split, share));
        context.output.note(&format!("{} {text}", context.output.mark(Mark::Warning)));
    }
    Ok(split)
}

fn table(split: &Split) -> Table {
    let mut table = Table::new(&["VERSION", "SHARE", "INSTANCES"]);
    for share in &split.shares {
        let tone = if share.weight > 0 && share.endpoints == 0 { Tone::Warn } else { Tone::Plain };
        table.row(vec![
            Cell::text(named(split, share)),
            Cell::number(format!("{}%", percent(share.percent))),
            Cell::number(share.endpoints.to_string()).tone(tone),
        ]);
    }
    table
}

/// What a share goes to, as short as it is clear.
fn named(split: &Split, share: &Share) -> String {
    match (&share.version, share.service == split.service) {
        (Some(version), true) => version.clone(),
        (Some(version), false) => format!("{} {version}", share.service),
        (None, _) => share.service.clone(),
    }
}

/// Without zeros that say nothing.
pub(super) fn percent(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Versions with their weights.
type Wanted = Vec<(String, u32)>;

/// Reads `v2=10`.
fn wanted(words: &[String]) -> Result<Wanted, Failure> {
    let mut wanted = Wanted::new();
    for word in words {
        let bad = |why: &str| {
            Failure::new(Exit::Usage, 1017, format!("`{word}` is no share"))
                .because(why)
                .fix("hms shift payment-svc v2=10")
        };
        let (version, number) = word.split_once('=').ok_or_else(|| bad("it reads VERSION=PERCENT"))?;
        let weight = weight(number.strip_suffix('%').unwrap_or(number))
            .ok_or_else(|| bad("a percentage is 0 to 100, with at most four decimals"))?;
        if version.is_empty() || wanted.iter().any(|(other, _)| other == version) {
            return Err(bad("each version stands once"));
        }
        wanted.push((version.to_owned(), weight));
    }
    Ok(wanted)
}

/// A percentage as a weight out of [`ALL`], exactly.
fn weight(text: &str) -> Option<u32> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty()
        || (text.contains('.') && decimals.is_empty())
        || whole.len() > 3
        || decimals.len() > 4
        || !digits(whole)
        || !digits(decimals)
    {
        return None;
    }
    let fraction: u32 = format!("{decimals:0<4}").parse().ok()?;
    let weight = whole.parse::<u32>().ok()? * PERCENT + fraction;
    (weight <= ALL).then_some(weight)
}

/// The whole division: what is wanted as it is, and what is left among the others, in the proportions they have.
fn divided(service: &str, now: &[Share], known: &[String], wanted: &[(String, u32)]) -> Result<Vec<Share>, Failure> {
    let name = |text: &str| {
        ServiceName::from_host(text, DEFAULT_NAMESPACE).map_err(|error| {
            Failure::new(Exit::Failed, 1008, format!("`{text}` is no service")).because(error.to_string())
        })
    };
    let of = |share: &Share| {
        let version = share.version.clone().unwrap_or_default();
        Ok(split::Share { service: name(&share.service)?, version, weight: share.weight })
    };
    let now = now.iter().map(of).collect::<Result<Vec<_>, Failure>>()?;
    let shares = divide(&name(service)?, &now, known, wanted).map_err(|why| {
        let detail = match why {
            NoDivision::TooMuch => "what one gets another one loses".to_owned(),
            NoDivision::TooLittle(left) => {
                format!("nobody is there for the other {} %", percent(f64::from(left) / f64::from(PERCENT)))
            }
            NoDivision::Unversioned => "it could not be told from the others; start it with --version".to_owned(),
        };
        let failure = Failure::new(Exit::Usage, 1017, why.to_string()).because(detail);
        failure.fix(format!("hms shift {service} v1=90 v2=10"))
    })?;
    let share = |share: split::Share| Share {
        service: share.service.to_string(),
        version: Some(share.version).filter(|version| !version.is_empty()),
        weight: share.weight,
        ..Share::default()
    };
    Ok(shares.into_iter().map(share).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_another_service_stays_one() {
        let other = Share { service: "pay-next.prod".to_owned(), weight: 10, ..Share::default() };
        let own = Share { service: "pay".to_owned(), version: Some("v1".to_owned()), weight: 30, ..Share::default() };
        let shares = divided("pay", &[other, own], &[], &[("v2".to_owned(), 200_000)]).unwrap();
        let shown: Vec<_> =
            shares.iter().map(|share| (share.service.as_str(), share.version.as_deref(), share.weight)).collect();
        let own = [("pay", Some("v1"), 600_000), ("pay", Some("v2"), 200_000)];
        assert_eq!(shown, [own[0], own[1], ("pay-next.prod", None, 200_000)]);
        let refused = divided("pay", &[], &["v1".to_owned()], &[("v2".to_owned(), ALL + 1)]).unwrap_err();
        assert!(refused.message().contains("more than 100"), "{refused}");
    }

    #[test]
    fn percentages_are_read_exactly() {
        assert_eq!(["10", "0.01", "99.9999", "100", "0"].map(weight), [100_000, 100, 999_999, ALL, 0].map(Some));
        for bad in ["", "-1", "101", "1e1", "0.00001", "1.", "x", "100.0001"] {
            assert_eq!(weight(bad), None, "{bad}");
        }
        assert_eq!([90.0, 0.01, 33.3333].map(percent), ["90", "0.01", "33.3333"]);
    }
}
