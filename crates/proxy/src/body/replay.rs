//! A request's body, kept while it is sent so that it can be sent again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hms_http1::websocket::Offer;
use hms_model::policy::retry::REPLAY_LIMIT;
use tokio::time::Instant;

use super::{Body, BodyError, Frame, Kind, Polled, Source};
use crate::timer::Timer;

/// A request body that can be sent more than once, as long as what was read of it fits [`REPLAY_LIMIT`] (ruling R2).
pub struct Replayable {
    shared: Option<Rc<RefCell<Shared>>>,
    length: Option<u64>,
    offer: Option<Box<Offer>>,
    waits: Cell<Waits>,
}

/// Whether a request had to wait for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// It did not.
    Never,
    /// It does.
    Now,
    /// It did.
    Before,
}

struct Shared {
    source: Body,
    kept: Vec<Frame>,
    kept_bytes: usize,
    complete: bool,
    failed: Option<BodyError>,
    overflowed: bool,
    attempt: u32,
    /// When it was read to its end.
    ended: Option<Instant>,
}

/// One sending of a [`Replayable`].
pub(super) struct ReplayBody {
    shared: Rc<RefCell<Shared>>,
    position: usize,
    attempt: u32,
    pub(super) length: Option<u64>,
}

impl Replayable {
    /// Takes over a body. An empty one costs nothing.
    pub fn new(body: Body) -> Self {
        let length = body.length();
        if body.is_end() {
            let offer = if let Kind::Offer(offer) = body.kind { Some(offer) } else { None };
            return Self { shared: None, length, offer, waits: Cell::new(Waits::Never) };
        }
        let shared = Shared {
            source: body,
            kept: Vec::new(),
            kept_bytes: 0,
            complete: false,
            failed: None,
            overflowed: false,
            attempt: 0,
            ended: None,
        };
        Self { shared: Some(Rc::new(RefCell::new(shared))), length, offer: None, waits: Cell::new(Waits::Never) }
    }

    /// Whether all that was sent so far could be sent again.
    pub fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| {
            let shared = shared.borrow();
            !shared.overflowed && shared.failed.is_none()
        })
    }

    /// Whether its present attempt had to wait for a connection to be sent on.
    pub fn waits(&self) -> &Cell<Waits> {
        &self.waits
    }

    /// How far the sender of the body has come.
    pub fn source(&self) -> Source {
        let Some(shared) = &self.shared else { return Source::Complete };
        let shared = shared.borrow();
        match (&shared.failed, shared.complete || shared.source.is_end()) {
            (Some(BodyError::Broken(_)), _) => Source::Broken,
            (Some(BodyError::Malformed(_)), _) => Source::Malformed,
            (None, true) => Source::Complete,
            (None, false) => Source::Sending,
        }
    }

    /// When the last of it was read, if that was seen.
    pub(super) fn ended(&self) -> Option<Instant> {
        self.shared.as_ref().and_then(|shared| shared.borrow().ended)
    }

    /// The body from its beginning. Bodies of earlier attempts end with an error, so that only one reads the source.
    pub fn attempt(&self) -> Body {
        let Some(shared) = &self.shared else {
            return self.offer.as_ref().map_or_else(Body::empty, |offer| Body::offer(**offer));
        };
        let attempt = {
            let mut shared = shared.borrow_mut();
            shared.attempt += 1;
            shared.attempt
        };
        let replay = ReplayBody { shared: Rc::clone(shared), position: 0, attempt, length: self.length };
        Body { kind: Kind::Replay(replay), idle: None, silence: None }
    }
}

impl ReplayBody {
    pub(super) fn is_end(&self) -> bool {
        let shared = self.shared.borrow();
        shared.complete && self.position >= shared.kept.len()
    }

    /// What was read of a body that turned out to be too long, and then the rest of it.
    pub(super) fn with_beginning(source: Body, beginning: Vec<Bytes>) -> Self {
        let shared = Shared {
            source,
            kept: beginning.into_iter().map(Frame::Data).collect(),
            kept_bytes: 0,
            complete: false,
            failed: None,
            overflowed: true,
            attempt: 0,
            ended: None,
        };
        Self { shared: Rc::new(RefCell::new(shared)), position: 0, attempt: 0, length: None }
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        let mut shared = self.shared.borrow_mut();
        if shared.attempt != self.attempt {
            return Poll::Ready(Some(Err(BodyError::Broken("a later attempt took over".to_owned()))));
        }
        if let Some(frame) = shared.kept.get(self.position) {
            let frame = frame.clone();
            self.position += 1;
            return Poll::Ready(Some(Ok(frame)));
        }
        if let Some(error) = &shared.failed {
            return Poll::Ready(Some(Err(error.clone())));
        }
        if shared.complete {
            return Poll::Ready(None);
        }
        let next = ready!(shared.source.poll_next(context));
        match &next {
            None => shared.complete = true,
            Some(Err(error)) => shared.failed = Some(error.clone()),
            Some(Ok(frame)) => {
                if shared.keep(frame) {
                    self.position += 1;
                } else {
                    self.position = 0;
                }
            }
        }
        if shared.ended.is_none() && (shared.complete || shared.failed.is_some() || shared.source.is_end()) {
            shared.ended = Some(Timer::end_of(Duration::ZERO));
        }
        Poll::Ready(next)
    }
}

impl Shared {
    /// Keeps a frame for a replay; answers whether it was. Past the limit everything is let go.
    fn keep(&mut self, frame: &Frame) -> bool {
        if let Frame::Data(bytes) = frame {
            self.kept_bytes += bytes.len();
        }
        if self.overflowed || self.kept_bytes > REPLAY_LIMIT {
            self.overflowed = true;
            self.kept.clear();
            return false;
        }
        self.kept.push(frame.clone());
        true
    }
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

    #[tokio::test]
    async fn a_small_body_is_sent_as_often_as_needed() {
        let replayable = Replayable::new(Body::full(Bytes::from_static(b"abc")));
        let mut first = replayable.attempt();
        assert!(first.frame().await.is_some());
        assert!(replayable.can_replay());
        assert_eq!(read(replayable.attempt()).await.as_deref(), Ok(b"abc".as_slice()));
        assert!(first.frame().await.unwrap().is_err(), "the earlier attempt must not read on");
    }

    #[tokio::test]
    async fn a_large_body_is_sent_once_and_whole() {
        let large = vec![7; REPLAY_LIMIT + 1];
        let replayable = Replayable::new(Body::full(Bytes::from(large.clone())));
        assert_eq!(read(replayable.attempt()).await, Ok(large));
        assert!(!replayable.can_replay());
    }
}
