//! Times and limits that files replace as a whole, although they say a part of them alone.

use std::time::Duration;

use hms_formats::objects::Objects;
use hms_model::finding::Finding;
use hms_model::policy::{Limits, Timeouts, TrafficPolicy};
use hms_model::resource::{Declaration, Kind as ResourceKind, Resource, ResourceKey};

use crate::registry::{Changed, View};

/// A warning of each service of which times or limits went back to what is built in.
pub(super) fn replaced(view: &View, changed: &Changed, objects: &Objects) -> Vec<Finding> {
    let defaults = match view.resources.get(&ResourceKey::mesh(ResourceKind::Defaults)).map(AsRef::as_ref) {
        Some(Resource::Defaults(defaults)) => defaults.policy.clone(),
        _ => TrafficPolicy::default(),
    };
    let mut findings = Vec::new();
    for altered in &changed.altered {
        let Some(Resource::Declaration(after)) = altered.after.as_deref() else { continue };
        let Some(policies) = objects.services.get(&after.name) else { continue };
        let before = match altered.before.as_deref() {
            Some(Resource::Declaration(before)) => before.clone(),
            _ => Declaration::new(after.name.clone()),
        };
        let mut words = Vec::new();
        if policies.overlay.timeouts.is_some() {
            let times = |own: &Declaration| own.overlay.timeouts.unwrap_or(defaults.timeouts);
            words.extend(gone(&times_of(times(&before)), &times_of(times(after)), &times_of(Timeouts::default())));
        }
        if policies.overlay.limits.is_some() {
            let limits = |own: &Declaration| own.overlay.limits.unwrap_or(defaults.limits);
            words.extend(gone(&limits_of(limits(&before)), &limits_of(limits(after)), &limits_of(Limits::default())));
        }
        if !words.is_empty() {
            let message = format!("of `{}` what is built in holds again: {}", after.name, words.join(", "));
            let why = "one time or limit of an object replaces all times or all limits of its service";
            let fix =
                format!("say them in the object, or set them afterwards: hms get declaration {} -o yaml", after.name);
            findings.push(Finding::warning(2173, message).because(why).fix(fix));
        }
    }
    findings
}

/// A part of a policy, and what is said of it.
type Part = (&'static str, String);

fn times_of(own: Timeouts) -> [Part; 4] {
    let shown = |time: Option<Duration>| time.map_or_else(|| "none".to_owned(), |time| format!("{time:?}"));
    [
        ("connect", shown(Some(own.connect))),
        ("request", shown(own.request)),
        ("attempt", shown(own.attempt)),
        ("idle", shown(Some(own.idle))),
    ]
}

fn limits_of(own: Limits) -> [Part; 3] {
    let shown = |limit: u32| limit.to_string();
    [("requests", shown(own.requests)), ("connections", shown(own.connections)), ("pending", shown(own.pending))]
}

/// The parts that were something else and are what is built in.
fn gone(before: &[Part], after: &[Part], built_in: &[Part]) -> Vec<String> {
    let parts = before.iter().zip(after).zip(built_in);
    let gone = parts.filter(|((before, after), built_in)| before != after && after == built_in);
    gone.map(|((before, after), _)| format!("{} {} (it was {})", after.0, after.1, before.1)).collect()
}
