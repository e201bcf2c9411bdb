//! The one place where tasks begin, so that none dies unheard.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::task::JoinHandle;
use tracing::Instrument as _;

/// Starts `future` as a task of its own. A panic inside is logged with the task's name and ends that task only; the handle
/// then gives `None`.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let watched = async move {
        // What a panic leaves half done is dropped with the task; nothing of it is looked at again.
        let outcome = AssertUnwindSafe(future).catch_unwind().await;
        outcome.inspect_err(|_payload| tracing::error!("the task panicked")).ok()
    };
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    tokio::spawn(watched.instrument(tracing::info_span!("task", name)))
}

/// Tasks that end together with their owner.
#[derive(Debug, Default)]
pub struct Tasks(Vec<tokio::task::AbortHandle>);

impl Tasks {
    /// Starts `future` as one of them.
    pub fn spawn<F>(&mut self, name: &'static str, future: F)
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.push(spawn(name, future).abort_handle());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_its_task_only() {
        let broken: JoinHandle<Option<()>> = spawn("broken", async { panic!("on purpose") });
        assert_eq!(broken.await.unwrap(), None);
        assert_eq!(spawn("sound", async { 1 }).await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn tasks_end_with_their_owner() {
        let (alive, ended) = tokio::sync::oneshot::channel::<()>();
        let mut tasks = Tasks::default();
        tasks.spawn("endless", async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(tasks);
        assert!(ended.await.is_err());
    }
}
