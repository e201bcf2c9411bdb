//! Errors of the application beside us that come of a call refused further on (`hms_traffic::shed`).

use hms_model::workload::Transport;
use hms_traffic::clock::Moment;
use http::{HeaderName, HeaderValue};

use crate::refusal::{ERROR_HEADER, Reason, Refusal};
use crate::runtime::upstream::UpstreamEndpoint;
use crate::transport::{Response, grpc_status};
use crate::worker::Worker;

/// The header by which the proxy of an application says that its error is of this kind.
pub const SHED_HEADER: HeaderName = HeaderName::from_static("x-hms-shed");

/// Looks at what our own application gets for a call of its own: was it refused on purpose, here or further on?
pub fn note(worker: &Worker, answer: &Result<Response, Refusal>) {
    let refused = match answer {
        Err(refusal) => is_on_purpose(refusal.reason),
        Ok(response) => {
            let fields = &response.head.fields;
            let code = fields.first(&ERROR_HEADER).and_then(Reason::from_code);
            fields.first(&SHED_HEADER).is_some() || code.is_some_and(is_on_purpose)
        }
    };
    if refused {
        worker.shared.app.refusals().note(worker.now());
    }
}

/// To protect somebody, so that another try would only be refused again.
fn is_on_purpose(reason: Reason) -> bool {
    matches!(reason, Reason::BreakerOpen | Reason::Overloaded | Reason::Shedding)
}

/// Marks our own application's answer to a request that began at `begun`.
pub fn mark(worker: &Worker, response: &mut Response, begun: Moment) {
    let head = &mut response.head;
    // Only a proxy may speak in the mesh's name.
    head.fields.remove(&SHED_HEADER);
    let failed = head.status.is_server_error() || grpc_status(&head.fields).is_some_and(|code| code != 0);
    if failed && worker.shared.app.refusals().since(begun) {
        head.fields.set(SHED_HEADER, HeaderValue::from_static("1"));
    }
}

/// Whether an endpoint's answer is marked so.
pub fn is_marked(response: &mut Response, endpoint: &UpstreamEndpoint) -> bool {
    if endpoint.endpoint.transport == Transport::Plain {
        response.head.fields.remove(&SHED_HEADER);
    }
    response.head.fields.first(&SHED_HEADER).is_some()
}
