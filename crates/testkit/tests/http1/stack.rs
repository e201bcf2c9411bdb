//! A liar behind a pair of proxies, and connections to the port of the caller's proxy that is pinned to it.

use std::net::SocketAddr;

use hms_testkit::http1::End;
use hms_testkit::http1::liar::{Contact, Liar, POLITE, Script};
use hms_testkit::http1::message::{Kind, Message};
use hms_testkit::http1::raw::Raw;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};

/// Every try is the only one, and the breaker is patient: what is counted here is what the liar got.
const MESH: &str =
    "services: {calc-svc: {routes: [\"* /*\"], retry: {retries: 0}, breaker: {errors: 1000}}, portal: {}}";

/// A request that reaches the liar.
pub(crate) const GET: &str = "GET /next HTTP/1.1\r\nHost: calc-svc\r\n\r\n";

/// A liar and the two proxies before it.
pub(crate) struct Stack {
    pub(crate) liar: Liar,
    pub(crate) mesh: Mesh,
    pub(crate) client: Proxy,
    pinned: SocketAddr,
    _server: Proxy,
    _control: Process,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let liar = Liar::start().await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", liar.address())).await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["calc-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        client.until_reaches("calc-svc", "/ready").await;
        let pinned = client.ports["upstreams"]["calc-svc"].as_str().unwrap().parse().unwrap();
        Self { liar, mesh, client, pinned, _server: server, _control: control }
    }

    /// A connection on which nothing was sent.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::plain(self.pinned).await
    }

    /// A new connection on which these bytes were sent.
    pub(crate) async fn sent(&self, bytes: impl AsRef<[u8]>) -> Raw {
        let mut raw = self.raw().await;
        // A refusal may come before all of it was taken.
        let _refused_early = raw.send(bytes).await;
        raw
    }

    /// What a polite request gets while the liar plays `script`: the answer or what there was of it, and how the connection ended
    /// if the answer was not whole.
    pub(crate) async fn ask(&self, script: Script, request: &str) -> Result<Message, (Option<Message>, End)> {
        self.liar.play(script);
        let kind = if request.starts_with("HEAD") { Kind::AnswerToHead } else { Kind::Answer };
        let mut raw = self.sent(request).await;
        match raw.answer(kind).await {
            Ok(message) => Ok(message),
            Err(part) => Err((part, raw.rest().await.1)),
        }
    }

    /// The number of the liar's connection that the next polite request comes by.
    pub(crate) async fn next_contact(&self) -> usize {
        let before: Vec<usize> = self.liar.contacts().iter().map(Contact::whole).collect();
        let answer = self.ask(Script::of(POLITE), GET).await.unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");
        let contacts = self.liar.contacts();
        contacts
            .iter()
            .enumerate()
            .position(|(number, contact)| contact.whole() > before.get(number).copied().unwrap_or_default())
            .unwrap_or_else(|| panic!("the request came by none of {contacts:?}"))
    }
}

/// A refusal has a code and a trace.
pub(crate) fn refused(answer: &Message) -> Result<(), String> {
    let coded = answer.field("x-hms-error").starts_with("HMS-") && answer.field("x-trace-id").len() == 32;
    if answer.status() >= 400 && coded { Ok(()) } else { Err(format!("no refusal of ours: {answer:?}")) }
}
