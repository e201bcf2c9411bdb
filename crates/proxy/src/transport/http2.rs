//! HTTP/2 on the `h2` crate directly, with a meter below it and bounds around it.
//!
//! - [`limits`]: every bound, at the edge and in the mesh, and what breaking one is called;
//! - [`meter`]: which frames cost what, without any I/O ([`budget`], [`frames`] are its parts); [`metered`] puts it between TLS
//!   and `h2`;
//! - [`head`]: what `h2` lets pass that a request may not be;
//! - [`server`] and [`client`]: connections of others to us, and ours to others.

pub mod budget;
pub mod client;
pub mod frames;
pub mod head;
pub mod limits;
pub mod meter;
pub mod metered;
pub mod server;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use hms_model::message::Fields;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;

pub use self::client::{Connection, Liveness};
pub use self::limits::{Breach, Limits};
pub use self::server::serve;
use super::waiting::Demand;
use super::{Delivered, Outcome};
use crate::body::{Body, BodyError, Frame};

/// How long a peer may keep a stream's window closed.
const STALLED: Duration = Duration::from_secs(30);
/// Most fields of a trailer section (reliability §6).
const MOST_TRAILERS: usize = 32;
/// Largest trailer section, names and values, in bytes.
const TRAILER_BYTES: usize = 8 * 1024;

/// A body that arrives on an HTTP/2 stream.
#[derive(Debug)]
pub struct Incoming {
    /// There until it is dropped.
    stream: Option<RecvStream>,
    length: Option<u64>,
    data_ended: bool,
    /// Of a downstream connection: where the stream goes that nobody read to its end.
    unread: Option<Unread>,
    /// Of an upstream connection: counts as one of its open streams, and keeps its request's body going.
    _upstream: Option<(Open, Option<Upload>)>,
}

/// A request's stream after its handler let go of it.
type Unread = Rc<RefCell<Option<RecvStream>>>;

/// A request's body on its way up, which ends with whoever holds this.
#[derive(Debug)]
struct Upload(tokio::task::JoinHandle<()>);

impl Drop for Upload {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The open streams of a connection.
#[derive(Debug, Default)]
struct Streams {
    open: Cell<u32>,
    /// Who waits for room on it, if it is one to an upstream.
    demand: Option<Demand>,
}

/// One of a connection's open streams.
#[derive(Debug)]
struct Open(Rc<Streams>);

impl Open {
    fn new(streams: &Rc<Streams>) -> Self {
        streams.open.set(streams.open.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let left = self.0.open.get().saturating_sub(1);
        self.0.open.set(left);
        if let Some(demand) = &self.0.demand
            && !demand.room()
            && left == 0
        {
            demand.idle();
        }
    }
}

impl Incoming {
    fn new(stream: RecvStream, map: &HeaderMap, upstream: Option<(Open, Option<Upload>)>) -> Self {
        let declared = map.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let length = if stream.is_end_stream() { Some(0) } else { declared };
        Self { stream: Some(stream), length, data_ended: false, unread: None, _upstream: upstream }
    }

    /// What nobody reads of this body goes to `unread`.
    fn left_to(mut self, unread: &Unread) -> Self {
        self.unread = Some(Rc::clone(unread));
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.is_end()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.length
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        if !self.data_ended {
            match ready!(stream.poll_data(context)) {
                Some(Ok(bytes)) => {
                    // The next piece is only asked for when this one was passed on: that is the back-pressure.
                    let _released = stream.flow_control().release_capacity(bytes.len()).is_ok();
                    return Poll::Ready(Some(Ok(Frame::Data(bytes))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Broken(error.to_string())))),
                None => self.data_ended = true,
            }
        }
        match ready!(stream.poll_trailers(context)) {
            Ok(Some(trailers)) => Poll::Ready(Some(bounded(trailers).map(Frame::Trailers))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(BodyError::Broken(error.to_string())))),
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(unread) = self.unread.take() {
            *unread.borrow_mut() = self.stream.take().filter(|stream| !stream.is_end_stream());
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

/// Sends all of `bytes`; `false` when the stream is over.
async fn send_data(stream: &mut SendStream<Bytes>, mut bytes: Bytes) -> bool {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        // Being told of no room is no progress.
        let room = async {
            loop {
                match poll_fn(|context| stream.poll_capacity(context)).await {
                    Some(Ok(0)) => {}
                    other => return other,
                }
            }
        };
        let Ok(Some(Ok(granted))) = tokio::time::timeout(STALLED, room).await else {
            // Gone, or not reading: either way nothing may wait for it.
            stream.send_reset(Reason::CANCEL);
            return false;
        };
        let piece = bytes.split_to(granted.min(bytes.len()));
        if stream.send_data(piece, false).is_err() {
            return false;
        }
    }
    true
}

/// Trailers, if there are not too many.
fn bounded(trailers: HeaderMap) -> Result<Fields, BodyError> {
    let bytes: usize = trailers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if trailers.len() > MOST_TRAILERS || bytes > TRAILER_BYTES {
        return Err(BodyError::Broken("the trailer section is too large".to_owned()));
    }
    Ok(Fields::from(trailers))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn trailers(count: usize, length: usize) -> HeaderMap {
        let value = HeaderValue::from_bytes(&vec![b'v'; length]).unwrap();
        (0..count).map(|number| (HeaderName::try_from(format!("x-{number:02}")).unwrap(), value.clone())).collect()
    }

    #[test]
    fn trailers_are_bounded_in_number_and_size() {
        assert!(bounded(trailers(MOST_TRAILERS, 10)).is_ok());
        assert!(bounded(trailers(MOST_TRAILERS + 1, 10)).is_err());
        assert!(bounded(trailers(2, TRAILER_BYTES / 2)).is_err());
    }
}
