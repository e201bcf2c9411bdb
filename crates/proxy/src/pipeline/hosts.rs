//! A request that came by a listener of a file: its host and path decide where it goes.

use std::rc::Rc;
use std::sync::Arc;

use hms_model::http_route::TimeoutOverlay;
use hms_model::message::RequestHead;
use hms_model::standalone::{HostRoute, VirtualHost};
use hms_traffic::hosts::HostSelection;

use super::Asked;
use super::split::Pick;
use crate::attempt::{self, Call, Terms};
use crate::filters::forwarded;
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::standalone::StaticDoor;
use crate::telemetry::record::Exchange;
use crate::transport::{Edits, Response};
use crate::worker::Worker;

/// How many domains or routes are named to somebody who asked for one that is not there.
const KNOWN: usize = 8;

/// From anybody to a service of the file.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    door: &StaticDoor,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    let (index, route) = find(door, head)?;
    exchange.rule = door.rules.get(index).map(Arc::clone);
    let Some(upstream) = runtime.upstreams.get(&route.service) else {
        return Err(Refusal::new(Reason::NoConfiguration, format!("nothing is known of {} yet", route.service)));
    };
    let mut edits = Edits::default();
    forwarded::at_a_listener(head, downstream.peer, &mut edits);
    exchange.pass_trace(&mut edits);
    let terms = Terms { retry: Some(&route.policy.retry), timeouts: TimeoutOverlay::whole(route.policy.timeouts) };
    let call = Call { head, body, edits, protocol: downstream.protocol, port: 0, terms, pick: Pick::default() };
    attempt::run(worker, upstream, call, exchange).await
}

fn find<'d>(door: &'d StaticDoor, head: &RequestHead) -> Result<(usize, &'d HostRoute), Refusal> {
    match door.table.select(&head.authority, &head.path) {
        HostSelection::Found { index, route, .. } => Ok((index, route)),
        HostSelection::NoHost => Err(Refusal::new(Reason::NoRoute, no_host(door, head))),
        HostSelection::NoRoute(host) => {
            let routes = names(host.routes.iter().map(|route| route.path.to_string()));
            let detail = format!("no route of {} has {}; there is {routes}", host.name, head.path);
            Err(Refusal::new(Reason::NoRoute, detail))
        }
    }
}

fn no_host(door: &StaticDoor, head: &RequestHead) -> String {
    let hosts = door.table.hosts();
    let domains = names(hosts.iter().flat_map(|host: &VirtualHost| &host.domains).map(ToString::to_string));
    let detail = format!("no virtual host of {} answers for {}; there is {domains}", door.name, head.authority);
    // The usual cause: a caller adds the port it dials.
    let bare = head.authority.host();
    let but_for_the_port = head.authority.port().is_some()
        && hosts.iter().flat_map(|host| &host.domains).any(|domain| domain.matches(bare));
    if but_for_the_port { format!("{detail} (the port counts unless strip_any_host_port is set)") } else { detail }
}

fn names(all: impl Iterator<Item = String>) -> String {
    let shown: Vec<String> = all.take(KNOWN).collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}
