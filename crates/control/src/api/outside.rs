//! Hosts outside of the mesh that files name: listing them, and taking them away again.

use std::collections::BTreeSet;

use hms_formats::objects::Objects;
use hms_model::finding::Finding;
use hms_model::names::Label;
use hms_model::policy::Egress;
use hms_model::policy::egress::{EgressHost, MOST_HOSTS};
use hms_model::resource::{Kind as ResourceKind, Overlay, Resource, ResourceKey};

use super::problem::{Kind, Problem};
use crate::registry::{Change, Changed, View};

/// What may leave the mesh, as it is stored.
fn stored(view: &View) -> Egress {
    match view.resources.get(&ResourceKey::mesh(ResourceKind::Egress)).map(AsRef::as_ref) {
        Some(Resource::Egress(egress)) => egress.clone(),
        _ => Egress::default(),
    }
}

/// What may leave the mesh with the hosts that objects name, if it is another. A port of a host is listed once.
pub(super) fn with(view: &View, objects: &Objects) -> Result<Option<Change>, Problem> {
    let before = stored(view);
    let mut egress = before.clone();
    let earlier: BTreeSet<Label> = objects.entries.iter().flat_map(|stem| earlier(&before, stem)).collect();
    egress.hosts.retain(|label, _| !earlier.contains(label));
    for (label, host) in &objects.egress {
        let twice = |(other, own): &(&Label, &EgressHost)| {
            *other != label && own.host == host.host && own.ports.iter().any(|port| host.ports.contains(port))
        };
        if let Some(other) = egress.hosts.iter().find(twice) {
            let what = format!("a port of {} is listed already", host.host);
            return Err(Problem::new(Kind::Conflict, what)
                .because(format!("`{}` lists it, from mesh.yaml or another file", other.0))
                .fix("leave it out of one of the two"));
        }
        let is_own = |(other, own): &(&Label, &EgressHost)| {
            (*other == label || earlier.contains(*other)) && own.host == host.host
        };
        if let Some((_, own)) = before.hosts.iter().find(is_own)
            && !objects.ruled.contains(&host.host)
        {
            check_kept(label, own, host)?;
        }
        egress.hosts.insert(label.clone(), host.clone());
    }
    if egress.hosts.len() > MOST_HOSTS {
        let what = format!("{} hosts outside of the mesh would be listed", egress.hosts.len());
        return Err(Problem::new(Kind::Refused, what).because(format!("there are at most {MOST_HOSTS}")));
    }
    Ok((egress != before).then_some(Change::Put(Resource::Egress(egress))))
}

/// The labels that an object gave its hosts when it was applied before: its name, or with several hosts that with their numbers.
fn earlier(listed: &Egress, stem: &str) -> Vec<Label> {
    let there = |text: String| Label::new(&text).ok().filter(|label| listed.hosts.contains_key(label));
    if let Some(alone) = there(stem.to_owned()) {
        return vec![alone];
    }
    let numbered: Vec<Label> = (1..=MOST_HOSTS).map_while(|number| there(format!("{stem}-{number}"))).collect();
    // One alone is somebody else's: an object with one host has no number behind its name.
    if numbered.len() > 1 { numbered } else { Vec::new() }
}

/// How calls to a host are dealt with is not forgotten because nothing is said of it.
fn check_kept(label: &Label, own: &EgressHost, host: &EgressHost) -> Result<(), Problem> {
    let lost = if own.tls.is_some() && host.tls.is_none() {
        "TLS that the proxy begins"
    } else if own.overlay != Overlay::default() && host.overlay != own.overlay {
        "policies of its own"
    } else {
        return Ok(());
    };
    Err(Problem::new(Kind::Conflict, format!("`{label}` ({}) is listed with {lost}", host.host))
        .because("these files list it without a word on that, and it would be lost")
        .fix("apply what says it (its DestinationRule) in the same call")
        .fix("if it shall be lost: hms get egress mesh -o yaml > egress.yaml, take it out there, hms apply -f egress.yaml"))
}

/// A warning of each host that is not listed any more.
pub(super) fn unlisted(changed: &Changed) -> Vec<Finding> {
    let mut findings = Vec::new();
    for altered in &changed.altered {
        let (Some(Resource::Egress(before)), Some(Resource::Egress(after))) =
            (altered.before.as_deref(), altered.after.as_deref())
        else {
            continue;
        };
        for (label, own) in &before.hosts {
            if !after.hosts.values().any(|other| other.host == own.host) {
                let message = format!("{} is not listed any more", own.host);
                let why = format!("it was `{label}`, which these files say anew without it");
                findings.push(Finding::warning(2173, message).because(why).fix("hms egress"));
            }
        }
    }
    findings
}

/// What may leave the mesh without the hosts that objects name. One that is not there, or is another now, is not taken away.
pub(super) fn without(view: &View, objects: &Objects) -> Result<Option<Change>, Problem> {
    if objects.egress.is_empty() {
        return Ok(None);
    }
    let mut egress = stored(view);
    for (label, host) in &objects.egress {
        match egress.hosts.remove(label) {
            Some(own) if own == *host => {}
            Some(_) => {
                let what = format!("`{label}` is another host outside of the mesh now, or listed with other words");
                let fix = "apply the file again first, or take it out of mesh.yaml";
                return Err(Problem::new(Kind::Conflict, what).fix(fix));
            }
            None => {
                let what = format!("no host outside of the mesh is listed as `{label}`");
                return Err(Problem::new(Kind::NoSuchThing, what).fix("hms egress"));
            }
        }
    }
    Ok(Some(Change::Put(Resource::Egress(egress))))
}
