//! What a plain hyper server makes of the same bytes.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A request as hyper's service got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) head: http::request::Parts,
    /// Its body and trailers; `None` if the body failed.
    pub(crate) body: Option<(Vec<u8>, http::HeaderMap)>,
}

/// What hyper did with a connection.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Got>,
    /// Whether it ended in an error.
    pub(crate) failed: bool,
    /// What it answered.
    pub(crate) answer: Vec<u8>,
}

/// Sends the bytes, closes that side, and reads until hyper closes the other.
pub(crate) fn serve(bytes: &[u8]) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let requests = Rc::new(RefCell::new(Vec::new()));
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let service = service_fn(|request: http::Request<Incoming>| {
            let requests = Rc::clone(&requests);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.ok().map(|body| {
                    let trailers = body.trailers().cloned().unwrap_or_default();
                    (body.to_bytes().to_vec(), trailers)
                });
                requests.borrow_mut().push(Got { head, body });
                Ok::<_, Infallible>(http::Response::new(Empty::<Bytes>::new()))
            }
        });
        let connection =
            hyper::server::conn::http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let talk = async {
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            answer
        };
        let (served, answer) = tokio::join!(connection, talk);
        Seen { failed: served.is_err(), answer, requests: requests.take() }
    })
}

impl Seen {
    /// In the words of the corpus.
    pub(crate) fn verdict(&self) -> String {
        let whole = |got: &Got| if got.body.is_some() { "accept" } else { "head" }.to_owned();
        let mut words: Vec<String> = self.requests.iter().map(whole).collect();
        let answer = String::from_utf8_lossy(&self.answer);
        let statuses = answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5));
        let refusal = statuses.filter(|status| !matches!(*status, "100" | "200")).last();
        match refusal {
            Some(status) => words.push(status.to_owned()),
            None if self.failed && !words.iter().any(|word| word == "head") => words.push("close".to_owned()),
            None => {}
        }
        words.join(" ")
    }
}
