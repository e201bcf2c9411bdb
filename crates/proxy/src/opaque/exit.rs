//! A connection that another proxy passes out of the mesh through this one, an egress gateway.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use hms_model::listener::Direction;
use hms_traffic::egress::{Asked, literal};
use hms_wire::hello::Outside;

use super::dial::{self, Dialled};
use super::{IDLE, decline, taken};
use crate::egress::{self, Found};
use crate::peer::Arrived;
use crate::refusal::{Reason, Refusal};
use crate::telemetry::flow::Flow;
use crate::transport::buffer::ReadBuffer;
use crate::transport::relay::{self, Relay, Side};
use crate::worker::Worker;

/// To the host that the greeting names. Whether it may leave was decided by the caller's proxy too; what counts is what is decided
/// here.
pub async fn leave(worker: &Rc<Worker>, arrived: Arrived, peer: SocketAddr) {
    let Arrived { party, port, outside, mut stream, .. } = arrived;
    let Some(outside) = outside else { return };
    let mut flow = Flow::begin(worker, Direction::Inbound, party, peer);
    (flow.mutual_tls, flow.destination, flow.port) = (true, Some(worker.own_party()), port);
    let dialled = match find(worker, &outside, port).await {
        Ok(found) => {
            flow.service = Some(Arc::clone(&found.upstream.host));
            dial::dial(worker, &found.upstream, port).await.map(|dialled| (found, dialled))
        }
        Err(refusal) => Err(refusal),
    };
    let (found, dialled) = match dialled {
        Ok(both) => both,
        Err(refusal) => return decline(stream, flow, &refusal).await,
    };
    let Dialled { stream: far, read: came, endpoint, attempts, held } = dialled;
    (flow.attempts, flow.peer) = (attempts, endpoint.address);
    flow.opened();
    flow.passed_before(Side::Upstream, came.bytes().len());
    let idle = IDLE.max(found.upstream.service.policy.timeouts.idle);
    drop(found);
    let ended = match taken(&mut stream).await {
        Ok(()) => {
            let relay = Relay::new(ReadBuffer::default(), came, idle);
            relay::run(relay, (stream, far), &flow, &worker.shared.drain).await
        }
        Err(_gone) => relay::Ended::Broken(Side::Downstream),
    };
    drop(held);
    flow.ended(ended);
}

async fn find(worker: &Rc<Worker>, outside: &Outside, port: u16) -> Result<Found, Refusal> {
    if worker.shared.overload.is_shedding() {
        return Err(Refusal::new(Reason::Shedding, "this proxy has no memory left for connections"));
    }
    let address = literal(&outside.host);
    let name = Some(&*outside.host).filter(|_| address.is_none());
    let asked = Asked { name, address, port };
    let runtime = worker.shared.current.load();
    let found = egress::find(worker, &runtime, asked).await.and_then(|found| found.for_bytes(outside.has_tls, port));
    worker.shared.outside.seen().note(asked, found.as_ref().ok().map(|found| &*found.label));
    found
}
