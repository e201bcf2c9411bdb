//! `service-splitter`: how the calls to a service are divided.

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::split::MOST_SHARES;

use super::chain::{Leg, Target};
use super::{edits, referred, settings, subset};
use crate::document::{Form, Value};
use crate::objects::object::{Object, items};
use crate::read::{Field, Keys, Reader};

const SPLITTER: Keys = Keys::new(&["Splits"]);
const SPLIT: Keys =
    Keys::new(&["Weight", "Service", "ServiceSubset", "Namespace", "Partition", "RequestHeaders", "ResponseHeaders"]);
/// Everything, in the smallest weights there are: hundredths of a per cent.
const ALL: u32 = 10_000;

/// The service and its shares.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(ServiceName, Vec<Leg>)> {
    let table = settings(reader, object, SPLITTER)?;
    let own = object.route_name(reader)?;
    let splits =
        reader.need_spelt(&table, "Splits", "[{Weight: 90, ServiceSubset: v1}, {Weight: 10, ServiceSubset: v2}]")?;
    let mut legs: Vec<Leg> = Vec::new();
    for item in items(reader, &table, "Splits", MOST_SHARES, "a list such as [{Weight: 100, ServiceSubset: v1}]") {
        let Some(table) = reader.table_spelt(item.node, &item.path, SPLIT, &[]) else { continue };
        // None is none, as in JSON that leaves zeros out.
        let weight = table.field("Weight").cloned().map_or(Some(0), |field| weight(reader, &field));
        let service = referred(reader, object, &table, &own);
        let subset = subset(reader, &table, "ServiceSubset");
        let (request, response) = edits::both(reader, &table);
        let (Some(weight), Some(service)) = (weight, service) else { continue };
        let name = |subset: &Option<(String, _)>| subset.as_ref().map(|(name, _)| name.clone());
        let same = |leg: &Leg| leg.target.service == service && name(&leg.target.subset) == name(&subset);
        if legs.iter().any(same) {
            let finding = Finding::error(2110, "a service and subset stand twice");
            reader.report(item.node.span, finding.fix("keep one of the two, with the sum of both weights"));
            continue;
        }
        legs.push(Leg { target: Target { service, subset }, weight, request, response, at: item.node.span });
    }
    let sum: u32 = legs.iter().map(|leg| leg.weight).sum();
    if sum != ALL && !reader.has_errors(object.at.file) {
        let shown = format!("{}.{:02}", sum / 100, sum % 100);
        let finding = Finding::error(2105, format!("the weights of `{}` come to {shown}", splits.path));
        reader.report(splits.node.span, finding.because("they are per cent").fix("let them come to 100"));
    }
    // Whole per cent stay what they are called.
    if legs.iter().all(|leg| leg.weight.is_multiple_of(100)) {
        for leg in &mut legs {
            leg.weight /= 100;
        }
    }
    Some((own, legs))
}

/// A share in hundredths of a per cent.
fn weight(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u32> {
    const WANTS: &str = "a weight of 0 to 100";
    let text = match &field.node.value {
        Value::Scalar(text, Form::Plain) => text.as_str(),
        _ => "",
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        reader.mismatch(field.node, &field.path, WANTS);
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let number = (whole.len() <= 3 && fraction.len() <= 2)
        .then(|| format!("{whole}{fraction:0<2}").parse::<u32>().ok())
        .flatten()
        .filter(|number| *number <= ALL);
    if number.is_none() {
        reader.bad(field, WANTS, "it is per cent, with at most two decimals", "write for example 12.5");
    }
    number
}
