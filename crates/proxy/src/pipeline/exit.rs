//! A request that another proxy sends out of the mesh through this one, an egress gateway.

use std::rc::Rc;

use super::split::Pick;
use super::{Asked, is_probe};
use crate::attempt::{Call, Terms};
use crate::egress;
use crate::filters::forwarded::{ATTEMPT, EXPECTED};
use crate::local_app;
use crate::refusal::Refusal;
use crate::runtime::Runtime;
use crate::telemetry::record::Exchange;
use crate::telemetry::trace::TRACE_ID;
use crate::transport::{Edits, Response};
use crate::worker::Worker;

/// From another proxy to `port` of the host that the request names. Whether it may leave was decided there too; what counts is what
/// is decided here.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    port: u16,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    exchange.mutual_tls = true;
    exchange.destination = Some(worker.own_party());
    if is_probe(head) {
        return local_app::probe(worker).await;
    }
    let mut edits = Edits::default();
    // What proxies tell each other is nobody's business outside. A traceparent may be the application's own, so it stays.
    edits.remove(ATTEMPT);
    edits.remove(TRACE_ID);
    edits.remove(EXPECTED);
    let call = Call {
        head,
        body,
        edits,
        protocol: downstream.protocol,
        port: 0,
        terms: Terms::default(),
        pick: Pick::default(),
    };
    let answer = egress::forward(worker, runtime, call, (None, port), exchange).await;
    // The mesh ends here: what is told is how the caller came to us, and that we were called.
    exchange.mutual_tls = true;
    exchange.destination = Some(worker.own_party());
    answer
}
