//! A proxy's data thread without its administration, and upstreams that do as told.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a stage that breaks fails its test")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use hms_identity::clock::SystemClock;
use hms_model::http_route::HttpRoute;
use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::names::ServiceName;
use hms_model::policy::TrafficPolicy;
use hms_model::port::{AppProtocol, Port};
use hms_model::resource::Resource;
use hms_model::service::{Entry, Service};
use hms_model::snapshot::Snapshot;
use hms_model::spiffe::SpiffeId;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_proxy::body::Body;
use hms_proxy::capture::dns::resolver::Resolver;
use hms_proxy::capture::sidecar::Captured;
use hms_proxy::clock::Clock;
use hms_proxy::credentials::Holder;
use hms_proxy::egress::Outside;
use hms_proxy::overload::Overload;
use hms_proxy::pipeline::{Downstream, Entrance, Serve};
use hms_proxy::runtime::Current;
use hms_proxy::settings::Settings;
use hms_proxy::telemetry::access_log::AccessLog;
use hms_proxy::telemetry::metrics::Party;
use hms_proxy::telemetry::tap;
use hms_proxy::transport::tls_stream::Stream;
use hms_proxy::transport::{Edits, Protocol, http1};
use hms_proxy::worker::{AppState, Shared, Worker};
use hms_proxy::{drain, probe};
use hms_traffic::dice::Dice;
use http::{HeaderName, Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;

/// Runs a test on one thread with a bound on its time.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = LocalSet::new();
    let bounded = async { tokio::time::timeout(Duration::from_secs(20), local.run_until(test)).await };
    runtime.block_on(bounded).expect("the test took too long");
}

/// What an upstream does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Answer {
    /// Answers with this status and keeps the connection.
    Status(u16),
    /// Reads the request and closes.
    CloseAfterReading,
    /// Never answers.
    Hang,
    /// Answers 200 when [`Upstream::release`] says so, and keeps the connection.
    Held,
}

#[derive(Default)]
struct Seen {
    lines: Vec<String>,
    heads: Vec<String>,
    bodies: Vec<String>,
    connections: usize,
    accepted: usize,
    left: usize,
}

/// A server that does as told and remembers what it saw.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Rc<RefCell<Seen>>,
    held: Rc<Semaphore>,
}

impl Upstream {
    pub(crate) async fn start(script: impl Fn(usize) -> Answer + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Rc::<RefCell<Seen>>::default();
        let held = Rc::new(Semaphore::new(0));
        let (script, shared, gate) = (Rc::new(script), Rc::clone(&seen), Rc::clone(&held));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.borrow_mut().accepted += 1;
                let conversation = converse(stream, Rc::clone(&script), Rc::clone(&shared), Rc::clone(&gate));
                tokio::task::spawn_local(conversation);
            }
        });
        Self { address, seen, held }
    }

    /// An address at which nothing listens.
    pub(crate) async fn gone() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::at(listener.local_addr().unwrap())
    }

    /// Somebody else's server.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, seen: Rc::default(), held: Rc::new(Semaphore::new(0)) }
    }

    /// Lets one more of the requests that are held have its answer.
    pub(crate) fn release(&self) {
        self.held.add_permits(1);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.borrow().lines.clone()
    }

    /// The heads in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.seen.borrow().heads.clone()
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.seen.borrow().bodies.clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.borrow().lines.len()
    }

    /// Requests without an answer whose sender has closed their connection.
    pub(crate) fn left(&self) -> usize {
        self.seen.borrow().left
    }

    /// Connections, whatever came on them.
    pub(crate) fn accepted(&self) -> usize {
        self.seen.borrow().accepted
    }

    /// Connections on which a request came.
    pub(crate) fn connections(&self) -> usize {
        self.seen.borrow().connections
    }
}

async fn converse(
    mut stream: TcpStream,
    script: Rc<impl Fn(usize) -> Answer>,
    seen: Rc<RefCell<Seen>>,
    held: Rc<Semaphore>,
) {
    let mut used = false;
    while let Some((line, head, body)) = request(&mut stream).await {
        let index = {
            let mut seen = seen.borrow_mut();
            seen.connections += usize::from(!std::mem::replace(&mut used, true));
            seen.lines.push(line);
            seen.heads.push(head);
            seen.bodies.push(body);
            seen.lines.len() - 1
        };
        let answer = script(index);
        if matches!(answer, Answer::Held) {
            held.acquire().await.unwrap().forget();
        }
        match answer {
            Answer::Status(_) | Answer::Held => {
                let status = if let Answer::Status(status) = answer { status } else { 200 };
                let answer = format!("HTTP/1.1 {status} x\r\ncontent-length: 2\r\n\r\nok");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            Answer::CloseAfterReading => return,
            Answer::Hang => {
                let ended = stream.read(&mut [0; 16]).await;
                if matches!(ended, Ok(0) | Err(_)) {
                    seen.borrow_mut().left += 1;
                }
                return;
            }
        }
    }
}

/// Reads one request; its line without the version, its head and its body.
async fn request(stream: &mut TcpStream) -> Option<(String, String, String)> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    while read.len() < end + length {
        stream.read_buf(&mut read).await.ok()?;
    }
    let line = String::from_utf8_lossy(&read[..end]).lines().next()?.trim_end_matches(" HTTP/1.1").to_owned();
    Some((line, head, String::from_utf8_lossy(&read[end..]).into_owned()))
}

/// What comes before a stage.
#[derive(Default)]
pub(crate) struct Prepared {
    resources: Vec<Resource>,
    zone: String,
    app: Option<SocketAddr>,
}

/// A data thread with its configuration.
pub(crate) struct Stage {
    worker: Rc<Worker>,
    _drainer: drain::Drainer,
    pub(crate) wishes: mpsc::Receiver<ServiceName>,
    _breakers: mpsc::Receiver<ServiceName>,
    _dir: tempfile::TempDir,
}

/// What a caller got.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) body: Bytes,
}

impl Answered {
    pub(crate) fn field(&self, name: &'static str) -> Option<String> {
        self.fields.text(&HeaderName::from_static(name)).map(str::to_owned)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Stage {
    #[expect(clippy::new_ret_no_self, reason = "a stage is prepared first")]
    pub(crate) fn new() -> Prepared {
        Prepared::default()
    }

    async fn connect(&self) -> TcpStream {
        let (ours, theirs, peer) = pair().await;
        tokio::task::spawn_local(self.serve(theirs, peer));
        ours
    }

    /// A call by another proxy for the application beside this one.
    pub(crate) async fn called(&self, target: &str, lines: &[(&str, &str)]) -> Answered {
        let (ours, theirs, peer) = pair().await;
        let party = Arc::new(Party { workload: "front".into(), namespace: "default".into(), ..Party::default() });
        let identity = SpiffeId::parse("spiffe://t.hms/ns/default/sa/front").unwrap();
        let entrance = Entrance::Inbound { peer: identity, port: 0 };
        let downstream = Rc::new(Downstream::new(entrance, peer, party, Protocol::Http1));
        let (handler, drain) =
            (Serve { worker: Rc::clone(&self.worker), downstream }, self.worker.shared.drain.clone());
        tokio::task::spawn_local(async move { http1::serve(theirs, handler, &drain, &http1::MESH).await });
        ask(ours, Method::GET, "caller", target, lines, Bytes::new()).await
    }

    /// Answers the requests of one connection.
    pub(crate) fn handler(&self, peer: SocketAddr) -> Serve {
        let party = Arc::new(Party { workload: "caller".into(), namespace: "default".into(), ..Party::default() });
        let downstream =
            Downstream::new(Entrance::Outbound { pinned: None, port: 0, dialled: None }, peer, party, Protocol::Http1);
        Serve { worker: Rc::clone(&self.worker), downstream: Rc::new(downstream) }
    }

    /// Serves one connection of the application beside the proxy.
    pub(crate) fn serve(&self, theirs: TcpStream, peer: SocketAddr) -> impl Future<Output = ()> + use<> {
        let (handler, drain) = (self.handler(peer), self.worker.shared.drain.clone());
        async move { http1::serve(theirs, handler, &drain, &http1::MESH).await }
    }

    pub(crate) async fn call(&self, method: Method, authority: &str, target: &str, body: Bytes) -> Answered {
        self.call_with(method, authority, target, &[], body).await
    }

    /// A call with header fields.
    pub(crate) async fn call_with(
        &self,
        method: Method,
        authority: &str,
        target: &str,
        lines: &[(&str, &str)],
        body: Bytes,
    ) -> Answered {
        ask(self.connect().await, method, authority, target, lines, body).await
    }

    /// Sends bytes as they are; the status answered.
    pub(crate) async fn raw(&self, bytes: &str) -> u16 {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).parse().unwrap()
    }

    /// Sends bytes as they are; everything until the proxy closes.
    pub(crate) async fn last_answer(&self, bytes: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Sends bytes and stays.
    pub(crate) async fn send(&self, bytes: &str) -> TcpStream {
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Sends bytes and goes away; resolves when the proxy has taken that in.
    pub(crate) async fn break_off(&self, bytes: &str) {
        let before = self.worker.shared.registry.counts().values().map(|counts| counts.requests).sum::<u64>();
        let mut stream = self.connect().await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        tokio::task::yield_now().await;
        drop(stream);
        let told = || self.worker.shared.registry.counts().values().map(|counts| counts.requests).sum::<u64>() > before;
        self.until("the broken request is recorded", told).await;
    }

    /// How often something was counted.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let text = self.metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok());
        line.unwrap_or(0)
    }

    pub(crate) fn breaker(&self, service: &str) -> &'static str {
        let name = ServiceName::new(service).unwrap();
        self.worker.shared.current.load().upstreams[&name].breaker(self.worker.now()).as_str()
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.worker.shared)
    }

    /// Takes another configuration into use.
    pub(crate) fn learn(&self, prepared: &Prepared) {
        let resources: Vec<&Resource> = prepared.resources.iter().collect();
        let (shared, snapshot) = (&self.worker.shared, Snapshot::from_resources(&resources));
        shared.current.apply(snapshot, shared.clock.now(), &mut Dice::seeded(1));
    }

    pub(crate) fn metrics(&self) -> String {
        self.worker.shared.registry.expose("0")
    }

    /// Waits for a state.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "never: {what}");
            tokio::task::yield_now().await;
        }
    }
}

async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, peer) = listener.accept().await.unwrap();
    (ours, theirs, peer)
}

async fn ask(
    stream: TcpStream,
    method: Method,
    authority: &str,
    target: &str,
    lines: &[(&str, &str)],
    body: Bytes,
) -> Answered {
    let mut fields = Fields::new();
    for (name, value) in lines {
        fields.push_line(name, value.as_bytes());
    }
    let connection = http1::Connection::new(Stream::Plain(stream), None, http1::Peer::Server);
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let head = RequestHead {
        method,
        authority: Authority::parse(authority).unwrap(),
        path: CanonicalPath::parse(path).unwrap(),
        query: query.map(Into::into),
        fields,
    };
    let response = connection.send(&head, &Edits::default(), Body::full(body), None).await.unwrap();
    let body = response.body.collect(1 << 20).await.unwrap().unwrap();
    Answered { status: response.head.status, fields: response.head.fields, body }
}

impl Prepared {
    /// A service of which only the directory speaks.
    pub(crate) fn entry(mut self, name: &str, address: &str) -> Self {
        let (name, addresses) = (ServiceName::new(name).unwrap(), vec![address.parse().unwrap()]);
        self.resources.push(Resource::Entry(Entry { name, aliases: Vec::new(), addresses, ports: Vec::new() }));
        self
    }

    /// The application beside the proxy.
    pub(crate) fn app(mut self, upstream: &Upstream) -> Self {
        self.app = Some(upstream.address);
        self
    }

    /// Where the proxy is.
    pub(crate) fn zone(mut self, zone: &str) -> Self {
        zone.clone_into(&mut self.zone);
        self
    }

    /// Changes every endpoint so far.
    pub(crate) fn each_endpoint(mut self, change: impl Fn(&mut Endpoint)) -> Self {
        for resource in &mut self.resources {
            if let Resource::Endpoint(endpoint) = resource {
                change(endpoint);
            }
        }
        self
    }

    pub(crate) fn resource(mut self, resource: Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// What the last service speaks.
    pub(crate) fn speaking(mut self, protocol: AppProtocol) -> Self {
        let services = self.resources.iter_mut().rev();
        let service =
            services.into_iter().find_map(|own| if let Resource::Service(own) = own { Some(own) } else { None });
        service.unwrap().ports = vec![Port { number: 80, name: String::new(), protocol, target: None }];
        self
    }

    /// How requests to the last service are led.
    pub(crate) fn led(mut self, routes: Vec<HttpRoute>) -> Self {
        let services = self.resources.iter_mut().rev();
        let service =
            services.into_iter().find_map(|own| if let Resource::Service(own) = own { Some(own) } else { None });
        service.unwrap().http = routes;
        self
    }

    pub(crate) fn service(mut self, name: &str, policy: TrafficPolicy, upstreams: &[&Upstream]) -> Self {
        let name = ServiceName::new(name).unwrap();
        let entry = Entry { name: name.clone(), aliases: Vec::new(), addresses: Vec::new(), ports: Vec::new() };
        self.resources.push(Resource::Entry(entry));
        self.resources.push(Resource::Service(Service {
            split: Vec::new(),
            http: Vec::new(),
            name: name.clone(),
            identities: std::collections::BTreeSet::new(),
            sni: "s".to_owned(),
            policy,
            authorization: hms_model::policy::AuthorizationPolicy::default(),
            ports: Vec::new(),
        }));
        for (index, upstream) in upstreams.iter().enumerate() {
            self.resources.push(Resource::Endpoint(Endpoint {
                service: name.clone(),
                id: index.to_string(),
                address: Address { ip: upstream.address.ip(), port: upstream.address.port() },
                app_port: 0,
                version: "v1".to_owned(),
                zone: String::new(),
                health: Health::Healthy,
                source: Registrar::Api,
                transport: Transport::Plain,
            }));
        }
        self
    }

    pub(crate) fn build(self) -> Stage {
        let dir = tempfile::tempdir().unwrap();
        let arguments = ["--service", "caller", "--control", "unix:/none", "--trust-domain", "t.hms", "--runtime-dir"];
        let place = [dir.path().into(), "--zone".into(), self.zone.clone().into()];
        let app = self.app.iter().flat_map(|app| ["--app".into(), app.to_string().into()]);
        let settings = Settings::parse(arguments.iter().map(Into::into).chain(place).chain(app)).unwrap();
        let (drainer, drain) = drain::channel();
        let (wanted, wishes) = mpsc::channel(8);
        let (breakers, changes) = mpsc::channel(8);
        let shared = Arc::new(Shared {
            clock: Clock::start(),
            wall: SystemClock,
            holder: Holder::default(),
            edge: ArcSwapOption::empty(),
            current: Current::new(settings.own()),
            registry: Arc::default(),
            tap: tap::channel().0,
            access_log: AccessLog::default(),
            drain,
            overload: Overload::new(&settings, 1024),
            wanted,
            captured: Captured::default(),
            app: AppState::default(),
            outside: Outside::new(Resolver::new(settings.resolver.clone())),
            breakers,
            settings,
        });
        let worker = Rc::new(Worker::new(shared, 7));
        tokio::task::spawn_local(probe::watch_ejected(Rc::clone(&worker)));
        tokio::task::spawn_local(probe::sweep_pool(Rc::clone(&worker)));
        let stage = Stage { worker, _drainer: drainer, wishes, _breakers: changes, _dir: dir };
        stage.learn(&self);
        stage
    }
}
