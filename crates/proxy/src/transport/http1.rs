//! HTTP/1.1, for now on hyper's low-level connections; the own engine takes this file's place without a change above it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hms_model::message::{Fields, RequestHead};
use hms_traffic::limits::Permit;
use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Edits, Handler, MAX_FIELDS, MAX_HEAD, Protocol, Request, Response, SendError, request_head, response_head,
};
use crate::body::{Body, BodyError, Frame};
use crate::drain::Drain;
use crate::tasks;

/// Absolute time for a request's head (reliability §6). hyper counts it from the end of the request before.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// How long a kept connection may take to finish with its last request.
const OWING: Duration = Duration::from_millis(20);

/// A body that arrives on an HTTP/1 connection.
#[derive(Debug)]
pub struct Incoming(hyper::body::Incoming);

impl Incoming {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_end_stream()
    }

    pub(crate) fn is_end(&self) -> bool {
        self.0.is_end_stream()
    }

    pub(crate) fn length(&self) -> Option<u64> {
        self.0.size_hint().exact()
    }

    pub(crate) fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame, BodyError>>> {
        let next = ready!(Pin::new(&mut self.0).poll_frame(context));
        Poll::Ready(next.map(|frame| match frame {
            Err(error) => Err(BodyError(error.to_string())),
            Ok(frame) => match frame.into_data() {
                Ok(bytes) => Ok(Frame::Data(bytes)),
                Err(other) => Ok(Frame::Trailers(other.into_trailers().map(Fields::from).unwrap_or_default())),
            },
        }))
    }
}

/// Serves one downstream connection until it ends or drains.
pub async fn serve<S, H>(stream: S, handler: H, drain: &Drain)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    H: Handler + 'static,
{
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (parts, body) = request.into_parts();
        let head = request_head(parts.method, &parts.uri, parts.headers, Protocol::Http1);
        let broken = head.is_err();
        let (handler, drain) = (handler.clone(), drain.clone());
        async move {
            let response = handler.handle(head.map(|head| Request { head, body: Body::http1(Incoming(body)) })).await;
            let mut out = http::Response::new(response.body);
            *out.status_mut() = response.head.status;
            *out.headers_mut() = HeaderMap::from(response.head.fields);
            if broken || drain.is_last_answer() {
                out.headers_mut().insert(http::header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(out)
        }
    });
    let mut connection = pin!(
        server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_DEADLINE)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .half_close(false)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.idle_ends() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "downstream connection ended");
    }
}

/// A connection to an upstream that carries one request at a time.
#[derive(Debug)]
pub struct Connection {
    sender: client::SendRequest<Body>,
}

impl Connection {
    /// Speaks HTTP/1.1 on a stream. The connection's own task ends with the stream or with `self`; it holds `place` as long.
    pub async fn new<S>(stream: S, place: Option<Permit>) -> Result<Self, SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin + 'static,
    {
        let (sender, connection) = client::Builder::new()
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_FIELDS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::not_processed)?;
        tasks::spawn_local("upstream http1", async move {
            let _place = place;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "upstream connection ended");
            }
        });
        Ok(Self { sender })
    }

    /// Whether it will never carry another request.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and waits for the response's head.
    pub async fn send(&mut self, head: &RequestHead, edits: &Edits, body: Body) -> Result<Response, SendError> {
        // A connection that still owes bytes of its last request is not waited for: nothing of this request was sent.
        let ready = tokio::time::timeout(OWING, self.sender.ready()).await;
        ready.map_err(SendError::not_processed)?.map_err(SendError::not_processed)?;
        let request = outgoing(head, edits, body).map_err(SendError::not_processed)?;
        match self.sender.try_send_request(request).await {
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = Body::http1(Incoming(body));
                Ok(Response { head: response_head(parts.status, parts.headers), body })
            }
            Err(mut failed) => Err(match failed.take_message() {
                // The request came back: not a byte of it was sent.
                Some(_unsent) => SendError::not_processed(failed.error()),
                None => SendError::maybe_processed(failed.error()),
            }),
        }
    }
}

/// The request line in origin form and `Host` first.
fn outgoing(head: &RequestHead, edits: &Edits, body: Body) -> Result<http::Request<Body>, http::Error> {
    let mut request = http::Request::builder().method(&head.method).uri(edits.target(head)).body(body)?;
    let mut map = HeaderMap::with_capacity(head.fields.len() + 8);
    map.insert(HOST, HeaderValue::from_str(&head.authority.to_string())?);
    map.extend(HeaderMap::from(head.fields.clone()));
    edits.apply(&mut map);
    *request.headers_mut() = map;
    Ok(request)
}
