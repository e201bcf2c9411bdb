//! The one place that starts background tasks.

use tokio::task::JoinHandle;

/// Starts `future` in the background; it ends with the scenario's runtime.
#[expect(clippy::disallowed_methods, reason = "the wrapper the rule asks for")]
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(future)
}
