use hms_identity::clock::SystemClock;
use hms_model::listener::Role;
use hms_model::spiffe::{SpiffeId, TrustDomain};
use hms_model::workload::{Address, Endpoint, Registrar, Transport};
use hms_traffic::canary::Gates;
use hms_wire::proto::hms::v1;

use super::*;
use crate::live::{ProxyHello, Session};
use crate::store::MemoryStore;
use crate::tasks::Tasks;

const HOLD: Duration = Duration::from_secs(30);

/// A mesh with two versions of a service, and a caller that reports.
struct World {
    store: Arc<MemoryStore>,
    registry: Registry,
    live: Live,
    canaries: Canaries,
    caller: Session,
    _tasks: Tasks,
}

fn pay() -> ServiceName {
    ServiceName::new("pay").unwrap()
}

fn plan(steps: &[u32]) -> Plan {
    let gates = Gates { failures: Some(10_000), p95: Some(Duration::from_millis(300)), errors: None };
    Plan { steps: steps.to_vec(), hold: HOLD, gates, enough: 20 }
}

fn endpoint(version: &str, port: u16) -> Endpoint {
    Endpoint {
        service: pay(),
        id: version.to_owned(),
        address: Address { ip: [127, 0, 0, 1].into(), port },
        app_port: 0,
        version: version.to_owned(),
        zone: String::new(),
        health: Health::Healthy,
        transport: Transport::Plain,
        source: Registrar::Api,
    }
}

impl World {
    async fn new() -> Self {
        Self::on(Arc::new(MemoryStore::new())).await
    }

    /// A control plane on a store; whatever the one before knew is gone.
    async fn on(store: Arc<MemoryStore>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let shared: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
        let domain = TrustDomain::new("k3.hms").unwrap();
        let registry = Registry::open(Arc::clone(&shared), domain, Arc::clone(&clock)).await.unwrap();
        let mut tasks = registry.start();
        for (version, port) in [("v1", 1001), ("v2", 1002)] {
            registry.register("test", endpoint(version, port)).await.unwrap();
        }
        let live = Live::new();
        let hello = ProxyHello {
            id: "caller".to_owned(),
            role: Role::Sidecar,
            release: "0".to_owned(),
            level: 2,
            admin: None,
            process: 0,
            identity: SpiffeId::parse("spiffe://k3.hms/ns/default/sa/portal").unwrap(),
        };
        let (caller, _messages) = live.connect(hello);
        let canaries = Canaries::open(registry.clone(), live.clone(), shared, clock).await.unwrap();
        tasks.spawn("canaries", canaries.clone().run());
        Self { store, registry, live, canaries, caller, _tasks: tasks }
    }

    fn shares(&self) -> Division {
        present(&self.registry.view(), &pay())
    }

    /// What v2 gets, of a million.
    fn weight(&self) -> u32 {
        self.shares().into_iter().flatten().find(|share| share.version == "v2").map_or(0, |share| share.weight)
    }

    /// The caller's proxy reports so many calls to v2.
    fn called(&self, requests: u64, failures: u64) {
        let destination = Some(v1::ServiceName { namespace: "default".to_owned(), name: "pay".to_owned() });
        let latency = vec![0, requests, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flow = v1::Flow {
            source: "portal".to_owned(),
            destination,
            version: "v2".to_owned(),
            requests,
            failures,
            latency,
            mtls: true,
            ..v1::Flow::default()
        };
        self.caller.report(v1::proxy_message::Kind::Traffic(v1::Traffic { flows: vec![flow] }));
    }

    async fn phase(&self) -> Phase {
        self.canaries.show(&pay()).await.unwrap().record.phase
    }

    /// Time passes; every look that is due happens.
    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time + LOOK * 2).await;
    }
}

fn split(v1: u32, v2: u32) -> Vec<Share> {
    let share = |version: &str, weight: u32| Share { service: pay(), version: version.to_owned(), weight };
    vec![share("v1", v1), share("v2", v2)]
}

#[tokio::test(start_paused = true)]
async fn a_good_version_climbs_to_everything() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 500_000, 1_000_000]), None).await.unwrap();
    for weight in [100_000, 500_000, 1_000_000] {
        assert_eq!(world.weight(), weight);
        world.called(100, 0);
        world.pass(HOLD).await;
    }
    assert_eq!((world.phase().await, world.shares()), (Phase::Promoted, Some(split(0, 1_000_000))));
}

#[tokio::test(start_paused = true)]
async fn too_few_requests_keep_it_where_it_is() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 1_000_000]), None).await.unwrap();
    world.called(19, 0);
    world.pass(HOLD * 5).await;
    assert_eq!((world.phase().await, world.weight()), (Phase::Running, 100_000));
    world.called(1, 0);
    world.pass(LOOK).await;
    assert_eq!(world.weight(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_broken_gate_gives_everything_back_within_two_looks() {
    let world = World::new().await;
    let before = split(3, 0);
    let put = Change::Put(Resource::Split(Split { service: pay(), shares: before.clone() }));
    world.registry.commit("test", vec![put], None).await.unwrap();
    world.canaries.start(&pay(), "v2", plan(&[100_000, 1_000_000]), None).await.unwrap();
    assert_eq!(world.shares(), Some(split(900_000, 100_000)));
    world.called(100, 2);
    world.pass(Duration::ZERO).await;
    assert_eq!((world.phase().await, world.shares()), (Phase::Aborted, Some(before)), "exactly what held before");
    let why = world.canaries.show(&pay()).await.unwrap().record.why;
    assert_eq!(why, "2 of 100 tries failed, 1 % are allowed");
}

#[tokio::test(start_paused = true)]
async fn calls_are_not_given_back_to_nobody() {
    let world = World::new().await;
    let put = Change::Put(Resource::Split(Split { service: pay(), shares: split(1, 0) }));
    world.registry.commit("test", vec![put], None).await.unwrap();
    world.canaries.start(&pay(), "v2", plan(&[1_000_000]), None).await.unwrap();
    world.registry.remove("test", &pay(), "v1").await.unwrap();
    world.called(100, 50);
    world.pass(Duration::ZERO).await;
    assert_eq!((world.phase().await, world.weight()), (Phase::Paused, 1_000_000));
    let why = world.canaries.show(&pay()).await.unwrap().record.why;
    assert!(why.ends_with("but nobody who had the calls before is healthy"), "{why}");
    world.registry.register("test", endpoint("v1", 1001)).await.unwrap();
    world.canaries.order(&pay(), Order::Abort).await.unwrap();
    assert_eq!((world.phase().await, world.shares()), (Phase::Aborted, Some(split(1, 0))));
}

#[tokio::test(start_paused = true)]
async fn instances_that_a_caller_has_ejected_end_it_and_without_a_split_before_there_is_none_after() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000]), None).await.unwrap();
    let state = |id: &str, phase: v1::BreakerPhase| v1::EndpointState {
        id: id.to_owned(),
        phase: phase.into(),
        ..v1::EndpointState::default()
    };
    let endpoints = vec![state("v1", v1::BreakerPhase::Closed), state("v2", v1::BreakerPhase::Open)];
    let service = Some(v1::ServiceName { namespace: "default".to_owned(), name: "pay".to_owned() });
    let report = v1::BreakerState { service, endpoints, ..v1::BreakerState::default() };
    world.caller.report(v1::proxy_message::Kind::Breaker(report));
    world.pass(Duration::ZERO).await;
    assert_eq!((world.phase().await, world.shares()), (Phase::Aborted, None));
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_division_stands_and_stops_it() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 1_000_000]), None).await.unwrap();
    let other = split(1, 1);
    let put = Change::Put(Resource::Split(Split { service: pay(), shares: other.clone() }));
    world.registry.commit("test", vec![put], None).await.unwrap();
    world.called(100, 50);
    world.pass(HOLD).await;
    assert_eq!((world.phase().await, world.shares()), (Phase::Stopped, Some(other)));
    let late = world.canaries.order(&pay(), Order::Promote).await;
    assert!(matches!(late, Err(CanaryError::Over(_, Phase::Stopped))));
    world.canaries.start(&pay(), "v2", plan(&[600_000]), None).await.unwrap();
    assert_eq!(world.phase().await, Phase::Running, "another can begin");
}

#[tokio::test(start_paused = true)]
async fn a_pause_holds_and_orders_are_obeyed() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 500_000]), None).await.unwrap();
    let again = world.canaries.start(&pay(), "v2", plan(&[500_000]), None).await;
    assert!(matches!(again, Err(CanaryError::UnderWay(_))));
    world.canaries.order(&pay(), Order::Pause).await.unwrap();
    let twice = world.canaries.order(&pay(), Order::Pause).await;
    assert!(matches!(twice, Err(CanaryError::Already(_, Phase::Paused))));
    world.called(100, 0);
    world.pass(HOLD * 3).await;
    assert_eq!((world.phase().await, world.weight()), (Phase::Paused, 100_000));
    world.canaries.order(&pay(), Order::Resume).await.unwrap();
    world.called(100, 0);
    world.pass(HOLD / 2).await;
    assert_eq!(world.weight(), 100_000, "the step begins anew");
    world.pass(HOLD).await;
    assert_eq!(world.weight(), 500_000);
    world.called(100, 0);
    world.pass(HOLD).await;
    assert_eq!(world.phase().await, Phase::Passed);
    world.canaries.order(&pay(), Order::Promote).await.unwrap();
    assert_eq!((world.phase().await, world.weight()), (Phase::Promoted, 1_000_000));
    world.canaries.forget(&pay()).await.unwrap();
    assert!(matches!(world.canaries.show(&pay()).await, Err(CanaryError::None(_))));
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_begins_anew_goes_on_where_the_last_one_was() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 500_000, 1_000_000]), None).await.unwrap();
    world.called(100, 0);
    world.pass(HOLD).await;
    assert_eq!(world.weight(), 500_000);
    let store = Arc::clone(&world.store);
    drop(world);
    let world = World::on(store).await;
    assert_eq!(world.phase().await, Phase::Running);
    world.pass(HOLD).await;
    assert_eq!(world.weight(), 500_000, "what nobody remembers was not seen");
    world.called(100, 0);
    world.pass(LOOK).await;
    assert_eq!(world.weight(), 1_000_000);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_written_down_and_not_done_is_done_after_a_restart() {
    let world = World::new().await;
    world.canaries.start(&pay(), "v2", plan(&[100_000, 1_000_000]), None).await.unwrap();
    // As if the last control plane had died between the two: it wanted to give everything back.
    let mut record = world.canaries.show(&pay()).await.unwrap().record;
    (record.phase, record.wanted) = (Phase::Aborted, None);
    let store = Arc::clone(&world.store);
    drop(world);
    let write = Write::Put(key(&pay()), record.write().unwrap());
    store.commit(Keyspace::Config, Vec::new(), vec![write]).await.unwrap();
    let world = World::on(store).await;
    assert_eq!(world.weight(), 100_000);
    world.pass(LOOK).await;
    assert_eq!((world.phase().await, world.shares()), (Phase::Aborted, None));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let nobody = world.canaries.start(&pay(), "v3", plan(&[100_000]), None).await;
    assert!(matches!(nobody, Err(CanaryError::NoVersion { known, .. }) if known == "v1, v2"));
    let put = Change::Put(Resource::Split(Split { service: pay(), shares: split(1, 1) }));
    let revision = world.registry.commit("test", vec![put], None).await.unwrap();
    let less = world.canaries.start(&pay(), "v2", plan(&[400_000]), None).await;
    assert!(matches!(less, Err(CanaryError::NoRise { percent, .. }) if (percent - 50.0).abs() < 0.01));
    let stale = world.canaries.start(&pay(), "v2", plan(&[600_000]), Some(Revision(1))).await;
    assert!(matches!(stale, Err(CanaryError::Registry(RegistryError::Conflict { .. }))));
    assert!(matches!(world.canaries.order(&pay(), Order::Abort).await, Err(CanaryError::None(_))));
    assert_eq!((world.shares(), world.registry.view().config), (Some(split(1, 1)), revision));
    assert!(world.live.versions(&pay()).is_empty());
    assert!(world.store.list(Keyspace::Config, PREFIX).await.unwrap().entries.is_empty());
}
