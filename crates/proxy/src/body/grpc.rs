//! The body of a gRPC answer: it always ends with a status, and by its call's deadline at the latest.

use std::task::{Context, Poll, ready};

use hms_model::message::Fields;
use http::{HeaderName, HeaderValue};

use super::{Body, Frame, Polled};
use crate::timer::Timer;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// `UNKNOWN`.
const UNKNOWN: HeaderValue = HeaderValue::from_static("2");
/// `DEADLINE_EXCEEDED`.
const DEADLINE_EXCEEDED: HeaderValue = HeaderValue::from_static("4");

/// Messages, then the trailers with the status.
pub(super) struct GrpcBody {
    source: Body,
    deadline: Option<Timer>,
    ended: bool,
}

impl GrpcBody {
    pub(super) fn new(source: Body, deadline: Option<Timer>) -> Self {
        Self { source, deadline, ended: false }
    }

    pub(super) fn is_end(&self) -> bool {
        self.ended
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        if self.ended {
            return Poll::Ready(None);
        }
        match self.source.poll_next(context) {
            Poll::Ready(Some(Ok(Frame::Trailers(mut trailers)))) => {
                self.ended = true;
                if !trailers.contains(STATUS.as_str().as_bytes()) {
                    trailers.set(STATUS, UNKNOWN);
                }
                Poll::Ready(Some(Ok(Frame::Trailers(trailers))))
            }
            // The specification leaves no doubt that there must be one; without it the call's outcome is unknown.
            Poll::Ready(None) => self.end(UNKNOWN, "the answer ended without a status"),
            Poll::Ready(other) => Poll::Ready(other),
            Poll::Pending => {
                let Some(deadline) = &mut self.deadline else { return Poll::Pending };
                ready!(deadline.poll(context));
                // Whoever still sends is told by its stream's reset.
                self.source = Body::empty();
                self.end(DEADLINE_EXCEEDED, "the call's grpc-timeout has passed")
            }
        }
    }

    fn end(&mut self, status: HeaderValue, message: &'static str) -> Polled {
        self.ended = true;
        let mut trailers = Fields::new();
        trailers.set(STATUS, status);
        trailers.set(MESSAGE, HeaderValue::from_static(message));
        Poll::Ready(Some(Ok(Frame::Trailers(trailers))))
    }
}
