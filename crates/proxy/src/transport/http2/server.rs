//! The downstream side: connections that others open.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Version};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::limits::{Breach, Limits};
use super::metered::{Metered, Signal};
use super::{Incoming, Open, Streams, Unread, head, pump};
use crate::body::Body;
use crate::drain::Drain;
use crate::tasks;
use crate::transport::{Delivered, Handler, Outcome, Reply, Request, Response, request_head};

/// How long the handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long the last frame of a connection that broke a limit may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a connection that was asked to leave may open streams, which it does until our `GOAWAY` has reached it.
const LEAVING: Duration = Duration::from_secs(30);
/// How often a connection that leaves is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// How long the rest of a request may take to come that was answered without it.
const LINGER: Duration = Duration::from_secs(1);
/// How much of it is taken; then the stream is reset without an error (RFC 9113 §8.1).
const LINGER_BYTES: usize = 32 * 1024;

type Accepted = (http::Request<RecvStream>, server::SendResponse<Bytes>);

/// Serves one downstream connection until it ends, drains, is `age` old, or breaks a limit, which is told.
pub async fn serve<S, H>(stream: S, handler: H, limits: &Limits, age: Duration, drain: &Drain) -> Option<Breach>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler + 'static,
{
    let (stream, signal) = Metered::server(stream, limits);
    let handshake = builder(limits).handshake::<_, Bytes>(stream);
    let connection = match tokio::time::timeout(HANDSHAKE_DEADLINE, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%error, "HTTP/2 handshake failed");
            return None;
        }
        Err(_elapsed) => {
            tracing::debug!("HTTP/2 handshake took too long");
            return None;
        }
    };
    let driver = Driver { connection, signal, farewell: false };
    let breach = drive(driver, Rc::new(handler), limits, age, drain).await;
    if let Some(breach) = breach {
        tracing::warn!(%breach, "HTTP/2 connection ended with ENHANCE_YOUR_CALM");
    }
    breach
}

/// Every limit that `h2` has is set here, so that no release of it changes one for us.
fn builder(limits: &Limits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(limits.streams)
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

/// A connection together with what the meter says of it.
struct Driver<S> {
    connection: server::Connection<Metered<S>, Bytes>,
    signal: Rc<Signal>,
    farewell: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Accepted, h2::Error>>> {
        let polled = self.connection.poll_accept(cx);
        let over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        if self.farewell || over || self.signal.breach().is_none() {
            return polled;
        }
        // What came in with the breach is not looked at.
        self.farewell = true;
        self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        self.connection.poll_accept(cx)
    }
}

/// How far a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// We asked it to leave.
    Leaving {
        since: Instant,
    },
    /// It broke a limit.
    Ending,
}

async fn drive<S, H>(
    mut driver: Driver<S>,
    handler: Rc<H>,
    limits: &Limits,
    age: Duration,
    drain: &Drain,
) -> Option<Breach>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler + 'static,
{
    let streams = Rc::<Streams>::default();
    let mut begun = pin!(drain.begun());
    let old = Instant::now() + age;
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(old.min(last + limits.idle)));
    let mut stage = Stage::Serving;
    let mut requests = 0_u64;
    loop {
        let accepted = tokio::select! {
            accepted = poll_fn(|context| driver.poll_accept(context)) => Some(accepted),
            () = timer.as_mut() => None,
            () = begun.as_mut(), if stage == Stage::Serving => None,
        };
        let now = Instant::now();
        if driver.farewell && stage != Stage::Ending {
            stage = Stage::Ending;
            timer.as_mut().reset(now + FAREWELL);
        }
        let mut leave = false;
        match (accepted, stage) {
            (Some(None), _) | (None, Stage::Ending) => return driver.signal.breach(),
            (Some(Some(Err(error))), _) => return driver.signal.breach().or_else(|| breach_of(&error)),
            (Some(Some(Ok(_unwanted))), Stage::Ending) => {}
            (Some(Some(Ok((_, mut respond)))), Stage::Leaving { since }) if now > since + LEAVING => {
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            (Some(Some(Ok(accepted))), Stage::Serving | Stage::Leaving { .. }) => {
                last = now;
                requests += 1;
                leave = limits.requests.is_some_and(|most| requests >= most);
                start(accepted, &handler, *limits, &streams);
            }
            (None, Stage::Leaving { .. }) if streams.open.get() == 0 => return None,
            (None, Stage::Leaving { .. }) => timer.as_mut().reset(now + LOOK),
            (None, Stage::Serving) => {
                // Streams that are open may go on, however long ago they began.
                let idle = streams.open.get() == 0 && now >= last + limits.idle;
                leave = idle || now >= old || drain.is_draining();
                timer.as_mut().reset(old.min(last.max(now) + limits.idle));
            }
        }
        if leave && stage == Stage::Serving {
            stage = Stage::Leaving { since: now };
            driver.connection.graceful_shutdown();
            timer.as_mut().reset(now + LOOK);
        }
    }
}

/// A limit of `h2`'s own, if that is what ended a connection.
fn breach_of(error: &h2::Error) -> Option<Breach> {
    tracing::debug!(%error, "downstream connection ended");
    let calm = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
    (calm && error.is_go_away() && error.is_library()).then_some(Breach::Library)
}

fn start<H: Handler + 'static>(accepted: Accepted, handler: &Rc<H>, limits: Limits, streams: &Rc<Streams>) {
    let (request, respond) = accepted;
    let (handler, open) = (Rc::clone(handler), Open::new(streams));
    tasks::spawn_local("downstream stream", async move {
        let _open = open;
        answer(request, respond, &*handler, &limits).await;
    });
}

async fn answer<H: Handler>(
    request: http::Request<RecvStream>,
    respond: server::SendResponse<Bytes>,
    handler: &H,
    limits: &Limits,
) {
    let (parts, stream) = request.into_parts();
    let unread = Unread::default();
    let body = Body::http2(Incoming::new(stream, &parts.headers, None).left_to(&unread));
    let head = head::check(&parts.method, &parts.uri, parts.headers, limits)
        .and_then(|fields| request_head(parts.method, &parts.uri, fields));
    let respond = Rc::new(RefCell::new(respond));
    let answer = Answer(Rc::clone(&respond));
    let handling = handler.handle(head.map(|head| Request { head, body }), answer);
    tokio::select! {
        biased;
        // The caller gave up: the upstream is told by dropping what is under way, or never hears of it.
        () = poll_fn(|context| poll_gone(&respond, context)) => return,
        () = handling => {}
    }
    let rest = unread.take();
    if let Some(stream) = rest {
        let _in_time = tokio::time::timeout(LINGER, take_rest(stream)).await.is_ok();
    }
}

/// Takes a request's body that was answered before it had come, up to a bound. Whoever is just sending it may not look at the answer
/// of a stream that was reset meanwhile: curl 7.88 reports a broken stream instead of a 403.
async fn take_rest(mut stream: RecvStream) {
    let mut taken = 0;
    while let Some(Ok(bytes)) = poll_fn(|context| stream.poll_data(context)).await {
        taken += bytes.len();
        if taken > LINGER_BYTES || stream.flow_control().release_capacity(bytes.len()).is_err() {
            return;
        }
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

#[cfg(test)]
mod tests;
