//! What proxies reported last: who is connected, how their breakers stand, which certificates they have, what they counted, and
//! the requests they are asked to show. All of it is memory only; after a start it fills again within seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::spiffe::SpiffeId;
use hms_wire::proto::hms::v1;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

mod reach;
mod recall;
mod report;
mod stats;
mod tap;
#[cfg(test)]
mod tests;

pub(crate) use reach::Reach;
pub use report::{BreakerPhase, BreakerReport, CertificateReport, EndpointReport, OutsideReport};
pub use stats::{FlowStats, Stats, Watched};
pub use tap::{Tap, TapItem};

use self::reach::Subscriber;
use self::stats::Counts;
use self::tap::Taps;

/// Control messages that may wait for a proxy; one that takes none is dropped.
const OUTBOX: usize = 64;
/// How long a proxy may take to renew its certificate when asked.
const ROTATION: Duration = Duration::from_secs(10);

/// What proxies reported; clones share it.
#[derive(Clone, Default)]
pub struct Live(Arc<Inner>);

#[derive(Default)]
struct Inner {
    proxies: Mutex<BTreeMap<ProxyKey, Proxy>>,
    /// What the discovery streams know; a stream may begin before its proxy says hello.
    subscribers: Mutex<BTreeMap<ProxyKey, Subscriber>>,
    counts: Mutex<Counts>,
    taps: Taps,
    next: AtomicU64,
    /// Some subscriber came further, or went.
    reached: Notify,
}

/// Whose proxy, and the id it gave itself: nobody can take the place of another's proxy by giving the same id.
pub(crate) type ProxyKey = (SpiffeId, String);

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("proxies", &self.0.proxies.lock().len()).finish_non_exhaustive()
    }
}

/// A connected proxy.
#[derive(Debug)]
struct Proxy {
    session: u64,
    hello: ProxyHello,
    service: Option<ServiceName>,
    since: Instant,
    outbox: mpsc::Sender<v1::ControlMessage>,
    breakers: BTreeMap<ServiceName, (BreakerReport, Instant)>,
    certificate: Option<CertificateReport>,
    outside: Vec<OutsideReport>,
    rotations: BTreeMap<u64, oneshot::Sender<String>>,
    recalls: BTreeMap<u64, oneshot::Sender<Vec<v1::Decision>>>,
}

/// What is known of a proxy from its first message and its connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyHello {
    /// Unique per proxy process.
    pub id: String,
    /// What kind of proxy.
    pub role: Role,
    /// Its release.
    pub release: String,
    /// The level of resources it can apply.
    pub level: u32,
    /// Where its metrics and health are served.
    pub admin: Option<SocketAddr>,
    /// Its process; 0 when it runs elsewhere.
    pub process: u32,
    /// Whose certificate or attestation it connected with.
    pub identity: SpiffeId,
}

/// A resource that a proxy would not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedReport {
    /// The resource.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// A connected proxy, as shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct ProxyView {
    /// What it said of itself.
    pub hello: ProxyHello,
    /// The service whose workload it registered.
    pub service: Option<ServiceName>,
    /// How long it has been connected.
    pub connected_for: Duration,
    /// The newest revision of which it has everything it would take.
    pub acknowledged: Option<u64>,
    /// What it refuses at present.
    pub refused: Vec<RefusedReport>,
}

/// The answer of one proxy that was asked to renew its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationView {
    /// The proxy.
    pub proxy: String,
    /// Its identity.
    pub identity: SpiffeId,
    /// The serial number of its certificate afterwards, if it is known.
    pub serial: Option<String>,
    /// Why it did not renew.
    pub error: Option<String>,
}

impl Live {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A proxy said hello. The session ends when it is dropped; messages to the proxy come out of the receiver. A second
    /// session of the same proxy replaces the first.
    pub fn connect(&self, hello: ProxyHello) -> (Session, mpsc::Receiver<v1::ControlMessage>) {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let number = self.number();
        let key = (hello.identity.clone(), hello.id.clone());
        if let Some(start) = self.0.taps.start_message() {
            drop(outbox.try_send(start));
        }
        let proxy = Proxy {
            session: number,
            hello,
            service: None,
            since: Instant::now(),
            outbox,
            breakers: BTreeMap::new(),
            certificate: None,
            outside: Vec::new(),
            rotations: BTreeMap::new(),
            recalls: BTreeMap::new(),
        };
        self.0.proxies.lock().insert(key.clone(), proxy);
        (Session { live: self.clone(), key, number }, messages)
    }

    /// Every connected proxy, by identity and id.
    pub fn proxies(&self) -> Vec<ProxyView> {
        let subscribers = self.0.subscribers.lock().clone();
        let proxies = self.0.proxies.lock();
        let view = |(key, proxy): (&ProxyKey, &Proxy)| {
            let subscriber = subscribers.get(key).cloned().unwrap_or_default();
            ProxyView {
                hello: proxy.hello.clone(),
                service: proxy.service.clone(),
                connected_for: proxy.since.elapsed(),
                acknowledged: subscriber.acknowledged,
                refused: subscriber.refused,
            }
        };
        proxies.iter().map(view).collect()
    }

    /// How the breakers of one service, or of all, stand at each caller. Those whose callers never said anything are closed
    /// and not listed.
    pub fn breakers(&self, service: Option<&ServiceName>) -> Vec<BreakerReport> {
        let proxies = self.0.proxies.lock();
        // Which endpoints there are is known here; a caller that knew of none yet has nothing to say about their health.
        let reports = proxies
            .values()
            .flat_map(|proxy| proxy.breakers.values())
            .filter(|(report, _)| !report.endpoints.is_empty());
        let wanted = reports.filter(|(report, _)| service.is_none_or(|service| report.service == *service));
        wanted.map(|(report, at)| report.aged(at.elapsed())).collect()
    }

    /// The certificate of every connected proxy that reported one.
    pub fn certificates(&self) -> Vec<CertificateReport> {
        self.0.proxies.lock().values().filter_map(|proxy| proxy.certificate.clone()).collect()
    }

    /// Hosts outside of the mesh that were asked for, with who asked; of an egress gateway, which asked for others, `None`.
    pub fn outside(&self) -> Vec<(Option<String>, OutsideReport)> {
        let proxies = self.0.proxies.lock();
        let reports = proxies.values().flat_map(|proxy| {
            let caller = (proxy.hello.role != Role::Egress).then(|| proxy.hello.identity.name().to_owned());
            proxy.outside.iter().map(move |report| (caller.clone(), report.clone()))
        });
        reports.collect()
    }

    /// What was counted of calls to a service over the last minute.
    pub fn stats(&self, service: &ServiceName) -> Stats {
        self.0.counts.lock().stats(service, Instant::now())
    }

    /// Counts the versions of a service from nothing, from now on; `false` where too many services are watched.
    pub fn watch_versions(&self, service: &ServiceName) -> bool {
        self.0.counts.lock().watch(service)
    }

    /// Ends that.
    pub fn unwatch_versions(&self, service: &ServiceName) {
        self.0.counts.lock().unwatch(service);
    }

    /// What was counted of each version of a service that is watched.
    pub fn versions(&self, service: &ServiceName) -> BTreeMap<String, Watched> {
        self.0.counts.lock().watched(service)
    }

    /// What was counted over the last minute, per pair of services.
    pub fn flows(&self) -> Vec<FlowStats> {
        self.0.counts.lock().flows(Instant::now())
    }

    /// Shows requests as they end: those from or to `service`, or all. It begins with the first and ends with the last reader.
    pub fn tap(&self, service: Option<&ServiceName>) -> Tap {
        let (tap, start) = self.0.taps.begin(self.clone(), service);
        if let Some(start) = start {
            self.tell_all(&start);
        }
        tap
    }

    /// Asks the proxies of one service, or all, for a new certificate that lives for `validity` (zero for the default), and
    /// waits for their answers.
    pub async fn rotate(&self, service: Option<&ServiceName>, validity: Duration) -> Vec<RotationView> {
        let mut waiting = Vec::new();
        {
            let mut proxies = self.0.proxies.lock();
            let asked = proxies.iter_mut().filter(|(_, proxy)| {
                service.is_none_or(|service| proxy.service.as_ref() == Some(service) || is_of(&proxy.hello, service))
            });
            for (key, proxy) in asked {
                let request = self.0.next.fetch_add(1, Ordering::Relaxed);
                let rotate = v1::Rotate { request_id: request, validity_seconds: validity.as_secs() };
                let (answer, receiver) = oneshot::channel();
                if proxy.outbox.try_send(message(v1::control_message::Kind::Rotate(rotate))).is_ok() {
                    proxy.rotations.insert(request, answer);
                }
                waiting.push((key.clone(), receiver));
            }
        }
        let mut views = Vec::new();
        let deadline = Instant::now() + ROTATION;
        for (key, answer) in waiting {
            let error = match tokio::time::timeout_at(deadline, answer).await {
                Ok(Ok(error)) => (!error.is_empty()).then_some(error),
                Ok(Err(_gone)) => Some("the proxy went away or takes no messages".to_owned()),
                Err(_late) => Some("the proxy did not answer within 10 seconds".to_owned()),
            };
            let serial = self.serial(&key).filter(|_| error.is_none());
            let (identity, proxy) = key;
            views.push(RotationView { proxy, identity, serial, error });
        }
        views
    }

    fn serial(&self, proxy: &ProxyKey) -> Option<String> {
        let proxies = self.0.proxies.lock();
        proxies.get(proxy)?.certificate.as_ref().map(|certificate| certificate.serial.clone())
    }

    fn tell_all(&self, message: &v1::ControlMessage) {
        for proxy in self.0.proxies.lock().values() {
            // A full outbox means a proxy that hangs; its stream will end.
            drop(proxy.outbox.try_send(message.clone()));
        }
    }

    fn number(&self) -> u64 {
        self.0.next.fetch_add(1, Ordering::Relaxed)
    }

    /// How many discovery streams are open.
    pub fn subscribers(&self) -> usize {
        self.0.subscribers.lock().len()
    }
}

/// A proxy that registered nothing (a pure client, a gateway) is known by its identity.
fn is_of(hello: &ProxyHello, service: &ServiceName) -> bool {
    hello.identity.namespace() == service.namespace() && hello.identity.name() == service.name()
}

fn message(kind: v1::control_message::Kind) -> v1::ControlMessage {
    v1::ControlMessage { kind: Some(kind) }
}

/// A proxy's presence; it ends when dropped.
#[derive(Debug)]
pub struct Session {
    live: Live,
    key: ProxyKey,
    number: u64,
}

impl Session {
    /// The workload behind the proxy was registered.
    pub fn serves(&self, service: ServiceName) {
        self.update(|proxy| proxy.service = Some(service));
    }

    /// Takes one report. What cannot be read is left out.
    pub fn report(&self, kind: v1::proxy_message::Kind) {
        use v1::proxy_message::Kind;
        match kind {
            Kind::Breaker(state) => {
                if let Some(report) = report::breaker(&self.key.1, state) {
                    self.update(|proxy| {
                        if proxy.breakers.len() < report::BREAKERS || proxy.breakers.contains_key(&report.service) {
                            proxy.breakers.insert(report.service.clone(), (report, Instant::now()));
                        }
                    });
                }
            }
            Kind::Certificate(state) => {
                self.update(|proxy| {
                    proxy.certificate = report::certificate(&self.key.1, &self.key.0, state);
                });
            }
            Kind::Outside(outside) => {
                let hosts = report::outside(outside);
                self.update(|proxy| proxy.outside = hosts);
            }
            Kind::Traffic(traffic) => self.live.0.counts.lock().add(traffic.flows, Instant::now()),
            Kind::Tap(events) => self.live.0.taps.publish(&self.key.1, &events),
            Kind::Rotated(rotated) => {
                let mut answer = None;
                self.update(|proxy| answer = proxy.rotations.remove(&rotated.request_id));
                if let Some(answer) = answer {
                    drop(answer.send(report::text(rotated.error, 256)));
                }
            }
            Kind::Recalled(recalled) => self.recalled(recalled),
            // Theirs to be handled by the stream itself.
            Kind::Hello(_) | Kind::Workload(_) => {}
        }
    }

    fn update(&self, change: impl FnOnce(&mut Proxy)) {
        let mut proxies = self.live.0.proxies.lock();
        if let Some(proxy) = proxies.get_mut(&self.key).filter(|proxy| proxy.session == self.number) {
            change(proxy);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut proxies = self.live.0.proxies.lock();
        if proxies.get(&self.key).is_some_and(|proxy| proxy.session == self.number) {
            proxies.remove(&self.key);
        }
    }
}
