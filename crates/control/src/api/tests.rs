//! The API as callers see it, over a real registry in memory.

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use hms_identity::clock::SystemClock;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::Service as _;

use super::*;
use crate::ca::Lifetimes;
use crate::store::{MemoryStore, Store};
use crate::tasks::Tasks;

mod document;
mod guarding;
mod importing;
mod meshes;
mod refusals;
mod registering;
mod reports;
mod revising;
mod serving;

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// An API with everything behind it, without proxies.
struct World {
    router: Router,
    context: Context,
    operations: Vec<Operation>,
    _tasks: Tasks,
    _directory: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Checks the shape of a problem and gives its detail.
    fn problem(&self) -> String {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16(), "{body}");
        for member in ["type", "title", "detail", "docs"] {
            assert!(!body[member].as_str().unwrap().is_empty(), "{member}: {body}");
        }
        let code = body["code"].as_str().unwrap();
        assert!(code.starts_with("HMS-") && code.len() == 8, "{body}");
        assert!(body["why"].is_string() && body["fix"].is_array() && body["findings"].is_array(), "{body}");
        body["detail"].as_str().unwrap().to_owned()
    }
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let ca = Ca::open(&path.join("ca"), None, Lifetimes::default(), Arc::clone(&clock)).unwrap();
        let registry = Registry::open(Arc::clone(&store), ca.trust_domain().clone(), Arc::clone(&clock)).await.unwrap();
        let tasks = registry.start();
        let live = Live::new();
        let canaries = Canaries::open(registry.clone(), live.clone(), Arc::clone(&store), Arc::clone(&clock));
        let canaries = canaries.await.unwrap();
        let context = Context::new(Parts {
            registry,
            live,
            canaries,
            ca: Arc::new(ca),
            edge: Arc::new(EdgeCa::open(&path.join("edge"), Arc::clone(&clock)).unwrap()),
            tokens: Arc::new(JoinTokens::new(store, Arc::clone(&clock))),
            attestations: Arc::default(),
            jwt: Arc::new(DevIssuer::open(&path.join("ca").join("jwt.key"), Arc::clone(&clock)).unwrap()),
            token: TokenDigest::of(TOKEN),
            clock,
        });
        let router = router(context.clone());
        Self { router, context, operations: operations(), _tasks: tasks, _directory: directory }
    }

    /// Sends a request as it is. Whatever is answered must be among what the document announces.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.router.clone().call(request).await.unwrap();
        let status = response.status();
        let announced =
            self.operations.iter().find(|operation| operation.method == method && fits(operation.path, &path));
        if let Some(operation) = announced {
            assert!(operation.statuses().contains(&status), "{method} {path} answered {status}");
        } else if method != Method::HEAD {
            assert!(status.is_client_error(), "{method} {path} answered {status}");
        }
        let headers = response.headers().clone();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, text: String::from_utf8(body.to_vec()).unwrap() }
    }

    /// Sends a request of somebody who has the token.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let request = asking(method, path);
        self.send(match body {
            Some(body) => {
                request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string())).unwrap()
            }
            None => request.body(Body::empty()).unwrap(),
        })
        .await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.call(Method::GET, path, None).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()
    }

    /// What a change could have changed.
    fn state(&self) -> String {
        let view = self.context.parts().registry.view();
        format!("{:?} {:?} {:?}", view.revision, view.resources, view.mesh)
    }
}

/// A request of somebody who has the token.
fn asking(method: Method, path: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "127.0.0.1:15014")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
}

/// Whether a path is one of a template's.
fn fits(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(value)) if part == value || (part.starts_with('{') && !value.is_empty()) => {}
            _ => return false,
        }
    }
}

/// A path of a template with something in its parameters.
fn sample(template: &str) -> String {
    let template = template.replace("{kind}", "split").replace("{name}", "calc-svc");
    template.replace("{service}", "calc-svc").replace("{id}", "1")
}

fn route_file(name: &str, text: &str) -> Value {
    json!({ "files": [{ "name": name, "text": text }] })
}
