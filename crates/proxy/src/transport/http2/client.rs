//! The upstream side: connections that we open, and share between requests.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, client};
use hms_model::message::RequestHead;
use http::{HeaderMap, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::limits::Limits;
use super::metered::{Metered, Signal};
use super::{Incoming, Open, Streams, Upload, pump};
use crate::body::Body;
use crate::tasks;
use crate::transport::waiting::{Demand, Place};
use crate::transport::{Edits, Response, SendError, response_head};

/// Streams that this side opens on one connection; more requests at once get another connection.
const MOST_OPEN: usize = 100;
/// Silence after which the other end is asked for a sign of life.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take to give one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// Whether a connection that is silent is asked for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// It is: a dead peer is noticed within 15 s, before a request is.
    Asked,
    /// It is not: gRPC's servers end connections on which they are asked more often than every five minutes.
    Assumed,
}

/// A connection to an upstream that carries many requests at once.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: client::SendRequest<Bytes>,
    open: Rc<Streams>,
}

impl Connection {
    /// Speaks HTTP/2 on a stream; the connection's own task ends with the stream or with the last clone, and holds `place` as long.
    pub async fn new<S>(stream: S, place: Option<Place>, liveness: Liveness) -> Result<Self, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (stream, signal) = Metered::client(stream, &Limits::MESH);
        let handshake = builder(&Limits::MESH).handshake::<_, Bytes>(stream);
        let (sender, connection) = handshake.await.map_err(SendError::not_processed)?;
        let demand = place.as_ref().map(Place::demand);
        tasks::spawn_local("upstream http2", async move {
            let _place = place;
            drive(connection, &signal, liveness).await;
        });
        Ok(Self { sender, open: Rc::new(Streams { open: Cell::new(0), demand }) })
    }

    /// Whether another stream can be opened without waiting for one to end.
    pub fn has_room(&self) -> bool {
        self.room() > 0
    }

    fn room(&self) -> usize {
        let most = self.sender.current_max_send_streams().min(MOST_OPEN);
        most.saturating_sub(usize::try_from(self.open.open.get()).unwrap_or(usize::MAX))
    }

    /// Tells those who wait that there is room, but for the request that it was opened for.
    pub fn offer_room(&self) {
        if let Some(demand) = &self.open.demand {
            let others = 1..self.room();
            others.take_while(|_| demand.room()).for_each(drop);
        }
    }

    /// Whether it is idle while somebody waits for a connection to the same service.
    pub fn is_in_the_way(&self) -> bool {
        self.open.open.get() == 0 && self.open.demand.as_ref().is_some_and(Demand::is_waited_for)
    }

    /// Whether it takes requests: it lives, and the other end has not sent `GOAWAY`.
    pub fn is_open(&mut self) -> bool {
        !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// Sends a request and waits for the response's head.
    pub async fn send(&self, head: &RequestHead, edits: &Edits, mut body: Body) -> Result<Response, SendError> {
        let open = Open::new(&self.open);
        let mut sender = self.sender.clone().ready().await.map_err(SendError::not_processed)?;
        let request = outgoing(head, edits).map_err(SendError::not_processed)?;
        let end = body.is_end();
        let (response, stream) = sender.send_request(request, end).map_err(SendError::not_processed)?;
        // As long as somebody waits for the answer or reads it; then the stream is reset if its request is not whole.
        let upload = (!end).then(|| {
            Upload(tasks::spawn_local("request body", async move {
                pump(&mut body, stream).await;
            }))
        });
        let response = response.await.map_err(|error| judge(&error))?;
        let (parts, stream) = response.into_parts();
        let body = Body::http2(Incoming::new(stream, &parts.headers, Some((open, upload))));
        Ok(Response { head: response_head(parts.status, parts.headers), body })
    }
}

/// Whether the request may have been processed. A stream only fails with the other end's `GOAWAY` when its number is above the
/// last one named there; those below go on, and fail with the connection if it breaks (RFC 9113 §6.8).
fn judge(error: &h2::Error) -> SendError {
    let refused = error.is_remote() && error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    let above_the_last = error.is_remote() && error.is_go_away();
    if refused || above_the_last { SendError::not_processed(error) } else { SendError::maybe_processed(error) }
}

fn builder(limits: &Limits) -> client::Builder {
    let mut builder = client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.stream_window)
        .initial_connection_window_size(limits.connection_window())
        .max_header_list_size(limits.head)
        .max_frame_size(16 * 1024)
        .header_table_size(4096)
        .max_send_buffer_size(limits.send_buffer)
        .max_concurrent_reset_streams(limits.remembered_resets)
        .reset_stream_duration(Duration::from_secs(1))
        .max_pending_accept_reset_streams(limits.pending_resets)
        .max_local_error_reset_streams(limits.faulty_streams)
        .data_frame_budget(limits.small_data);
    builder
}

/// Carries a connection's bytes until it ends, breaks a limit, or is found dead.
async fn drive<S>(mut connection: client::Connection<Metered<S>, Bytes>, signal: &Signal, liveness: Liveness)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let pings = connection.ping_pong().filter(|_| liveness == Liveness::Asked);
    let mut connection = pin!(connection);
    let carried = poll_fn(|context| match connection.as_mut().poll(context) {
        Poll::Ready(ended) => Poll::Ready(ended.map_err(|error| error.to_string())),
        Poll::Pending => signal.breach().map_or(Poll::Pending, |breach| Poll::Ready(Err(breach.to_string()))),
    });
    let ended = tokio::select! {
        ended = carried => ended,
        dead = until_dead(pings, signal) => Err(dead),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "upstream connection ended");
    }
}

/// Resolves when a peer that was asked gave no sign of life.
async fn until_dead(pings: Option<PingPong>, signal: &Signal) -> String {
    let Some(mut pings) = pings else { return std::future::pending().await };
    let mut asked = false;
    loop {
        let quiet = SILENCE.saturating_sub(signal.silence());
        if !quiet.is_zero() {
            tokio::time::sleep(quiet).await;
            continue;
        }
        // One question at a time; one that is not answered yet is waited for again.
        if !asked && pings.send_ping(Ping::opaque()).is_err() {
            return std::future::pending().await;
        }
        asked = true;
        match tokio::time::timeout(SIGN_OF_LIFE, poll_fn(|context| pings.poll_pong(context))).await {
            Ok(Ok(_pong)) => asked = false,
            Ok(Err(_ended)) => return std::future::pending().await,
            // Anything that came is a sign of life, even when it was not the answer.
            Err(_elapsed) if signal.silence() < SIGN_OF_LIFE => {}
            Err(_elapsed) => return format!("the other end has been silent for {} s", signal.silence().as_secs()),
        }
    }
}

fn outgoing(head: &RequestHead, edits: &Edits) -> Result<http::Request<()>, http::Error> {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(edits.authority(head).to_string())
        .path_and_query(edits.target(head))
        .build()?;
    let mut request = http::Request::builder().method(&head.method).uri(uri).version(Version::HTTP_2).body(())?;
    let mut map = HeaderMap::from(head.fields.clone());
    edits.apply(&mut map);
    *request.headers_mut() = map;
    Ok(request)
}

#[cfg(test)]
mod tests;
