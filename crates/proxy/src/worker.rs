//! One data thread's own things, and what all threads share.

use std::cell::{OnceCell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use hms_identity::clock::{Clock as _, SystemClock};
use hms_model::names::ServiceName;
use hms_traffic::balance::Candidate;
use hms_traffic::deadline::Deadlines;
use hms_traffic::dice::Dice;
use hms_traffic::shed::Refusals;
use rustls::ServerConfig;
use tokio::sync::{Notify, mpsc};

use crate::capture::sidecar::Captured;
use crate::clock::Clock;
use crate::credentials::Holder;
use crate::drain::Drain;
use crate::egress::Outside;
use crate::gate::Gate;
use crate::overload::Overload;
use crate::pipeline::Mirrors;
use crate::runtime::Current;
use crate::settings::Settings;
use crate::telemetry::access_log::{AccessLog, Lines};
use crate::telemetry::decisions::Decisions;
use crate::telemetry::metrics::{Metrics, Party, Registry};
use crate::telemetry::tap::Tap;
use crate::transport::pool::Pool;

/// Handshakes that one source may have in progress with this process (reliability D9).
const SOURCE_HANDSHAKES: usize = 256;
/// Handshakes in progress on one data thread.
const HANDSHAKES: usize = 1024;

/// What every thread of the process shares. No locks on the way of a request.
#[derive(Debug)]
pub struct Shared {
    /// What we were told.
    pub settings: Settings,
    /// The process's clock.
    pub clock: Clock,
    /// The wall clock.
    pub wall: SystemClock,
    /// What we prove ourselves with.
    pub holder: Holder,
    /// The certificate shown to the outside (gateway).
    pub edge: ArcSwapOption<ServerConfig>,
    /// The tables in use.
    pub current: Current,
    /// Everything counted.
    pub registry: Arc<Registry>,
    /// Live taps.
    pub tap: Tap,
    /// The log of requests.
    pub access_log: AccessLog,
    /// Tells when to finish.
    pub drain: Drain,
    /// What the process can take.
    pub overload: Overload,
    /// Services somebody asked for that are not yet known in detail.
    pub wanted: mpsc::Sender<ServiceName>,
    /// Whether the application accepts connections.
    pub app: AppState,
    /// How the application is reached, and what it dialled, if it is captured.
    pub captured: Captured,
    /// What is known of hosts outside of the mesh.
    pub outside: Outside,
    /// Services whose breaker may have changed.
    pub breakers: mpsc::Sender<ServiceName>,
}

impl Shared {
    /// The wall clock.
    pub fn now(&self) -> SystemTime {
        self.wall.now()
    }
}

/// What is known of the application behind this proxy: above all whether it accepts connections.
#[derive(Debug, Default)]
pub struct AppState {
    refusals: Refusals,
    deadlines: Deadlines,
    listening: AtomicBool,
    known: AtomicBool,
    suspect: Notify,
}

impl AppState {
    /// When one of its calls was last refused on purpose.
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// When the requests must be answered that it is working on.
    pub fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    /// Whether it did when last tried.
    pub fn is_listening(&self) -> bool {
        self.listening.load(Relaxed)
    }

    /// Whether it ever did. One that never listens is a pure client and serves nothing (ruling R6).
    pub fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }

    /// Notes what a try showed; answers whether that is news.
    pub fn note(&self, listening: bool) -> bool {
        if listening {
            self.known.store(true, Relaxed);
        }
        self.listening.swap(listening, Relaxed) != listening
    }

    /// Asks for a try at once, because a request was refused.
    pub fn suspect(&self) {
        self.suspect.notify_one();
    }

    /// Resolves when a try is asked for.
    pub async fn suspected(&self) {
        self.suspect.notified().await;
    }
}

/// One data thread.
#[derive(Debug)]
pub struct Worker {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Connections kept for later.
    pub pool: Rc<RefCell<Pool>>,
    /// Randomness.
    pub dice: RefCell<Dice>,
    /// Our cells.
    pub metrics: Metrics,
    /// Our part of the access log.
    pub log: Rc<Lines>,
    /// Room for the endpoints a request may choose from, used again by the next.
    pub candidates: RefCell<Vec<Candidate>>,
    /// Our own labels, once there is a certificate to take them from.
    pub own: OnceCell<Arc<Party>>,
    /// What is remembered of requests that ended.
    pub decisions: Arc<Decisions>,
    /// Copies of requests that are under way.
    pub mirrors: Mirrors,
    /// Handshakes of those who connect to us.
    pub handshakes: Gate<IpAddr>,
}

impl Worker {
    /// A worker with its own dice.
    pub fn new(shared: Arc<Shared>, seed: u64) -> Self {
        let metrics = Metrics::new(Arc::clone(&shared.registry));
        let pool = Rc::new(RefCell::new(Pool::new(shared.clock)));
        let log = Rc::new(Lines::new(shared.access_log.clone()));
        let decisions = shared.registry.memory().ring();
        let dice = RefCell::new(Dice::seeded(seed));
        let handshakes = Gate::new(SOURCE_HANDSHAKES / shared.settings.workers.max(1), HANDSHAKES);
        Self {
            shared,
            pool,
            dice,
            metrics,
            log,
            candidates: RefCell::default(),
            own: OnceCell::new(),
            decisions,
            mirrors: Mirrors::default(),
            handshakes,
        }
    }

    /// Labels of this proxy, for either end of a flow. Without a certificate there is no principal yet.
    pub fn own_party(&self) -> Arc<Party> {
        let Some(credentials) = self.shared.holder.current() else { return Arc::new(self.party(String::new())) };
        let party = self.own.get_or_init(|| Arc::new(self.party(credentials.svid.identity().to_string())));
        Arc::clone(party)
    }

    fn party(&self, principal: String) -> Party {
        let settings = &self.shared.settings;
        Party {
            workload: settings.service.name().to_owned(),
            namespace: settings.service.namespace().to_owned(),
            principal,
            version: settings.version.clone(),
        }
    }

    /// Now, on the monotonic clock.
    pub fn now(&self) -> hms_traffic::clock::Moment {
        self.shared.clock.now()
    }
}
