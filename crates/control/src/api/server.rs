//! Serving the API: bounded in connections and in the time a head may take.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::{Context, router};
use crate::tasks;

/// Connections at the same time; further ones wait to be accepted.
const CONNECTIONS: u32 = 1024;
/// How long the head of a request may take (reliability.md §6).
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Largest head in bytes.
const HEAD_LIMIT: usize = 32 * 1024;
/// How long connections may take to end. Streams do not end by themselves.
const DRAIN: Duration = Duration::from_secs(2);
/// Pause after a failed accept: the system is out of descriptors and busy waiting frees none.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the API on `listener` until `shutdown`, then lets what is under way end for two seconds.
pub async fn serve(listener: TcpListener, context: Context, shutdown: impl Future<Output = ()>) {
    let router = router(context);
    let permits = Arc::new(Semaphore::new(usize::try_from(CONNECTIONS).unwrap_or(usize::MAX)));
    let (ending, ended) = watch::channel(false);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let permit = tokio::select! {
            () = &mut shutdown => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        // The semaphore is never closed.
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let connection = connection(stream, router.clone(), ended.clone());
                drop(tasks::spawn("api connection", async move {
                    connection.await;
                    drop(permit);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    ending.send_replace(true);
    // Whoever does not end in time is dropped with the runtime.
    drop(tokio::time::timeout(DRAIN, permits.acquire_many(CONNECTIONS)).await);
}

async fn connection(stream: TcpStream, router: axum::Router, mut ended: watch::Receiver<bool>) {
    // Small answers, each to be seen at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_LIMIT);
    let mut connection =
        std::pin::pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)));
    let served = tokio::select! {
        served = &mut connection => served,
        () = end(&mut ended) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(DRAIN, connection).await {
                Ok(served) => served,
                Err(_elapsed) => return,
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// Waits until serving ends.
async fn end(ended: &mut watch::Receiver<bool>) {
    drop(ended.wait_for(|ended| *ended).await.map(drop));
}
