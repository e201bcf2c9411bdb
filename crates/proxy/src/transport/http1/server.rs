//! One downstream connection: a head, its answer, the next head. Nothing is held while it is idle.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hms_http1::{Framing, Limits, Reject, Scanner, write};
use hms_model::message::ResponseHead;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, StatusCode, Version};
use tokio::io::{AsyncRead, AsyncWrite};

use super::coding::{Arriving, Encoder};
use super::outbox::Outbox;
use super::pace::{Pace, SLOWEST};
use crate::body::{Body, BodyError, Frame, Inflow};
use crate::drain::Drain;
use crate::timer::{Timer, within};
use crate::transport::buffer::{ReadBuffer, SMALL};
use crate::transport::tls_stream::Abort;
use crate::transport::{BadHead, Delivered, Handler, Outcome, Reply, Request, Response};

mod tunnel;

/// Absolute time for a head, from its first byte (reliability §6).
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may pause between requests before it lets go of what it needs for one.
const PAUSE: Duration = Duration::from_secs(1);
/// How much of a body that nobody wanted is read to keep the connection.
const UNWANTED: u64 = 64 * 1024;
/// How long the other end may take to notice that we close.
const LINGER: Duration = Duration::from_secs(1);

/// What a listener expects of those who connect.
#[derive(Debug)]
pub struct Terms {
    /// Bounds of a request's head.
    pub limits: Limits,
    /// How long a connection may take to its first byte.
    pub first: Duration,
    /// How long it may be idle between requests.
    pub idle: Duration,
    /// Whether bodies must come at a minimum rate.
    pub hurried: bool,
}

/// For callers from outside.
pub static EDGE: Terms =
    Terms { limits: Limits::EDGE, first: HEAD_DEADLINE, idle: Duration::from_secs(75), hurried: true };
/// For our own applications.
pub static MESH: Terms =
    Terms { limits: Limits::MESH, first: Duration::from_mins(5), idle: Duration::from_mins(5), hurried: false };
/// For other proxies.
pub static PEER: Terms = Terms { limits: Limits::PEER, ..MESH };

/// One end of a connection, shared by its driver, the body that is being read and the answer that is being written.
struct Connection<S> {
    stream: S,
    read: ReadBuffer,
    out: Outbox,
    terms: &'static Terms,
    scanner: Scanner,
    body: Arriving,
    /// Whether the caller waits to be told to send its body (RFC 9110 §10.1.1).
    expects_continue: bool,
    /// Whether the request's body broke off or is none: where the next request begins is unknown.
    broken: bool,
    answer: Stage,
    pace: Pace,
}

/// How far the answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing of it was written, or it will never be whole.
    None,
    /// Its head was written; the connection serves another request afterwards.
    Keep,
    /// Its head was written, and says that it is the last.
    Last,
    /// Its head was written, and something else than HTTP is spoken from then on: what comes is not looked at here.
    Tunnel,
}

/// How the wait for a head ended.
enum Arrival {
    /// A head of this length is here.
    Head(usize),
    /// It is none.
    Bad(Reject),
    /// It did not come in time.
    Late,
    /// Nothing of one came for a while.
    Paused,
    /// There will be none. Whether not a byte of one came.
    Over { clean: bool },
}

/// Serves one downstream connection until it ends or drains.
pub async fn serve<S, H>(stream: S, handler: H, drain: &Drain, terms: &'static Terms)
where
    S: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
    H: Handler + 'static,
{
    let connection = Rc::new(RefCell::new(Connection::new(stream, terms)));
    let mut idle_ends = pin!(drain.idle_ends());
    let mut patience = terms.first;
    loop {
        match awakened(&connection, idle_ends.as_mut(), patience).await {
            // Boxed, so that an idle connection holds nothing of the size of a request; kept while requests follow each other.
            Awakened::Bytes => {
                if Box::pin(converse(&connection, &handler, drain)).await == Conversation::Over {
                    return;
                }
            }
            Awakened::Over => return shut(&connection, false).await,
        }
        patience = terms.idle.saturating_sub(PAUSE);
    }
}

/// What an idle connection waits for.
enum Awakened {
    /// The first bytes of a request.
    Bytes,
    /// Its time is up, or the other end is gone.
    Over,
}

/// Waits for the first byte.
async fn awakened<S: AsyncRead + Unpin>(
    connection: &Rc<RefCell<Connection<S>>>,
    mut idle_ends: Pin<&mut impl Future<Output = ()>>,
    patience: Duration,
) -> Awakened {
    let mut timer = Timer::after(patience);
    poll_fn(|context| {
        match connection.borrow_mut().poll_first(context) {
            Poll::Ready(true) => return Poll::Ready(Awakened::Bytes),
            Poll::Ready(false) => return Poll::Ready(Awakened::Over),
            Poll::Pending => {}
        }
        if idle_ends.as_mut().poll(context).is_pending() {
            ready!(timer.poll(context));
        }
        Poll::Ready(Awakened::Over)
    })
    .await
}

/// How a run of requests ended.
#[derive(PartialEq, Eq)]
enum Conversation {
    /// The next one did not follow at once.
    Paused,
    /// The connection has ended.
    Over,
}

/// Serves requests as long as one follows the other.
async fn converse<S, H>(connection: &Rc<RefCell<Connection<S>>>, handler: &H, drain: &Drain) -> Conversation
where
    S: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
    H: Handler + 'static,
{
    let mut timer = Timer::after(PAUSE);
    loop {
        let begun = match next_head(connection, &mut timer).await {
            Arrival::Head(length) => connection.borrow_mut().begin(length).map_err(BadHead::Http1),
            Arrival::Bad(reject) => Err(BadHead::Http1(reject)),
            Arrival::Late => Err(BadHead::Late),
            Arrival::Paused => return Conversation::Paused,
            Arrival::Over { clean } => {
                if clean {
                    shut(connection, false).await;
                }
                return Conversation::Over;
            }
        };
        let broken = begun.is_err();
        let (request, facts) = match begun.map(|begun| begun.into_request(connection)) {
            Ok((request, facts)) => (Ok(request), facts),
            Err(bad) => (Err(bad), Facts { is_head: false, version: Version::HTTP_11, persistent: false }),
        };
        let answer = Answer { connection: Rc::clone(connection), facts, drain };
        if !answered(connection, handler.handle(request, answer)).await {
            return Conversation::Over;
        }
        let owing = broken || !drained(connection).await;
        if owing || connection.borrow().answer != Stage::Keep {
            shut(connection, owing).await;
            return Conversation::Over;
        }
        connection.borrow_mut().rest();
        timer.reset(PAUSE);
    }
}

/// Waits for a whole head. `timer` runs until its first byte.
async fn next_head<S>(connection: &Rc<RefCell<Connection<S>>>, timer: &mut Timer) -> Arrival
where
    S: AsyncRead + Unpin,
{
    let mut in_head = false;
    poll_fn(|context| {
        let (polled, begun) = {
            let mut connection = connection.borrow_mut();
            (connection.poll_head(context), !connection.read.is_empty())
        };
        if polled.is_ready() {
            return polled;
        }
        if begun && !in_head {
            in_head = true;
            timer.reset(HEAD_DEADLINE);
        }
        ready!(timer.poll(context));
        Poll::Ready(if in_head { Arrival::Late } else { Arrival::Paused })
    })
    .await
}

/// Runs the handler to its end. `false` if the caller went away first; then everything under way is dropped.
async fn answered<S>(connection: &Rc<RefCell<Connection<S>>>, handling: impl Future<Output = ()>) -> bool
where
    S: AsyncRead + Unpin,
{
    let mut handling = pin!(handling);
    poll_fn(|context| {
        if handling.as_mut().poll(context).is_ready() {
            return Poll::Ready(true);
        }
        connection.borrow_mut().poll_gone(context).map(|()| false)
    })
    .await
        && connection.borrow().answer != Stage::None
}

/// Reads what is left of a request's body, if that is little. Whether it is at its end.
async fn drained<S>(connection: &Rc<RefCell<Connection<S>>>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    if connection.borrow().body.is_end() {
        return true;
    }
    let unwanted = connection.borrow().body.remaining().is_none_or(|left| left <= UNWANTED);
    if !unwanted || connection.borrow().expects_continue || connection.borrow().answer != Stage::Keep {
        return false;
    }
    let mut read = 0;
    let reading = poll_fn(|context| {
        loop {
            match ready!(connection.borrow_mut().poll_body(context)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(Frame::Trailers(_))) => {}
                Some(Ok(Frame::Data(bytes))) => {
                    read += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                    if read > UNWANTED {
                        return Poll::Ready(false);
                    }
                }
            }
        }
    });
    within(LINGER, reading).await.unwrap_or(false)
}

/// Ends the connection so that the last answer is not lost: what was not read would make the kernel reset it (RFC 9112 §9.6).
async fn shut<S>(connection: &Rc<RefCell<Connection<S>>>, owing: bool)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let closing = poll_fn(|context| Pin::new(&mut connection.borrow_mut().stream).poll_shutdown(context));
    if within(LINGER, closing).await.is_none_or(|closed| closed.is_err()) || !owing {
        return;
    }
    let mut left = UNWANTED;
    let reading = poll_fn(|context| {
        let mut connection = connection.borrow_mut();
        let connection = &mut *connection;
        loop {
            let unused = connection.read.bytes().len();
            connection.read.consume(unused);
            match ready!(connection.read.poll_fill(&mut connection.stream, SMALL, context)) {
                Ok(length @ 1..) if left > 0 => left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX)),
                _ => return Poll::Ready(()),
            }
        }
    });
    within(LINGER, reading).await;
}

/// A request whose head was read.
struct Begun {
    parsed: hms_http1::Request,
}

/// What of a request decides how its answer is framed.
#[derive(Clone, Copy)]
struct Facts {
    is_head: bool,
    version: Version,
    persistent: bool,
}

impl Begun {
    fn into_request<S>(self, connection: &Rc<RefCell<Connection<S>>>) -> (Request, Facts)
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let parsed = self.parsed;
        let facts = Facts {
            is_head: parsed.head.method == Method::HEAD,
            version: if parsed.http10 { Version::HTTP_10 } else { Version::HTTP_11 },
            persistent: parsed.persistent,
        };
        let body = match (parsed.framing, parsed.upgrade) {
            (Framing::None, Some(offer)) => Body::offer(offer),
            (Framing::None, None) => Body::empty(),
            _ => Body::http1(Box::new(RequestBody(Rc::clone(connection)))),
        };
        (Request { head: parsed.head, body }, facts)
    }
}

impl<S> Connection<S> {
    fn new(stream: S, terms: &'static Terms) -> Self {
        Self {
            stream,
            read: ReadBuffer::default(),
            out: Outbox::default(),
            terms,
            scanner: Scanner::default(),
            body: Arriving::new(Framing::None),
            expects_continue: false,
            broken: false,
            answer: Stage::None,
            pace: Pace::default(),
        }
    }

    /// Forgets the last request.
    fn rest(&mut self) {
        self.answer = Stage::None;
        self.pace = Pace::default();
    }

    /// Takes a head of `length` bytes.
    fn begin(&mut self, length: usize) -> Result<Begun, Reject> {
        self.scanner = Scanner::default();
        let parsed = hms_http1::request(self.read.bytes().get(..length).unwrap_or_default(), &self.terms.limits)?;
        self.read.consume(length);
        self.body = Arriving::new(parsed.framing);
        self.expects_continue = parsed.expects_continue;
        Ok(Begun { parsed })
    }
}

impl<S: AsyncRead + Unpin> Connection<S> {
    /// Whether there are bytes; `false` is the end.
    fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if !self.read.is_empty() {
            return Poll::Ready(true);
        }
        let polled = ready!(self.read.poll_fill(&mut self.stream, SMALL, context));
        Poll::Ready(polled.is_ok_and(|length| length > 0))
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        loop {
            if !self.read.is_empty() {
                match self.scanner.find_end(self.read.bytes(), &self.terms.limits) {
                    Ok(Some(length)) => return Poll::Ready(Arrival::Head(length)),
                    Ok(None) => {}
                    Err(reject) => return Poll::Ready(Arrival::Bad(reject)),
                }
            }
            let clean = self.read.is_empty();
            // A head that would need more was refused by the scanner.
            let most = self.terms.limits.head.saturating_mul(2);
            match ready!(self.read.poll_fill(&mut self.stream, most, context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Arrival::Over { clean }),
            }
        }
    }

    /// Resolves when the caller is gone. Requests that it sends ahead are kept, up to a buffer full of them.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.answer != Stage::Tunnel && self.body.is_end() && self.read.bytes().len() < SMALL / 2 {
            match ready!(self.read.poll_fill(&mut self.stream, SMALL, context)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        if std::mem::take(&mut self.expects_continue) && self.answer == Stage::None {
            self.out.text().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if self.answer == Stage::None
            && let Poll::Ready(Err(error)) = self.out.poll_flush(&mut self.stream, context)
        {
            return Poll::Ready(Some(Err(BodyError::Broken(error.to_string()))));
        }
        let mut polled = self.body.poll_frame(&mut self.read, &mut self.stream, context);
        if polled.is_pending() && self.terms.hurried {
            ready!(self.pace.poll_too_slow(context));
            polled = Poll::Ready(Some(Err(BodyError::Broken(format!("the body came slower than {SLOWEST} bytes/s")))));
        }
        match &polled {
            Poll::Ready(Some(Ok(Frame::Data(bytes)))) => self.pace.came(bytes.len()),
            Poll::Ready(Some(Err(_))) => self.broken = true,
            _ => {}
        }
        polled
    }
}

/// The body of the request that is being answered.
struct RequestBody<S>(Rc<RefCell<Connection<S>>>);

impl<S: AsyncRead + AsyncWrite + Unpin> Inflow for RequestBody<S> {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        self.0.borrow_mut().poll_body(context)
    }

    fn length(&self) -> Option<u64> {
        self.0.borrow().body.remaining()
    }

    fn is_end(&self) -> bool {
        self.0.borrow().body.is_end()
    }
}

/// Where the answer goes.
struct Answer<'a, S> {
    connection: Rc<RefCell<Connection<S>>>,
    facts: Facts,
    drain: &'a Drain,
}

impl<S: AsyncRead + AsyncWrite + Abort + Unpin> Reply for Answer<'_, S> {
    async fn send(self, response: Response) -> Delivered {
        let Response { head, mut body } = response;
        if let Some(tunnel) = body.take_tunnel() {
            // Boxed, so that ordinary answers do not pay for its size.
            return Box::pin(tunnel::run(&self.connection, &head, tunnel, self.drain)).await;
        }
        let mut encoder = self.begin(&head, &body);
        let mut delivered = Delivered::default();
        let mut flushed = false;
        let mut finished = body.is_end() || self.is_bodiless(head.status);
        let outcome = poll_fn(|context| {
            loop {
                if flushed || finished {
                    let polled = self.poll_flush(context);
                    if polled.is_pending() {
                        // The request's body must not wait for its answer's reader.
                        body.poll_progress(context);
                    }
                    if ready!(polled).is_err() {
                        return Poll::Ready(Outcome::DownstreamGone);
                    }
                    if finished {
                        return Poll::Ready(Outcome::Complete);
                    }
                }
                let polled = body.poll_next(context);
                // What is ready at once leaves together with the head.
                flushed = true;
                let Poll::Ready(next) = polled else {
                    return match self.poll_flush(context) {
                        Poll::Ready(Err(_)) => Poll::Ready(Outcome::DownstreamGone),
                        _ => Poll::Pending,
                    };
                };
                match self.encode(&mut encoder, next, &mut delivered, body.is_end()) {
                    Ok(at_end) => finished = at_end,
                    Err(error) => {
                        // What came of the answer is the caller's, and shows it that the rest is missing.
                        let _what_fits = self.poll_flush(context).is_ready();
                        return Poll::Ready(Outcome::UpstreamBroke(error));
                    }
                }
            }
        })
        .await;
        if !matches!(outcome, Outcome::Complete) {
            self.connection.borrow_mut().answer = Stage::None;
            if encoder.ends_with_connection() {
                self.connection.borrow_mut().stream.abort();
            }
        }
        delivered.outcome = outcome;
        delivered
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answer<'_, S> {
    /// Writes the head. Framing is always our own (RFC 9112 §6.3).
    fn begin(&self, head: &ResponseHead, body: &Body) -> Encoder {
        let mut connection = self.connection.borrow_mut();
        let bodiless = self.is_bodiless(head.status);
        let framing = match body.length() {
            _ if bodiless => Framing::None,
            _ if body.is_end() => Framing::None,
            Some(length) => Framing::Length(length),
            None if self.facts.version == Version::HTTP_10 => Framing::UntilClose,
            None => Framing::Chunked,
        };
        // Who still waits for leave to send its body may send it or not, and nobody could tell it from the next request.
        let owed = connection.expects_continue || connection.broken;
        // Asked now and not with the request, which may have begun long before the end did.
        let last = owed || self.drain.is_last_answer();
        let keep = self.facts.persistent && !last && framing != Framing::UntilClose;
        connection.answer = if keep { Stage::Keep } else { Stage::Last };
        let text = connection.out.text();
        write::status_line(text, head.status);
        for (name, value) in head.fields.lines() {
            let length = name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes());
            if (length && (!bodiless || head.status == StatusCode::NO_CONTENT))
                || name.eq_ignore_ascii_case(TRANSFER_ENCODING.as_str().as_bytes())
            {
                continue;
            }
            write::line(text, name, value);
        }
        match framing {
            Framing::None if bodiless => {}
            Framing::None => write::field(text, "content-length", b"0"),
            _ => write::framing(text, &framing),
        }
        if !keep {
            write::field(text, "connection", b"close");
        } else if self.facts.version == Version::HTTP_10 {
            write::field(text, "connection", b"keep-alive");
        }
        write::end(text);
        Encoder::new(framing)
    }

    fn is_bodiless(&self, status: StatusCode) -> bool {
        self.facts.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }

    fn poll_flush(&self, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let mut connection = self.connection.borrow_mut();
        let connection = &mut *connection;
        connection.out.poll_flush(&mut connection.stream, context)
    }

    /// Puts a frame into the outbox; answers whether it was the last.
    fn encode(
        &self,
        encoder: &mut Encoder,
        next: Option<Result<Frame, BodyError>>,
        delivered: &mut Delivered,
        last: bool,
    ) -> Result<bool, BodyError> {
        let wrong = |_wrong| BodyError::Broken("the body is not as long as it was said to be".to_owned());
        let out = &mut self.connection.borrow_mut().out;
        match next.transpose()? {
            None => encoder.finish(out, None).map(|()| true).map_err(wrong),
            Some(Frame::Trailers(trailers)) => {
                delivered.note(&trailers);
                encoder.finish(out, Some(&trailers)).map(|()| true).map_err(wrong)
            }
            Some(Frame::Data(bytes)) => {
                delivered.bytes += u64::try_from(bytes.len()).unwrap_or_default();
                encoder.push(out, bytes).map_err(wrong)?;
                if last && encoder.can_finish(out) {
                    encoder.finish(out, None).map_err(wrong)?;
                    return Ok(true);
                }
                Ok(false)
            }
        }
    }
}
