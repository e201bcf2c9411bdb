//! Bodies as everything above `transport` sees them: a flow of frames, whatever protocol they came by.

mod copied;
mod grpc;
mod replay;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

pub use self::copied::{NotCopied, Passed};
pub use self::replay::{Replayable, Waits};

use self::copied::CopiedBody;
use self::grpc::GrpcBody;
use self::replay::ReplayBody;
use crate::timer::Timer;
use crate::transport::{http1, http2};
use bytes::Bytes;
use hms_http1::Reject;
use hms_http1::websocket::Offer;
use hms_model::message::Fields;

/// One piece of a body.
#[derive(Debug, Clone)]
pub enum Frame {
    /// Bytes.
    Data(Bytes),
    /// The trailer section, always last.
    Trailers(Fields),
}

/// Why a body ended before its end.
#[derive(Debug, Clone)]
pub enum BodyError {
    /// No more of it came.
    Broken(String),
    /// What came is no body.
    Malformed(Reject),
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(why) => f.write_str(why),
            Self::Malformed(reject) => reject.fmt(f),
        }
    }
}

impl std::error::Error for BodyError {}

/// A body that comes by HTTP/1, wherever its connection is.
pub(crate) trait Inflow {
    /// The next frame; `None` at the end.
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>>;
    /// Lets go on what goes on beside this body: the rest of the request while its answer waits for a reader.
    fn poll_progress(&mut self, _context: &mut Context<'_>) {}
    /// How many bytes are to come, if that is known.
    fn length(&self) -> Option<u64>;
    /// Whether nothing more is to come.
    fn is_end(&self) -> bool;
}

type Polled = Poll<Option<Result<Frame, BodyError>>>;

/// A body.
pub struct Body {
    kind: Kind,
    /// How long it may be silent.
    idle: Option<Duration>,
    /// Runs while it is.
    silence: Option<Box<Timer>>,
}

enum Kind {
    Empty,
    Full(Option<Bytes>),
    Http1(Box<dyn Inflow>),
    Http2(Box<http2::Incoming>),
    Replay(ReplayBody),
    Offer(Box<Offer>),
    Grpc(Box<GrpcBody>),
    Copied(Box<CopiedBody>),
    Tunnel(Box<http1::Tunnel>),
    #[cfg(test)]
    Silent,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Empty => "Body::Empty",
            Kind::Full(_) => "Body::Full",
            Kind::Http1(_) => "Body::Http1",
            Kind::Http2(_) => "Body::Http2",
            Kind::Replay(_) => "Body::Replay",
            Kind::Offer(_) => "Body::Offer",
            Kind::Grpc(_) => "Body::Grpc",
            Kind::Copied(_) => "Body::Copied",
            Kind::Tunnel(_) => "Body::Tunnel",
            #[cfg(test)]
            Kind::Silent => "Body::Silent",
        })
    }
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, idle: None, silence: None }
    }

    /// These bytes.
    pub fn full(bytes: Bytes) -> Self {
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(Some(bytes)) }, idle: None, silence: None }
    }

    /// What an HTTP/1 connection receives.
    pub(crate) fn http1(source: Box<dyn Inflow>) -> Self {
        Self { kind: Kind::Http1(source), idle: None, silence: None }
    }

    /// What an HTTP/2 stream receives.
    pub(crate) fn http2(incoming: http2::Incoming) -> Self {
        let kind = if incoming.is_empty() { Kind::Empty } else { Kind::Http2(Box::new(incoming)) };
        Self { kind, idle: None, silence: None }
    }

    /// The same as the body of a gRPC answer: it always ends with a status, and when `deadline` strikes at the latest.
    #[must_use]
    pub(crate) fn grpc(self, deadline: Option<Timer>) -> Self {
        Self { kind: Kind::Grpc(Box::new(GrpcBody::new(self, deadline))), idle: None, silence: None }
    }

    /// The same body, of which a copy is handed to `passed` when all of it was read. An empty one is handed over at once.
    #[must_use]
    pub(crate) fn copied(self, passed: Passed) -> Self {
        if self.is_end() {
            passed(Ok(Bytes::new()));
            return self;
        }
        Self { kind: Kind::Copied(Box::new(CopiedBody::new(self, passed))), idle: None, silence: None }
    }

    /// No bytes, but the wish to speak something else on this connection.
    pub(crate) fn offer(offer: Offer) -> Self {
        Self { kind: Kind::Offer(Box::new(offer)), idle: None, silence: None }
    }

    /// What the request offers to speak instead of HTTP.
    pub(crate) fn offered(&self) -> Option<Offer> {
        if let Kind::Offer(offer) = &self.kind { Some(**offer) } else { None }
    }

    /// The other side of an offer that was accepted.
    pub(crate) fn tunnel(tunnel: http1::Tunnel) -> Self {
        Self { kind: Kind::Tunnel(Box::new(tunnel)), idle: None, silence: None }
    }

    /// Takes the other side of an offer that was accepted.
    pub(crate) fn take_tunnel(&mut self) -> Option<Box<http1::Tunnel>> {
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::Tunnel(tunnel) => Some(tunnel),
            kind => {
                self.kind = kind;
                None
            }
        }
    }

    /// The same body, which breaks when nothing of it comes for `limit`. What is wholly here never does.
    #[must_use]
    pub fn idle_limit(mut self, limit: Duration) -> Self {
        if !self.is_end() && !matches!(self.kind, Kind::Full(_)) {
            self.idle = Some(limit);
        }
        self
    }

    /// Whether there is nothing (more) to come.
    pub fn is_end(&self) -> bool {
        match &self.kind {
            Kind::Empty | Kind::Full(None) | Kind::Offer(_) => true,
            Kind::Full(Some(_)) | Kind::Tunnel(_) => false,
            Kind::Grpc(messages) => messages.is_end(),
            Kind::Copied(copied) => copied.source.is_end(),
            Kind::Http1(incoming) => incoming.is_end(),
            Kind::Http2(incoming) => incoming.is_end(),
            Kind::Replay(replay) => replay.is_end(),
            #[cfg(test)]
            Kind::Silent => false,
        }
    }

    /// How many bytes are to come, if that is known.
    pub fn length(&self) -> Option<u64> {
        match &self.kind {
            Kind::Empty | Kind::Full(None) | Kind::Offer(_) => Some(0),
            Kind::Tunnel(_) | Kind::Grpc(_) => None,
            Kind::Full(Some(bytes)) => u64::try_from(bytes.len()).ok(),
            Kind::Http1(incoming) => incoming.length(),
            Kind::Http2(incoming) => incoming.length(),
            Kind::Replay(replay) => replay.length,
            Kind::Copied(copied) => copied.source.length(),
            #[cfg(test)]
            Kind::Silent => None,
        }
    }

    /// The bytes of a body that is wholly in memory.
    pub fn into_full(self) -> Option<Bytes> {
        match self.kind {
            Kind::Empty | Kind::Full(None) => Some(Bytes::new()),
            Kind::Full(bytes) => bytes,
            _ => None,
        }
    }

    /// The next frame; `None` at the end.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let polled = match &mut self.kind {
            Kind::Empty | Kind::Offer(_) | Kind::Tunnel(_) => Poll::Ready(None),
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::Data(bytes)))),
            Kind::Http1(incoming) => incoming.poll_frame(context),
            Kind::Http2(incoming) => incoming.poll_frame(context),
            Kind::Replay(replay) => replay.poll_frame(context),
            Kind::Grpc(messages) => messages.poll_frame(context),
            Kind::Copied(copied) => copied.poll_frame(context),
            #[cfg(test)]
            Kind::Silent => Poll::Pending,
        };
        self.within_idle_limit(polled, context)
    }

    /// Lets go on what goes on beside this body, while nobody can take more of it.
    pub fn poll_progress(&mut self, context: &mut Context<'_>) {
        if let Kind::Http1(source) = &mut self.kind {
            source.poll_progress(context);
        }
    }

    fn within_idle_limit(&mut self, polled: Polled, context: &mut Context<'_>) -> Polled {
        let Some(limit) = self.idle else { return polled };
        if polled.is_ready() {
            self.silence = None;
            return polled;
        }
        ready!(self.silence.get_or_insert_with(|| Box::new(Timer::after(limit))).poll(context));
        Poll::Ready(Some(Err(BodyError::Broken(format!("nothing came for {} s", limit.as_secs())))))
    }

    /// The next frame; `None` at the end.
    pub async fn frame(&mut self) -> Option<Result<Frame, BodyError>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// Reads everything, as long as it is at most `limit` bytes; a longer body comes back as it was, its beginning first.
    pub async fn collect(mut self, limit: usize) -> Result<Result<Bytes, Self>, BodyError> {
        let mut read: Vec<Bytes> = Vec::new();
        let mut length = 0;
        while let Some(frame) = self.frame().await {
            match frame? {
                Frame::Data(bytes) => {
                    length += bytes.len();
                    read.push(bytes);
                    if length > limit {
                        return Ok(Err(self.with_beginning(read)));
                    }
                }
                Frame::Trailers(_) => {}
            }
        }
        Ok(Ok(match <[Bytes; 1]>::try_from(read) {
            Ok([only]) => only,
            Err(several) => Bytes::from(several.concat()),
        }))
    }

    fn with_beginning(self, beginning: Vec<Bytes>) -> Self {
        let idle = self.idle;
        let replay = ReplayBody::with_beginning(self, beginning);
        Self { kind: Kind::Replay(replay), idle, silence: None }
    }
}

/// How far the sender of a body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Something is still to come.
    Sending,
    /// All of it came.
    Complete,
    /// It broke off; what fails now is not the receiver's fault.
    Broken,
    /// What came of it is no body, and that is not the receiver's fault either.
    Malformed,
}

/// How long an answer may take.
#[derive(Debug, Clone, Copy, Default)]
pub struct Patience {
    /// Counted from when the request's body has come: a long upload is no slow answer. The body's own idle limit bounds it.
    pub answer: Option<Duration>,
    /// Counted from now, whatever comes.
    pub all: Option<Duration>,
}

/// Waits for an answer no longer than `patience`; `whole` is called when the request's body has come only after this began.
pub fn answer_within<T>(
    patience: Patience,
    body: &Replayable,
    mut sending: Pin<&mut impl Future<Output = T>>,
    whole: impl Fn(),
) -> impl Future<Output = Option<T>> {
    let Patience { answer, all } = patience;
    let end = all.map(Timer::end_of);
    let mut timer = answer.or(all).map(|after| Timer::before(Timer::end_of(after), end));
    let mut is_coming = answer.is_some() && body.source() == Source::Sending;
    std::future::poll_fn(move |context| {
        if let Poll::Ready(answer) = sending.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        let Some(timer) = &mut timer else { return Poll::Pending };
        loop {
            // Where a task of its own sends the body this is seen when the limit is reached.
            if is_coming && body.source() != Source::Sending {
                is_coming = false;
                whole();
                let ended = body.ended().unwrap_or_else(|| Timer::end_of(Duration::ZERO));
                *timer = Timer::before(Timer::end_from(ended, answer.unwrap_or_default()), end);
            }
            ready!(timer.poll(context));
            if timer.is_at(end) || !is_coming {
                return Poll::Ready(None);
            }
            if body.source() == Source::Sending {
                *timer = Timer::before(Timer::end_of(answer.unwrap_or_default()), end);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut body: Body) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(Frame::Data(bytes)) => out.extend_from_slice(&bytes),
                Ok(Frame::Trailers(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(out)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_body_breaks_at_its_limit() {
        let mut body = Body { kind: Kind::Silent, idle: None, silence: None }.idle_limit(Duration::from_secs(5));
        let begun = tokio::time::Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_is_no_slow_answer_but_ends_with_its_callers_deadline() {
        let seconds = Duration::from_secs;
        for (coming, answer, all, after) in [
            (false, Some(5), None, 5),
            (false, Some(5), Some(3), 3),
            (true, Some(5), Some(12), 12),
            (true, Some(5), Some(3), 3),
            (false, None, Some(7), 7),
        ] {
            let kind = if coming { Kind::Silent } else { Kind::Empty };
            let body = Replayable::new(Body { kind, idle: None, silence: None });
            let patience = Patience { answer: answer.map(seconds), all: all.map(seconds) };
            let begun = tokio::time::Instant::now();
            let sending = std::pin::pin!(std::future::pending::<()>());
            assert_eq!(answer_within(patience, &body, sending, || {}).await, None);
            assert_eq!(begun.elapsed(), seconds(after));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_an_answer_begins_with_the_end_of_the_body() {
        let body = Replayable::new(Body::full(Bytes::from_static(b"0123")));
        let mut upload = body.attempt();
        let whole = std::cell::Cell::new(None);
        let begun = tokio::time::Instant::now();
        let sending = async {
            tokio::time::sleep(Duration::from_secs(4)).await;
            while upload.frame().await.is_some() {}
            std::future::pending::<()>().await;
        };
        let patience = Patience { answer: Some(Duration::from_secs(5)), all: None };
        let sending = std::pin::pin!(sending);
        assert_eq!(answer_within(patience, &body, sending, || whole.set(Some(begun.elapsed()))).await, None);
        assert_eq!((whole.get(), begun.elapsed()), (Some(Duration::from_secs(4)), Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn a_body_too_long_to_collect_comes_back_whole() {
        let body = Body::full(Bytes::from_static(b"0123456789"));
        let back = body.collect(4).await.unwrap().unwrap_err();
        assert_eq!(read(back).await.as_deref(), Ok(b"0123456789".as_slice()));
    }
}
