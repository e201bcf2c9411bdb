//! HTTP/2 on the `h2` crate directly.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, client, server};
use hms_model::message::{Fields, RequestHead};
use hms_traffic::limits::Permit;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Delivered, Edits, Handler, MAX_HEAD, Outcome, Reply, Request, Response, SendError, request_head, response_head,
};
use crate::body::{Body, BodyError, Frame};
use crate::drain::Drain;
use crate::tasks;

/// Streams one downstream connection may have open.
const MAX_STREAMS: u32 = 200;
/// Receive window of a stream.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Receive window of a connection: every stream's, so that one stalled stream cannot stop the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS;
/// Streams that this side opens on one connection; more requests at once get another connection.
const MOST_OPEN: usize = 100;
/// How long a connection may be without a request before it is closed politely.
const IDLE: Duration = Duration::from_mins(5);
/// How long a peer may keep a stream's window closed.
const STALLED: Duration = Duration::from_secs(30);
/// How long the handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A body that arrives on an HTTP/2 stream.
#[derive(Debug)]
pub struct Incoming {
    stream: RecvStream,
    length: Option<u64>,
    data_ended: bool,
    /// Counts as an open stream of its upstream connection.
    _open: Option<Open>,
}

/// One of a connection's open streams.
#[derive(Debug)]
struct Open(Rc<Cell<u32>>);

impl Open {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl Incoming {
    fn new(stream: RecvStream, map: &HeaderMap, open: Option<Open>) -> Self {
        let declared = map.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let length = if stream.is_end_stream() { Some(0) } else { declared };
        Self { stream, length, data_ended: false, _open: open }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.stream.is_end_stream()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(context)) {
                Some(Ok(bytes)) => {
                    // The next piece is only asked for when this one was passed on: that is the back-pressure.
                    let _released = self.stream.flow_control().release_capacity(bytes.len()).is_ok();
                    return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError(error.to_string())))),
                None => self.data_ended = true,
            }
        }
        match ready!(self.stream.poll_trailers(context)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::Trailers(Fields::from(trailers))))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(BodyError(error.to_string())))),
        }
    }
}

/// Serves one downstream connection until it ends or drains.
pub async fn serve<S, H>(stream: S, handler: H, drain: &Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler + 'static,
{
    let handshake = server::Builder::new()
        .max_concurrent_streams(MAX_STREAMS)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_send_buffer_size(256 * 1024)
        .handshake::<_, Bytes>(stream);
    let mut connection = match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 handshake failed"),
        Err(_elapsed) => return tracing::debug!("HTTP/2 handshake took too long"),
    };
    let handler = Rc::new(handler);
    let streams = Rc::<Cell<u32>>::default();
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = tokio::time::sleep(IDLE), if !draining => {
                // No new stream for that long; those that are open may go on.
                if streams.get() == 0 {
                    draining = true;
                    connection.graceful_shutdown();
                }
                continue;
            }
            () = drain.begun(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            None => return,
            Some(Err(error)) => return tracing::debug!(%error, "downstream connection ended"),
            Some(Ok((request, respond))) => {
                let (handler, open) = (Rc::clone(&handler), Open::new(&streams));
                tasks::spawn_local("downstream stream", async move {
                    let _open = open;
                    answer(request, respond, handler).await;
                });
            }
        }
    }
}

async fn answer<H: Handler>(request: http::Request<RecvStream>, respond: server::SendResponse<Bytes>, handler: Rc<H>) {
    let (parts, stream) = request.into_parts();
    let body = Body::http2(Incoming::new(stream, &parts.headers, None));
    let head = request_head(parts.method, &parts.uri, parts.headers);
    let respond = Rc::new(RefCell::new(respond));
    let answer = Answer(Rc::clone(&respond));
    let handling = handler.handle(head.map(|head| Request { head, body }), answer);
    tokio::select! {
        () = handling => {}
        // The caller gave up: the upstream is told by dropping what is under way.
        () = poll_fn(|context| poll_gone(&respond, context)) => {}
    }
}

/// Resolves when the caller gave up before the answer's head was sent; afterwards [`pump`] watches.
fn poll_gone(respond: &RefCell<server::SendResponse<Bytes>>, context: &mut Context<'_>) -> Poll<()> {
    match ready!(respond.borrow_mut().poll_reset(context)) {
        Err(error) if !(error.is_io() || error.is_go_away() || error.is_reset()) => Poll::Pending,
        Ok(_) | Err(_) => Poll::Ready(()),
    }
}

/// Where the answer goes.
struct Answer(Rc<RefCell<server::SendResponse<Bytes>>>);

impl Reply for Answer {
    async fn send(self, response: Response) -> Delivered {
        let Response { head, mut body } = response;
        let mut out = http::Response::new(());
        *out.status_mut() = head.status;
        *out.version_mut() = Version::HTTP_2;
        *out.headers_mut() = HeaderMap::from(head.fields);
        if let Some(length) = body.length().filter(|length| *length > 0) {
            out.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
        }
        let end = body.is_end();
        let sent = self.0.borrow_mut().send_response(out, end);
        match sent {
            Ok(_) if end => Delivered { outcome: Outcome::Complete, ..Delivered::default() },
            Ok(stream) => pump(&mut body, stream).await,
            Err(error) => {
                tracing::debug!(%error, "response could not be sent");
                Delivered::default()
            }
        }
    }
}

/// Sends a body, never more than the peer's window allows.
async fn pump(body: &mut Body, mut stream: SendStream<Bytes>) -> Delivered {
    let mut delivered = Delivered::default();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _reset = poll_fn(|context| stream.poll_reset(context)) => return delivered,
        };
        let over = match frame {
            None => stream.send_data(Bytes::new(), true).is_ok(),
            Some(Err(error)) => {
                tracing::debug!(%error, "body ended early");
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Delivered { outcome: Outcome::UpstreamBroke(error), ..delivered };
            }
            Some(Ok(Frame::Trailers(trailers))) => {
                delivered.note(&trailers);
                stream.send_trailers(trailers.into()).is_ok()
            }
            Some(Ok(Frame::Data(bytes))) => {
                delivered.bytes += u64::try_from(bytes.len()).unwrap_or_default();
                if send_data(&mut stream, bytes).await {
                    continue;
                }
                false
            }
        };
        let outcome = if over { Outcome::Complete } else { Outcome::DownstreamGone };
        return Delivered { outcome, ..delivered };
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let capacity = tokio::time::timeout(STALLED, poll_fn(|context| stream.poll_capacity(context)));
        let Ok(Some(Ok(granted))) = capacity.await else {
            // Gone, or not reading: either way nothing may wait for it.
            stream.send_reset(Reason::CANCEL);
            return false;
        };
        let piece = bytes.split_to(granted.min(bytes.len()));
        if !piece.is_empty() && stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// A connection to an upstream that carries many requests at once.
#[derive(Debug, Clone)]
pub struct Connection {
    sender: client::SendRequest<Bytes>,
    open: Rc<Cell<u32>>,
}

impl Connection {
    /// Speaks HTTP/2 on a stream; the connection's own task ends with the stream or with the last clone, and holds `place` as long.
    pub async fn new<S>(stream: S, place: Option<Permit>) -> Result<Self, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let handshake = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .handshake::<_, Bytes>(stream);
        let (sender, connection) = handshake.await.map_err(SendError::not_processed)?;
        tasks::spawn_local("upstream http2", async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Self { sender, open: Rc::default() })
    }

    /// Whether another stream can be opened without waiting for one to end.
    pub fn has_room(&self) -> bool {
        usize::try_from(self.open.get()).unwrap_or(usize::MAX) < self.sender.current_max_send_streams().min(MOST_OPEN)
    }

    /// Whether the connection lives.
    pub fn is_open(&mut self) -> bool {
        let waker = std::task::Waker::noop();
        !matches!(self.sender.poll_ready(&mut Context::from_waker(waker)), Poll::Ready(Err(_)))
    }

    /// Sends a request and waits for the response's head.
    pub async fn send(&self, head: &RequestHead, edits: &Edits, mut body: Body) -> Result<Response, SendError> {
        let open = Open::new(&self.open);
        let mut sender = self.sender.clone().ready().await.map_err(SendError::not_processed)?;
        let request = outgoing(head, edits).map_err(SendError::not_processed)?;
        let end = body.is_end();
        let (response, stream) = sender.send_request(request, end).map_err(SendError::not_processed)?;
        if !end {
            tasks::spawn_local("request body", async move {
                pump(&mut body, stream).await;
            });
        }
        let response = response.await.map_err(|error| {
            let refused = error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.is_remote());
            if refused { SendError::not_processed(error) } else { SendError::maybe_processed(error) }
        })?;
        let (parts, stream) = response.into_parts();
        let body = Body::http2(Incoming::new(stream, &parts.headers, Some(open)));
        Ok(Response { head: response_head(parts.status, parts.headers), body })
    }
}

fn outgoing(head: &RequestHead, edits: &Edits) -> Result<http::Request<()>, http::Error> {
    let uri = http::Uri::builder()
        .scheme("http")
        .authority(head.authority.to_string())
        .path_and_query(edits.target(head))
        .build()?;
    let mut request = http::Request::builder().method(&head.method).uri(uri).version(Version::HTTP_2).body(())?;
    let mut map = HeaderMap::from(head.fields.clone());
    edits.apply(&mut map);
    *request.headers_mut() = map;
    Ok(request)
}
