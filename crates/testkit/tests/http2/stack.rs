//! One service with a gateway before it, and connections to that gateway.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::http2::raw::Raw;
use hms_testkit::http2::wire::literals;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::wait;
use http::Method;

/// The breaker is patient: clients that go away are not the application's fault, but some of its answers are errors.
const MESH: &str = "services: {calc-svc: {routes: [GET /*, POST /*, PUT /*], breaker: {errors: 50}}, portal: {}}";

pub(crate) const HOST: &str = "gateway.local";

/// A mesh with one application, its sidecar and a gateway.
pub(crate) struct Stack {
    pub(crate) app: App,
    pub(crate) gateway: Proxy,
    pub(crate) mesh: Mesh,
    root: String,
    token: String,
    _server: Proxy,
    _control: Process,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let token = mesh.jwt().await;
        let stack = Self { app, gateway, mesh, root, token, _server: server, _control: control };
        wait::until("the gateway passes a call", Duration::from_secs(20), || async {
            let answer = stack.http().get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        stack
    }

    /// A well-behaved client with a token.
    pub(crate) fn http(&self) -> Http {
        Http::tls(self.gateway.address("https"), HOST, &self.root).bearer(&self.token)
    }

    /// A connection to the gateway on which nothing was sent.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::tls(self.gateway.address("https"), HOST, &self.root).await
    }

    /// A connection to the gateway that has begun.
    pub(crate) async fn begun(&self) -> Raw {
        let mut raw = self.raw().await;
        raw.begin(&[]).await;
        raw
    }

    /// The value of `authorization`.
    pub(crate) fn bearer(&self) -> String {
        format!("Bearer {}", self.token)
    }

    /// The block of a request that reaches the application.
    pub(crate) fn block(&self, method: &str, path: &str) -> Vec<u8> {
        let bearer = self.bearer();
        literals(&[
            (":method", method),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", path),
            ("authorization", bearer.as_str()),
        ])
    }

    /// The mesh still serves others.
    pub(crate) async fn serves(&self) {
        let answer = self.http().get("/echo").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Waits until so many connections of the gateway ended because of these limits.
    pub(crate) async fn until_breaches(&self, limits: &[&str], wanted: f64) {
        wait::until(&format!("{wanted} breaches of {limits:?}"), Duration::from_secs(10), || async {
            let metrics = self.gateway.metrics().await;
            let of = |limit: &&str| metrics.sum("hms_http2_breaches_total", &[&format!("limit=\"{limit}\"")]);
            let count: f64 = limits.iter().map(of).sum();
            if (count - wanted).abs() < 0.5 { Ok(()) } else { Err(format!("{count}")) }
        })
        .await;
    }
}
