//! What must hold.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;

use super::{Bound, Measure, Played, decimal, is_played};
use crate::document::{Form, Node, Value};
use crate::read::{Field, Keys, Reader};

const BOUNDS: Keys = Keys::new(&["amplification", "success", "flaps", "fair", "p50", "p99", "recovery"]);

/// The word before a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    AtMost,
    AtLeast,
    Within,
}

impl Side {
    fn sign(self) -> &'static str {
        match self {
            Self::AtMost => "<=",
            Self::AtLeast => ">=",
            Self::Within => "within",
        }
    }
}

/// Reads `bounds:`.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, services: &BTreeMap<ServiceName, Played>) -> Vec<Bound> {
    let mut bounds = Vec::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return bounds };
    for field in table.fields() {
        let Some(service) = reader.service_name(field, field.name) else { continue };
        let at = Field { node: &Node { span: field.key, value: Value::Null }, ..field.clone() };
        let known = is_played(reader, &at, &service, services);
        let Some(own) = reader.table(field.node, &field.path, BOUNDS) else { continue };
        for field in own.fields() {
            let Some((measure, text)) = bound(reader, field) else { continue };
            if known {
                let origin = reader.origin(field.key);
                bounds.push(Bound { service: service.clone(), measure, text, origin });
            }
        }
    }
    bounds
}

/// A limit, with the sign that goes with its measure or without one.
fn bound(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<(Measure, String)> {
    let (side, wants) = match field.name {
        "success" => (Side::AtLeast, "the least share, such as \">= 99.9%\""),
        "fair" => (Side::Within, "the most that one is off, such as within 10%"),
        "amplification" => (Side::AtMost, "the most, such as <= 1.25"),
        "flaps" => (Side::AtMost, "the most, such as <= 1"),
        _ => (Side::AtMost, "the longest, such as <= 200ms"),
    };
    let written = reader.text(field, wants)?.trim();
    let signs = [Side::AtMost, Side::AtLeast, Side::Within];
    let signed = signs.into_iter().find_map(|side| Some((side, written.strip_prefix(side.sign())?)));
    let (given, limit) = signed.unwrap_or((side, written));
    if given != side {
        let why = format!("`{}` has a bound of the other kind", field.name);
        let fix = format!("write {} {}", side.sign(), limit.trim());
        reader.bad(field, wants, &why, &fix);
        return None;
    }
    let limit = limit.trim();
    let measure = measure(reader, field, limit, wants)?;
    Some((measure, format!("{}: {} {limit}", field.name, side.sign())))
}

fn measure(reader: &mut Reader<'_>, field: &Field<'_>, limit: &str, wants: &str) -> Option<Measure> {
    // The readers of numbers and durations see the limit without its sign.
    let node = Node { span: field.node.span, value: Value::Scalar(limit.to_owned(), Form::Plain) };
    let bare = Field { node: &node, ..field.clone() };
    let longest = Duration::ZERO..=Duration::from_hours(1);
    match field.name {
        "amplification" => {
            let ratio = decimal(limit, 6);
            if ratio.is_none() {
                let why = "it is how often a request arrives that was made once";
                reader.bad(field, wants, why, "write for example <= 1.25");
            }
            ratio.map(Measure::Amplification)
        }
        "success" => super::percentage(reader, field, limit).map(Measure::Success),
        "fair" => super::percentage(reader, field, limit).map(Measure::Fair),
        "flaps" => reader.whole(&bare, "a number", 0..=1_000_000).map(Measure::Flaps),
        "p50" => reader.duration(&bare, longest).map(Measure::P50),
        "p99" => reader.duration(&bare, longest).map(Measure::P99),
        "recovery" => reader.duration(&bare, longest).map(Measure::Recovery),
        _ => {
            let finding = Finding::error(2103, "unknown bound");
            reader.report(field.key, finding.fix("remove it"));
            None
        }
    }
}
