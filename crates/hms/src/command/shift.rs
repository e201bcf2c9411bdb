//! `hms shift SVC VERSION=PERCENT`: divides the calls to a service among its versions.

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
const ALL: u32 = 1_000_000;
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
fn percent(value: f64) -> String {
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
    let refused = |what: String, why: String| {
        Failure::new(Exit::Usage, 1017, what).because(why).fix(format!("hms shift {service} v1=90 v2=10"))
    };
    let total: u32 = wanted.iter().map(|(_, weight)| weight).sum();
    let Some(left) = ALL.checked_sub(total) else {
        return Err(refused(
            "these shares are more than 100 %".to_owned(),
            "what one gets another one loses".to_owned(),
        ));
    };
    let share = |service: &str, version: Option<&str>, weight: u32| Share {
        service: service.to_owned(),
        version: version.map(ToOwned::to_owned),
        weight,
        ..Share::default()
    };
    let is_wanted = |version: Option<&str>| wanted.iter().any(|(own, _)| Some(own.as_str()) == version);
    if now.is_empty() && known.iter().any(String::is_empty) {
        let why = "it could not be told from the others; start it with --version".to_owned();
        return Err(refused("an instance without a version runs".to_owned(), why));
    }
    let mut others: Vec<Share> = if now.is_empty() {
        known.iter().map(|version| share(service, Some(version), 1)).collect()
    } else {
        now.to_vec()
    };
    others.retain(|other| other.service != service || !is_wanted(other.version.as_deref()));
    let before: u64 = others.iter().map(|other| u64::from(other.weight)).sum();
    if left > 0 && others.is_empty() {
        let why = format!("nobody is there for the other {} %", percent(f64::from(left) / f64::from(PERCENT)));
        return Err(refused("these shares are less than 100 %".to_owned(), why));
    }
    let count = u64::try_from(others.len()).unwrap_or(1).max(1);
    let mut given = 0;
    for other in &mut others {
        let part =
            (u64::from(left) * u64::from(other.weight)).checked_div(before).unwrap_or_else(|| u64::from(left) / count);
        other.weight = u32::try_from(part).unwrap_or(left);
        given += other.weight;
    }
    // What rounding has left over.
    if let Some(first) = others.iter_mut().max_by_key(|other| other.weight) {
        first.weight += left - given;
    }
    let mut shares: Vec<Share> =
        wanted.iter().map(|(version, weight)| share(service, Some(version), *weight)).collect();
    shares.append(&mut others);
    shares.sort_by(|one, other| (&one.service, &one.version).cmp(&(&other.service, &other.version)));
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(service: &str, now: &[(&str, u32)], known: &[&str], wanted: &[(&str, u32)]) -> Result<Wanted, String> {
        let now: Vec<Share> = now
            .iter()
            .map(|(version, weight)| Share {
                service: service.to_owned(),
                version: Some((*version).to_owned()),
                weight: *weight,
                ..Share::default()
            })
            .collect();
        let known: Vec<String> = known.iter().map(|&version| version.to_owned()).collect();
        let wanted: Vec<(String, u32)> =
            wanted.iter().map(|(version, share)| ((*version).to_owned(), *share)).collect();
        let divided = divided(service, &now, &known, &wanted).map_err(|failure| failure.to_string())?;
        Ok(divided.into_iter().map(|share| (share.version.unwrap_or_default(), share.weight)).collect())
    }

    fn pairs(of: &[(&str, u32)]) -> Wanted {
        of.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect()
    }

    #[test]
    fn what_is_left_goes_to_the_others_in_their_proportions() {
        let of = |now: &[_], known: &[_], wanted: &[_]| shares("a", now, known, wanted).unwrap();
        assert_eq!(of(&[], &["v1", "v2"], &[("v2", 100_000)]), pairs(&[("v1", 900_000), ("v2", 100_000)]));
        assert_eq!(of(&[], &["v1"], &[("v1", ALL)]), pairs(&[("v1", ALL)]));
        assert_eq!(
            of(&[("v1", 90), ("v2", 10)], &["v1", "v2", "v3"], &[("v3", 500_000)]),
            pairs(&[("v1", 450_000), ("v2", 50_000), ("v3", 500_000)])
        );
        // All of it: the other stays known, and gets nothing.
        assert_eq!(of(&[("v1", 90), ("v2", 10)], &[], &[("v2", ALL)]), pairs(&[("v1", 0), ("v2", ALL)]));
        assert_eq!(of(&[("v1", 0), ("v2", ALL)], &[], &[("v2", 400_000)]), pairs(&[("v1", 600_000), ("v2", 400_000)]));
        let thirds = of(&[("a", 1), ("b", 1), ("c", 1)], &[], &[("d", 0)]);
        assert_eq!(
            thirds.iter().map(|(_, weight)| weight).sum::<u32>(),
            ALL,
            "nothing is lost by rounding: {thirds:?}"
        );
    }

    #[test]
    fn shares_that_cannot_be_are_refused() {
        assert!(shares("a", &[], &["v1"], &[("v1", 600_000), ("v2", 500_000)]).unwrap_err().contains("more than 100"));
        assert!(shares("a", &[], &[], &[("v2", 500_000)]).unwrap_err().contains("less than 100"));
        assert!(shares("a", &[], &["", "v2"], &[("v2", 500_000)]).unwrap_err().contains("without a version"));
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
