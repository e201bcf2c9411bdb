//! A service that speaks no HTTP, its caller, and the port of the caller's proxy that leads to it.

use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::http1::message::Kind;
use hms_testkit::http1::raw::Raw;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::tcp::{Caller, Manner, TcpApp};
use hms_testkit::wait;

/// How long anything may take to be known everywhere.
const LIMIT: Duration = Duration::from_secs(20);

/// The application and the two proxies before it.
pub(crate) struct Stack {
    pub(crate) app: TcpApp,
    pub(crate) mesh: Mesh,
    pub(crate) client: Proxy,
    pub(crate) server: Proxy,
    pub(crate) pinned: SocketAddr,
    _control: Process,
}

impl Stack {
    /// `db` as this line of `mesh.yaml` has it; returns when the caller's proxy knows an endpoint of it.
    pub(crate) async fn start(db: &str, manner: Manner) -> Self {
        Self::start_with(&format!("services: {{db: {db}, portal: {{}}, stranger: {{}}}}"), manner).await
    }

    pub(crate) async fn start_with(file: &str, manner: Manner) -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(file).await;
        let app = TcpApp::start(manner).await;
        let server = Proxy::start(&mesh, Plan::of("db", app.address())).await;
        let (client, pinned) = caller(&mesh, "portal").await;
        Self { app, mesh, client, server, pinned, _control: control }
    }

    /// A connection of the caller's application.
    pub(crate) async fn connect(&self) -> Caller {
        Caller::connect(self.pinned).await
    }

    /// Waits until the caller's proxy counts this.
    pub(crate) async fn until_counted(&self, family: &str, labels: &[&str], least: f64) {
        let what = format!("{family} {labels:?} reaches {least}");
        wait::until(&what, LIMIT, || async {
            let metrics = self.client.metrics().await;
            if metrics.sum(family, labels) >= least { Ok(()) } else { Err(metrics.text().to_owned()) }
        })
        .await;
    }
}

/// A proxy of a program that calls `db`, and its port for that; returns when it knows an endpoint, without calling it.
pub(crate) async fn caller(mesh: &Mesh, service: &str) -> (Proxy, SocketAddr) {
    let mut plan = Plan::client(service);
    plan.upstreams = vec!["db".to_owned()];
    let client = Proxy::start(mesh, plan).await;
    client.until_ready().await;
    let pinned = client.ports["upstreams"]["db"].as_str().unwrap().parse().unwrap();
    wait::until("the caller knows an endpoint", LIMIT, || async {
        // Asking for it is what makes it known; `OPTIONS *` is answered by the proxy beside the application.
        let mut raw = Raw::plain(client.address("outbound")).await;
        let _sent = raw.send("OPTIONS * HTTP/1.1\r\nHost: db\r\nMax-Forwards: 0\r\n\r\n").await;
        let answer = raw.answer(Kind::Answer).await.map_err(|part| format!("{part:?}"))?;
        if answer.status() == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    (client, pinned)
}
