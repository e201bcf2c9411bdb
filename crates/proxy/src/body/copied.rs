//! A body of which a copy is kept while it passes.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hms_model::policy::retry::REPLAY_LIMIT;

use super::{Body, Frame, Polled};

/// What is told once a body has passed: its bytes, or why there is no copy.
pub type Passed = Box<dyn FnOnce(Result<Bytes, NotCopied>)>;

/// Why there is no copy of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCopied {
    /// It is larger than what is kept.
    TooLarge,
    /// It broke off.
    Broken,
}

pub(super) struct CopiedBody {
    pub(super) source: Body,
    kept: Vec<u8>,
    passed: Option<Passed>,
}

impl CopiedBody {
    pub(super) fn new(source: Body, passed: Passed) -> Self {
        Self { source, kept: Vec::new(), passed: Some(passed) }
    }

    fn tell(&mut self, outcome: Result<(), NotCopied>) {
        if let Some(passed) = self.passed.take() {
            let kept = std::mem::take(&mut self.kept);
            passed(outcome.map(|()| Bytes::from(kept)));
        }
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        let next = ready!(self.source.poll_next(context));
        match &next {
            Some(Ok(Frame::Data(bytes))) if self.passed.is_some() => {
                if self.kept.len() + bytes.len() > REPLAY_LIMIT {
                    self.tell(Err(NotCopied::TooLarge));
                } else {
                    self.kept.extend_from_slice(bytes);
                }
            }
            Some(Err(_)) => self.tell(Err(NotCopied::Broken)),
            Some(Ok(_)) | None => {}
        }
        // Nobody asks a body again that says it has ended.
        if next.is_none() || (self.source.is_end() && !matches!(next, Some(Err(_)))) {
            self.tell(Ok(()));
        }
        Poll::Ready(next)
    }
}

impl Drop for CopiedBody {
    fn drop(&mut self) {
        self.tell(Err(NotCopied::Broken));
    }
}
