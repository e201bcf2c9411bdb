//! One upstream connection: a request, its answer, then back to the pool. What it owes a byte, or is owed one, is never used again.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use hms_http1::websocket::{Accept, Offer};
use hms_http1::{Asked, Framing, Limits, Scanner, write};
use hms_model::message::{Authority, RequestHead, ResponseHead};
use http::header::{CONTENT_LENGTH, TE};
use http::{Method, StatusCode};

use super::coding::{Arriving, Encoder};
use super::outbox::Outbox;
use crate::body::{Body, BodyError, Frame, Inflow};
use crate::transport::buffer::{ReadBuffer, SMALL};
use crate::transport::pool::Home;
use crate::transport::tls_stream::{Impatient, Stream};
use crate::transport::waiting::Place;
use crate::transport::{Edits, Response, SendError};

/// Interim answers that are read over before the one that counts (reliability A5).
const MOST_INTERIM: u8 = 8;
/// A body that is here as a whole and no longer than this lets the connection go at once.
const AT_ONCE: u64 = 8 * 1024;

/// A connection to an upstream that carries one request at a time.
#[derive(Debug)]
pub struct Connection(Box<Wire>);

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// One of our proxies, over TLS: it ends a stream in order only when it has taken no request from it.
    Proxy,
    /// Anybody else; an end without an answer tells nothing.
    Server,
}

/// What a connection consists of.
#[derive(Debug)]
struct Wire {
    stream: Impatient<Stream>,
    read: ReadBuffer,
    out: Outbox,
    scanner: Scanner,
    body: Arriving,
    upload: Upload,
    /// Whether the request's head still waits for the first piece of its body, to leave with it.
    waits: bool,
    /// Interim answers so far.
    interim: u8,
    /// Whether the other end keeps the connection after this answer.
    persistent: bool,
    peer: Peer,
    home: Option<Home>,
    place: Option<Place>,
}

/// How far the request's body has come.
#[derive(Debug)]
enum Upload {
    /// All of it was written.
    Done,
    /// Still to be written.
    Sending(Body, Encoder),
    /// It will never be complete.
    Broken,
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream. The connection holds `place` as long as it lives.
    pub fn new(stream: Stream, place: Option<Place>, peer: Peer) -> Self {
        Self(Box::new(Wire {
            stream: Impatient::new(stream),
            read: ReadBuffer::default(),
            out: Outbox::default(),
            scanner: Scanner::default(),
            body: Arriving::new(Framing::None),
            upload: Upload::Done,
            waits: false,
            interim: 0,
            persistent: true,
            peer,
            home: None,
            place,
        }))
    }

    /// Its place among those that may be open.
    pub fn place(&self) -> Option<&Place> {
        self.0.place.as_ref()
    }

    /// Whether it cannot carry another request: the other end closed it, or said something nobody asked for.
    pub fn is_stale(&mut self) -> bool {
        let wire = &mut *self.0;
        let mut context = Context::from_waker(Waker::noop());
        !wire.read.is_empty() || wire.read.poll_fill(&mut wire.stream, SMALL, &mut context).is_ready()
    }

    /// Sends a request and waits for the answer's head. The connection goes with the answer's body, and from its end to `home`.
    pub async fn send(
        self,
        head: &RequestHead,
        edits: &Edits,
        body: Body,
        home: Option<Home>,
    ) -> Result<Response, SendError> {
        let mut wire = self.0;
        let offer = body.offered();
        // A connection on which something else was offered is not asked for anything again.
        wire.home = home.filter(|_| offer.is_none());
        wire.begin(head, edits, body, offer.as_ref());
        let asked = match (offer, &head.method) {
            (Some(_), _) => Asked::Upgrade,
            (None, &Method::HEAD) => Asked::Head,
            (None, _) => Asked::Other,
        };
        let answer = poll_fn(|context| wire.poll_answer(asked, context)).await?;
        match (offer, answer.upgrade_accept) {
            (Some(offer), Some(accept)) => {
                offer.check(&answer).map_err(SendError::maybe_processed)?;
                let body = Body::tunnel(Tunnel { wire, accept });
                Ok(Response { head: answer.head, body })
            }
            _ => Ok(wire.into_response(answer)),
        }
    }
}

/// A connection on which something else than HTTP is spoken from now on, because both ends agreed.
#[derive(Debug)]
pub struct Tunnel {
    wire: Box<Wire>,
    accept: Accept,
}

impl Tunnel {
    /// The proof that the offer was read, for whoever made it.
    pub(super) fn accept(&self) -> &Accept {
        &self.accept
    }

    /// What came behind the answer already.
    pub(super) fn take_read(&mut self) -> ReadBuffer {
        std::mem::take(&mut self.wire.read)
    }

    /// The connection.
    pub(super) fn stream(&mut self) -> &mut Impatient<Stream> {
        &mut self.wire.stream
    }
}

impl Wire {
    /// Writes the head into the outbox. Framing is always our own.
    fn begin(&mut self, head: &RequestHead, edits: &Edits, body: Body, offer: Option<&Offer>) {
        self.out.forget();
        self.scanner = Scanner::default();
        self.interim = 0;
        let framing = match body.length() {
            _ if body.is_end() => Framing::None,
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let text = self.out.text();
        write::request_line(text, &head.method, edits.path(head).as_str(), head.query.as_deref());
        authority(text, edits.authority(head));
        let mut names_te = false;
        for (name, value) in head.fields.lines().filter(|(name, _)| !edits.hides(name)).chain(edits.added()) {
            if name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str().as_bytes()) {
                continue;
            }
            names_te |= name.eq_ignore_ascii_case(TE.as_str().as_bytes());
            write::line(text, name, value);
        }
        if let Some(offer) = offer {
            offer.write(text);
        } else if names_te {
            // RFC 9110 §10.1.4: who sends TE says that it is for this hop.
            write::field(text, "connection", b"te");
        }
        let expects_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
        match framing {
            // RFC 9110 §8.6: a method that usually has a body says that there is none.
            Framing::None if expects_body => write::field(text, "content-length", b"0"),
            _ => write::framing(text, &framing),
        }
        write::end(text);
        self.waits = framing != Framing::None;
        self.upload = match framing {
            Framing::None => Upload::Done,
            _ => Upload::Sending(body, Encoder::new(framing)),
        };
    }

    /// Writes what is in the outbox. An error of the stream is no reason to stop: the answer may be here already. That the other
    /// end has not read for long is one, as no other limit runs while an upload lasts.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        if let Err(error) = ready!(self.out.poll_flush(&mut self.stream, context)) {
            self.upload = Upload::Broken;
            if error.kind() == io::ErrorKind::TimedOut {
                return Poll::Ready(Err(BodyError::Broken(error.to_string())));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what there is of the request.
    fn poll_upload(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        loop {
            if !self.waits {
                ready!(self.poll_flush(context))?;
            }
            let Upload::Sending(body, encoder) = &mut self.upload else { return Poll::Ready(Ok(())) };
            let polled = body.poll_next(context);
            self.waits = false;
            let Poll::Ready(next) = polled else {
                ready!(self.poll_flush(context))?;
                return Poll::Pending;
            };
            let at_end = body.is_end();
            let wrong = |_wrong| BodyError::Broken("the body is not as long as it was said to be".to_owned());
            let finished = match next {
                Some(Err(error)) => {
                    self.upload = Upload::Broken;
                    return Poll::Ready(Err(error));
                }
                None => encoder.finish(&mut self.out, None).map(|()| true),
                Some(Ok(Frame::Trailers(trailers))) => encoder.finish(&mut self.out, Some(&trailers)).map(|()| true),
                Some(Ok(Frame::Data(bytes))) => encoder.push(&mut self.out, bytes).and_then(|()| {
                    let last = at_end && encoder.can_finish(&self.out);
                    if last { encoder.finish(&mut self.out, None).map(|()| true) } else { Ok(false) }
                }),
            };
            match finished.map_err(wrong) {
                Ok(true) => self.upload = Upload::Done,
                Ok(false) => {}
                Err(error) => {
                    self.upload = Upload::Broken;
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    fn poll_answer(&mut self, asked: Asked, context: &mut Context<'_>) -> Poll<Result<hms_http1::Response, SendError>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(context) {
            return Poll::Ready(Err(self.failed(error)));
        }
        let limits = match self.peer {
            Peer::Proxy => &Limits::RESPONSE_OF_PEER,
            Peer::Server => &Limits::RESPONSE,
        };
        loop {
            if !self.read.is_empty() {
                let found = match self.scanner.find_end(self.read.bytes(), limits) {
                    Ok(found) => found,
                    Err(reject) => return Poll::Ready(Err(SendError::maybe_processed(reject))),
                };
                if let Some(length) = found {
                    self.scanner = Scanner::default();
                    let head = self.read.bytes().get(..length).unwrap_or_default();
                    let answer = match hms_http1::response(head, asked, limits) {
                        Ok(answer) => answer,
                        Err(reject) => return Poll::Ready(Err(SendError::maybe_processed(reject))),
                    };
                    self.read.consume(length);
                    if !answer.is_interim() {
                        return Poll::Ready(Ok(answer));
                    }
                    self.interim += 1;
                    if self.interim > MOST_INTERIM {
                        return Poll::Ready(Err(SendError::maybe_processed("too many interim answers")));
                    }
                    continue;
                }
            }
            let clean_start = self.read.is_empty();
            match ready!(self.read.poll_fill(&mut self.stream, 2 * limits.head, context)) {
                Ok(1..) => {}
                Ok(0) if clean_start && self.interim == 0 && self.peer == Peer::Proxy => {
                    // It had not begun with the request, or it would have broken off instead.
                    return Poll::Ready(Err(SendError::not_processed("closed before the request was taken")));
                }
                Ok(0) => return Poll::Ready(Err(self.failed("closed before an answer"))),
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> SendError {
        if self.out.has_begun() { SendError::maybe_processed(error) } else { SendError::not_processed(error) }
    }

    fn into_response(mut self: Box<Self>, answer: hms_http1::Response) -> Response {
        let hms_http1::Response { head, framing, persistent, content_length, .. } = answer;
        self.persistent = persistent;
        let ResponseHead { status, mut fields } = head;
        if framing == Framing::None
            && status != StatusCode::NO_CONTENT
            && let Some(length) = content_length.filter(|length| *length > 0)
        {
            // The answer to HEAD, and 304, tell a length without having it.
            fields.push_line("content-length", length.to_string().as_bytes());
        }
        let here = u64::try_from(self.read.bytes().len()).unwrap_or(u64::MAX);
        let body = match framing {
            Framing::None => {
                self.finish();
                Body::empty()
            }
            Framing::Length(length) if length <= AT_ONCE && length <= here => {
                let body = Body::full(self.read.take(usize::try_from(length).unwrap_or(usize::MAX)));
                self.finish();
                body
            }
            _ => {
                self.body = Arriving::new(framing);
                Body::http1(Box::new(ResponseBody(Some(self))))
            }
        };
        Response { head: ResponseHead { status, fields }, body }
    }

    /// The answer is over: back to the pool, if nothing is owed and nothing is left over.
    fn finish(mut self: Box<Self>) {
        let Some(home) = self.home.take() else { return };
        let reusable = self.persistent
            && matches!(self.upload, Upload::Done)
            && self.out.is_empty()
            && self.read.is_empty()
            && self.body.is_end();
        if reusable {
            home.put(Connection(self));
        }
    }

    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        // What breaks here shows in the answer; the answer itself may still be whole.
        let _going_on = self.poll_upload(context).is_ready();
        self.body.poll_frame(&mut self.read, &mut self.stream, context)
    }
}

/// `Host` comes first (RFC 9110 §7.2).
fn authority(text: &mut Vec<u8>, authority: &Authority) {
    text.extend_from_slice(b"host: ");
    text.extend_from_slice(authority.host().as_bytes());
    if let Some(port) = authority.port() {
        text.extend_from_slice(b":");
        text.extend_from_slice(port.to_string().as_bytes());
    }
    text.extend_from_slice(b"\r\n");
}

/// The body of an answer, and the connection it comes by.
struct ResponseBody(Option<Box<Wire>>);

impl Inflow for ResponseBody {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(wire) = &mut self.0 else { return Poll::Ready(None) };
        let next = ready!(wire.poll_body(context));
        let over = match &next {
            Some(Ok(Frame::Data(_))) => wire.body.is_end(),
            Some(Ok(Frame::Trailers(_))) | None => true,
            Some(Err(_)) => {
                self.0 = None;
                return Poll::Ready(next);
            }
        };
        if over && let Some(wire) = self.0.take() {
            wire.finish();
        }
        Poll::Ready(next)
    }

    fn poll_progress(&mut self, context: &mut Context<'_>) {
        if let Some(wire) = &mut self.0 {
            let _going_on = wire.poll_upload(context).is_ready();
        }
    }

    fn length(&self) -> Option<u64> {
        self.0.as_ref().map_or(Some(0), |wire| wire.body.remaining())
    }

    fn is_end(&self) -> bool {
        self.0.as_ref().is_none_or(|wire| wire.body.is_end())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use hms_model::message::{CanonicalPath, Fields};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::transport::Processed;

    fn connection(peer: Peer) -> (Connection, DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(1024);
        (Connection::new(Stream::Memory(ours), None, peer), theirs)
    }

    fn post() -> RequestHead {
        RequestHead {
            method: Method::POST,
            authority: Authority::parse("calc-svc").unwrap(),
            path: CanonicalPath::parse("/pay").unwrap(),
            query: None,
            fields: Fields::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_upstream_that_stops_reading_in_an_upload_is_given_up() {
        let (connection, _theirs) = connection(Peer::Server);
        let (head, edits, body) = (post(), Edits::default(), Body::full(Bytes::from(vec![0; 64 * 1024])));
        let sending = connection.send(&head, &edits, body, None);
        let sent = tokio::time::timeout(Duration::from_secs(31), sending).await.expect("it does not wait for ever");
        assert_eq!(sent.unwrap_err().processed, Processed::Maybe);
    }

    #[tokio::test]
    async fn a_proxy_that_closes_in_order_has_taken_nothing_unless_it_spoke() {
        for (said, processed) in [("", Processed::No), ("HTTP/1.1 100 Continue\r\n\r\n", Processed::Maybe)] {
            let (connection, mut theirs) = connection(Peer::Proxy);
            theirs.write_all(said.as_bytes()).await.unwrap();
            theirs.shutdown().await.unwrap();
            let (head, edits) = (post(), Edits::default());
            let reading = async { theirs.read(&mut [0; 512]).await.unwrap() };
            let (sent, _) = tokio::join!(connection.send(&head, &edits, Body::empty(), None), reading);
            assert_eq!(sent.unwrap_err().processed, processed, "{said:?}");
        }
    }
}
