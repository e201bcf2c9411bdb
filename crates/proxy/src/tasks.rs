//! Tasks with a name, so that none is started without saying what it is.

use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts a task on this worker's thread. A panic ends the task alone and is logged by the panic hook.
pub fn spawn_local(name: &'static str, future: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
    tokio::task::spawn_local(future.instrument(tracing::debug_span!("task", name)))
}

/// Starts a task on the runtime of administration and subscription.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks by hand")]
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}
