//! A proxy that calls, as `crates/proxy/src/attempt.rs` and `pipeline/split.rs` do it: the same decisions of [`hms_traffic`] in the
//! same order. Whoever changes the one changes the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use hms_formats::scenario::Instance;
use hms_model::names::ServiceName;
use hms_model::policy::TrafficPolicy;
use hms_model::split::{self, Share};
use hms_model::workload::Health;
use hms_traffic::balance::{self, Candidate};
use hms_traffic::breaker::{self, EndpointView, ServiceBreaker};
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::ewma::Ewma;
use hms_traffic::limits::Concurrency;
use hms_traffic::outlier::{Admission, EndpointHealth, FailureKind, Outcome, Phase};
use hms_traffic::retry::{Budget, Failure, NotProcessed};
use hms_traffic::shed::Refusals;
use hms_traffic::subset::{self, Member};
use http::StatusCode;

/// What came back from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// The application's own answer.
    Status(StatusCode),
    /// The application's own error, of which its proxy says that it comes of a call refused on purpose further on.
    Shed(StatusCode),
    /// The destination's proxy says that its application does not listen.
    AppDown,
    /// The destination's proxy says that its application broke off.
    AppReset,
    /// The destination's proxy refused it for its rate limit.
    Limited,
    /// The connection broke.
    Broken,
    /// Nobody listened.
    NotConnected(NotProcessed),
    /// Nothing came in time.
    TimedOut,
}

impl Came {
    /// What it says about the endpoint, and about trying again (`attempt::judge`).
    pub(super) fn judge(self) -> (Outcome, Option<Failure>) {
        match self {
            Self::Status(status) if status.is_server_error() => {
                (Outcome::of_status(status), Some(Failure::Status(status)))
            }
            Self::Status(_) => (Outcome::Success, None),
            Self::Shed(_) => (Outcome::Ignored, Some(Failure::Shed)),
            Self::AppDown => {
                (Outcome::GatewayFailure(FailureKind::AppDown), Some(Failure::NotProcessed(NotProcessed::AppDown)))
            }
            Self::AppReset => (Outcome::GatewayFailure(FailureKind::BadGateway502), Some(Failure::Reset)),
            Self::Limited => (Outcome::Ignored, None),
            Self::Broken => (Outcome::GatewayFailure(FailureKind::Reset), Some(Failure::Reset)),
            Self::NotConnected(why) => (Outcome::GatewayFailure(kind(why)), Some(Failure::NotProcessed(why))),
            Self::TimedOut => (Outcome::GatewayFailure(FailureKind::Timeout), Some(Failure::Timeout)),
        }
    }

    /// What the caller's application gets if it is not tried again.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Status(status) | Self::Shed(status) => status,
            Self::Limited => StatusCode::TOO_MANY_REQUESTS,
            Self::AppReset | Self::Broken => StatusCode::BAD_GATEWAY,
            Self::AppDown | Self::NotConnected(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word for people.
    pub(super) fn word(self) -> String {
        match self {
            Self::Status(status) => status.as_str().to_owned(),
            Self::Shed(_) => "refused further on".to_owned(),
            Self::AppDown => FailureKind::AppDown.as_str().to_owned(),
            Self::Limited => "rate limit".to_owned(),
            Self::AppReset | Self::Broken => FailureKind::Reset.as_str().to_owned(),
            Self::NotConnected(why) => kind(why).as_str().to_owned(),
            Self::TimedOut => FailureKind::Timeout.as_str().to_owned(),
        }
    }
}

fn kind(why: NotProcessed) -> FailureKind {
    match why {
        NotProcessed::ConnectTimeout => FailureKind::ConnectTimeout,
        _ => FailureKind::ConnectRefused,
    }
}

/// What a caller remembers of an endpoint.
#[derive(Debug)]
pub(super) struct Endpoint {
    /// Its place among the service's instances.
    pub(super) place: usize,
    version: String,
    /// What the caller was told; `None` when it is not registered.
    pub(super) listed: Option<Health>,
    /// Failures and ejection.
    pub(super) health: EndpointHealth,
    /// Latency.
    pub(super) latency: Ewma,
    /// Requests under way.
    pub(super) in_flight: u32,
    /// Connections without a request.
    pub(super) idle: u32,
}

impl Endpoint {
    fn is_healthy(&self) -> bool {
        self.listed == Some(Health::Healthy)
    }
}

/// A service as one caller sees it.
#[derive(Debug)]
pub(super) struct Upstream {
    name: ServiceName,
    policy: TrafficPolicy,
    /// Its endpoints, in the order of its instances.
    pub(super) endpoints: Vec<Endpoint>,
    preferred: Vec<usize>,
    /// How its calls are divided.
    pub(super) shares: Vec<Share>,
    /// Requests under way.
    pub(super) concurrency: Arc<Concurrency>,
    /// What may be spent on retries.
    pub(super) budget: Budget,
    rotor: AtomicUsize,
    is_open: bool,
}

impl Upstream {
    /// Nothing remembered yet. The instances' ids are their numbers.
    pub(super) fn new(
        (name, policy): (&ServiceName, &TrafficPolicy),
        caller: &subset::Caller,
        instances: &[Instance],
        shares: &[Share],
    ) -> Self {
        let ids: Vec<String> = (1..=instances.len()).map(|number| format!("{name}-{number}")).collect();
        let members: Vec<Member<'_>> =
            ids.iter().zip(instances).map(|(id, own)| Member { id, zone: &own.zone }).collect();
        let endpoint = |(place, own): (usize, &Instance)| Endpoint {
            place,
            version: own.version.clone(),
            listed: Some(Health::Healthy),
            health: EndpointHealth::new(),
            latency: Ewma::new(),
            in_flight: 0,
            idle: 0,
        };
        Self {
            name: name.clone(),
            policy: policy.clone(),
            endpoints: instances.iter().enumerate().map(endpoint).collect(),
            preferred: subset::order(caller, &members),
            shares: shares.to_vec(),
            concurrency: Arc::default(),
            budget: Budget::new(),
            rotor: AtomicUsize::new(0),
            is_open: false,
        }
    }

    /// The version of a call (`pipeline::split::follow`): `Some("")` for any, `None` when nobody has a share.
    pub(super) fn follow(&self, now: Moment, dice: &mut Dice) -> Option<String> {
        if self.shares.is_empty() {
            return Some(String::new());
        }
        let serves = |place: usize| {
            let Some(share) = self.shares.get(place) else { return false };
            self.endpoints.iter().any(|own| {
                let meant = share.version.is_empty() || own.version == share.version;
                meant && own.is_healthy() && own.health.phase(now) == Phase::Closed
            })
        };
        let place = hms_traffic::split::choose(&self.shares, serves, dice)?;
        self.shares.get(place).map(|share| share.version.clone())
    }

    fn is_meant(version: &str, own: &Endpoint) -> bool {
        version.is_empty() || own.version == version
    }

    fn may_stand_in(&self, own: &Endpoint) -> bool {
        split::takes(&self.shares, &self.name, &own.version)
    }

    /// An endpoint that may be tried (`attempt::choose`).
    pub(super) fn choose(&self, version: &str, tried: &[usize], now: Moment, dice: &mut Dice) -> Option<usize> {
        let mut choose = |among: &dyn Fn(&Endpoint) -> bool, tried: &[usize]| {
            let list = self.candidates(now, among, tried);
            balance::choose(&self.policy.balance.algorithm, &list, &self.rotor, dice)
        };
        let (meant, others) = (|own: &_| Self::is_meant(version, own), |own: &_| self.may_stand_in(own));
        let fresh = choose(&meant, tried).or_else(|| choose(&others, tried)).or_else(|| choose(&others, &[]));
        fresh.or_else(|| {
            self.endpoints.iter().position(|own| {
                self.may_stand_in(own)
                    && own.is_healthy()
                    && own.health.force_probe_due(now)
                    && own.health.admit(now) == Admission::Probe
            })
        })
    }

    /// Those that can be called (`attempt::candidates`, `Upstream::subset`).
    fn candidates(&self, now: Moment, among: &dyn Fn(&Endpoint) -> bool, tried: &[usize]) -> Vec<Candidate> {
        let size = subset::size(self.concurrency.in_flight());
        let usable = |own: &Endpoint| own.is_healthy() && own.health.phase(now) == Phase::Closed && among(own);
        let ordered = self.preferred.iter().filter_map(|index| Some((*index, self.endpoints.get(*index)?)));
        let subset = ordered.filter(|(_, own)| usable(own)).take(size);
        let fresh = subset.filter(|(index, _)| !tried.contains(index));
        let candidate = |(index, own): (usize, &Endpoint)| Candidate {
            index,
            in_flight: own.in_flight,
            latency: own.latency.value(now),
        };
        fresh.map(candidate).collect()
    }

    /// Whether there is somebody who was not tried (`attempt::has_other`).
    pub(super) fn has_other(&self, tried: &[usize], now: Moment) -> bool {
        !self.candidates(now, &|own| self.may_stand_in(own), tried).is_empty()
    }

    /// Whether calls are refused (`attempt::is_open`).
    pub(super) fn is_open(&self, now: Moment) -> bool {
        let listed = self.endpoints.iter().filter(|own| own.listed.is_some());
        let views = listed.map(|own| EndpointView { usable_health: own.is_healthy(), phase: own.health.phase(now) });
        breaker::phase(views, true) != ServiceBreaker::Closed
    }

    /// Takes in what a try or probe came to (`attempt::note`).
    pub(super) fn note(&self, index: usize, outcome: Outcome, now: Moment, dice: &mut Dice) {
        let Some(own) = self.endpoints.get(index) else { return };
        let _transition = own.health.observe(outcome, now, &self.policy.outlier, dice);
        if outcome == Outcome::Ignored {
            own.health.abandon(now);
        }
    }

    /// Whether the breaker has opened since this was last asked.
    pub(super) fn has_opened(&mut self, now: Moment) -> bool {
        let is_open = self.is_open(now);
        let before = std::mem::replace(&mut self.is_open, is_open);
        is_open && !before
    }

    /// Takes in what the control plane says of an endpoint (`Upstream::build`, `Upstream::follow_health`).
    pub(super) fn follow_health(&mut self, place: usize, listed: Option<Health>, now: Moment, dice: &mut Dice) {
        let policy = self.policy.outlier;
        let Some(own) = self.endpoints.get_mut(place) else { return };
        match (std::mem::replace(&mut own.listed, listed), listed) {
            (Some(Health::Healthy), Some(Health::Unhealthy)) => {
                let down = Outcome::GatewayFailure(FailureKind::AppDown);
                let mut failures = 0..policy.consecutive.max(1);
                let _ejected = failures.any(|_| own.health.observe(down, now, &policy, dice).is_some());
            }
            (Some(Health::Unhealthy), Some(Health::Healthy)) => {
                let _restored = own.health.restore();
            }
            (None, Some(_)) => {
                (own.health, own.latency) = (EndpointHealth::new(), Ewma::new());
            }
            _ => {}
        }
    }
}

/// A proxy that calls.
#[derive(Debug)]
pub(super) struct Proxy {
    /// What people call it: `front/1`.
    pub(super) name: String,
    /// What it calls, by the place of the service.
    pub(super) upstreams: BTreeMap<usize, Upstream>,
    /// When a call of its application was refused on purpose.
    pub(super) refusals: Refusals,
}
