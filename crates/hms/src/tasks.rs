//! The one place where tasks are started: each has a name, and a panic in one is reported instead of lost.

use tokio::task::JoinHandle;

/// Starts `future` beside the caller. A panic inside it is logged under `name`.
pub(crate) fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "this is the helper the rule points to")]
    let inner = tokio::spawn(future);
    #[expect(clippy::disallowed_methods, reason = "this is the helper the rule points to")]
    tokio::spawn(async move {
        let abort = AbortOnDrop(inner.abort_handle());
        if let Err(error) = inner.await
            && error.is_panic()
        {
            tracing::error!(task = name, %error, "task panicked");
        }
        drop(abort);
    })
}

/// Ends the watched task when its watcher is aborted.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
