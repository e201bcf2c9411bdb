//! A body of which a copy is kept while it passes.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hms_model::policy::retry::REPLAY_LIMIT;

use super::{Body, Frame, Polled};

/// What is told once a body has passed: its bytes, or nothing if they were too many or broke off.
pub type Passed = Box<dyn FnOnce(Option<Bytes>)>;

pub(super) struct CopiedBody {
    pub(super) source: Body,
    kept: Vec<u8>,
    passed: Option<Passed>,
}

impl CopiedBody {
    pub(super) fn new(source: Body, passed: Passed) -> Self {
        Self { source, kept: Vec::new(), passed: Some(passed) }
    }

    fn tell(&mut self, whole: bool) {
        if let Some(passed) = self.passed.take() {
            let kept = std::mem::take(&mut self.kept);
            passed(whole.then(|| Bytes::from(kept)));
        }
    }

    pub(super) fn poll_frame(&mut self, context: &mut Context<'_>) -> Polled {
        let next = ready!(self.source.poll_next(context));
        match &next {
            Some(Ok(Frame::Data(bytes))) if self.passed.is_some() => {
                if self.kept.len() + bytes.len() > REPLAY_LIMIT {
                    self.tell(false);
                } else {
                    self.kept.extend_from_slice(bytes);
                }
            }
            Some(Err(_)) => self.tell(false),
            Some(Ok(_)) | None => {}
        }
        // Nobody asks a body again that says it has ended.
        if next.is_none() || (self.source.is_end() && !matches!(next, Some(Err(_)))) {
            self.tell(true);
        }
        Poll::Ready(next)
    }
}

impl Drop for CopiedBody {
    fn drop(&mut self) {
        self.tell(false);
    }
}
