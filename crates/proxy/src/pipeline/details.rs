//! What a request must know of a service before it can be sent there.

use std::sync::Arc;
use std::time::Duration;

use hms_model::names::ServiceName;

use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::Upstream;
use crate::worker::Worker;

/// How long a first request waits for the details of a service it names.
const DETAILS_DEADLINE: Duration = Duration::from_secs(1);

/// The details of a service, asked for when they are not there yet.
pub(crate) async fn details(worker: &Worker, runtime: &Runtime, name: &ServiceName) -> Result<Arc<Upstream>, Refusal> {
    if let Some(upstream) = runtime.upstreams.get(name) {
        return Ok(Arc::clone(upstream));
    }
    if !runtime.directory.is_empty() && runtime.directory.get(name).is_none() {
        let detail = format!("no service is called {name}; there is {}", runtime.directory.some_names());
        return Err(Refusal::new(Reason::NoService, detail));
    }
    // Once per service, so its future is not part of every request's.
    Box::pin(first_details(worker, name)).await
}

async fn first_details(worker: &Worker, name: &ServiceName) -> Result<Arc<Upstream>, Refusal> {
    let current = &worker.shared.current;
    let mut changes = current.watch();
    // A full queue means that somebody else's wish is about to be sent; ours is repeated with the next request.
    let _asked = worker.shared.wanted.try_send(name.clone()).is_ok();
    let arrived = async {
        loop {
            if let Some(upstream) = current.load().upstreams.get(name) {
                return Some(Arc::clone(upstream));
            }
            changes.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(DETAILS_DEADLINE, arrived).await {
        Ok(Some(upstream)) => Ok(upstream),
        _ => {
            Err(Refusal::new(Reason::NoConfiguration, format!("nothing is known of {name} yet"))
                .after(DETAILS_DEADLINE))
        }
    }
}
