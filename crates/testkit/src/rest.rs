//! The control plane's REST API as a stranger uses it.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use serde_json::Value;

use crate::client::{Answer, Http};
use crate::wait;

/// A client of one control plane.
#[derive(Debug, Clone)]
pub struct Rest {
    http: Http,
}

impl Rest {
    /// A client with the operator's token.
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { http: Http::plain(address).bearer(token) }
    }

    /// Any request; the answer whatever it is.
    pub async fn send(&self, method: Method, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
        let body = body.into();
        let fields: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
        self.http.send(method.clone(), path, fields, body).await.unwrap_or_else(|why| panic!("{method} {path}: {why}"))
    }

    /// `GET` that must work.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self.send(Method::GET, path, "").await;
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    /// `POST` that must work.
    pub async fn post(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(Method::POST, path, body.to_string()).await;
        assert!((200..300).contains(&answer.status), "POST {path}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// `PUT` that must work.
    pub async fn put(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(Method::PUT, path, body.to_string()).await;
        assert!((200..300).contains(&answer.status), "PUT {path}: {} {}", answer.status, answer.text());
        if answer.body.is_empty() { Value::Null } else { answer.json() }
    }

    /// Applies a `mesh.yaml`.
    pub async fn apply(&self, mesh: &str) -> Value {
        self.put("/v1/mesh", &serde_json::json!({"file": "mesh.yaml", "text": mesh, "files": []})).await
    }

    /// Waits until a service is in `state` with `endpoints` endpoints.
    pub async fn until_service(&self, service: &str, state: &str, endpoints: usize) -> Value {
        let path = format!("/v1/services/{service}");
        wait::until(&format!("{service} is {state} with {endpoints} endpoints"), Duration::from_secs(30), || async {
            let answer = self.http.get(&path).await?;
            if answer.status != 200 {
                return Err(format!("{} {}", answer.status, answer.text()));
            }
            let view = answer.json();
            let count = view["endpoints"].as_array().map_or(0, Vec::len);
            if view["state"] == state && count == endpoints { Ok(view) } else { Err(view.to_string()) }
        })
        .await
    }

    /// Waits until a service's breaker is in `phase`.
    pub async fn until_breaker(&self, service: &str, phase: &str, limit: Duration) -> Value {
        let path = format!("/v1/breakers/{service}");
        wait::until(&format!("the breaker of {service} is {phase}"), limit, || async {
            let view = self.http.get(&path).await?.json();
            if view["phase"] == phase { Ok(view) } else { Err(view.to_string()) }
        })
        .await
    }

    /// Waits until every connected proxy has acked the newest revision.
    pub async fn until_acked(&self, limit: Duration) {
        wait::until("every proxy has acked the newest revision", limit, || async {
            let summary = self.http.get("/v1/summary").await?.json();
            let proxies = self.http.get("/v1/proxies").await?.json();
            let newest = &summary["revision"];
            let behind = proxies["items"].as_array().into_iter().flatten().find(|one| one["revision_acked"] != *newest);
            match behind {
                Some(one) => Err(format!("revision {newest}, {one}")),
                None => Ok(()),
            }
        })
        .await;
    }
}
