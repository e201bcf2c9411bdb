use hms_identity::clock::SystemClock;
use hms_model::finding::Severity;
use hms_model::route::Route;
use hms_model::spiffe::SpiffeId;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use tokio::time::advance;

use super::leases::{GRACE, HOLD, START_GRACE};
use super::*;
use crate::store::MemoryStore;

fn domain() -> TrustDomain {
    TrustDomain::new("k3.hms").unwrap()
}

fn identity(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), "default", name).unwrap()
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

fn endpoint(name: &str, id: &str, port: u16) -> Endpoint {
    Endpoint {
        service: service(name),
        id: id.to_owned(),
        address: Address { ip: [127, 0, 0, 1].into(), port },
        app_port: 7000,
        version: "v1".to_owned(),
        zone: String::new(),
        health: Health::Healthy,
        source: Registrar::Api,
        transport: Transport::Plain,
    }
}

async fn open(store: &Arc<MemoryStore>) -> (Registry, Tasks) {
    let store: Arc<dyn Store> = Arc::<MemoryStore>::clone(store);
    let registry = Registry::open(store, domain(), Arc::new(SystemClock)).await.unwrap();
    let tasks = registry.start();
    (registry, tasks)
}

async fn fresh() -> (Registry, Tasks) {
    open(&Arc::new(MemoryStore::new())).await
}

async fn attach(registry: &Registry, name: &str, id: &str) -> (LeaseId, ResourceKey) {
    let lease = registry.new_lease();
    registry.attach(lease, &identity(name), Peer::Local, endpoint(name, id, 4000)).await.unwrap();
    (lease, ResourceKey::endpoint(&service(name), id))
}

/// The endpoint as the present view has it.
fn shown(registry: &Registry, name: &str, id: &str) -> Option<Endpoint> {
    registry.view().mesh.services.get(&service(name))?.endpoints.get(id).cloned()
}

/// Waits for a state of the view, however long it takes.
async fn until(registry: &Registry, what: impl Fn(&View) -> bool) {
    registry.watch().wait_for(|view| what(view)).await.unwrap();
}

fn count(view: &View, name: &str) -> usize {
    view.mesh.services.get(&service(name)).map_or(0, |state| state.endpoints.len())
}

#[tokio::test]
async fn whoever_reads_after_writing_sees_what_was_written() {
    let (registry, _tasks) = fresh().await;
    registry.register("test", endpoint("fee-payment", "1", 6000)).await.unwrap();
    assert_eq!(shown(&registry, "fee-payment", "1").unwrap().address.port, 6000);
    registry.register("test", endpoint("fee-payment", "1", 6001)).await.unwrap();
    assert_eq!(shown(&registry, "fee-payment", "1").unwrap().address.port, 6001, "the same id replaces");
    registry.remove("test", &service("fee-payment"), "1").await.unwrap();
    assert_eq!(shown(&registry, "fee-payment", "1"), None);
    let missing = registry.remove("test", &service("fee-payment"), "1").await;
    assert!(matches!(missing, Err(RegistryError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn the_first_namesake_binds_a_service_and_others_may_not_serve_it() {
    let (registry, _tasks) = fresh().await;
    attach(&registry, "calc-svc", "1").await;
    until(&registry, |view| count(view, "calc-svc") == 1).await;
    let owners = registry.view().declaration(&service("calc-svc")).unwrap().identities.clone();
    assert_eq!(owners, [identity("calc-svc")]);
    for victim in ["calc-svc", "nobodys-svc"] {
        let lease = registry.new_lease();
        let stolen = registry.attach(lease, &identity("mallory"), Peer::Local, endpoint(victim, "2", 1)).await;
        assert!(matches!(stolen, Err(RegistryError::Refused(finding)) if finding.code.0 == 4103), "{victim}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_decides_who_may_serve() {
    let (registry, _tasks) = fresh().await;
    let declaration = |identities: Vec<SpiffeId>| {
        Change::Put(Resource::Declaration(Declaration { identities, ..Declaration::new(service("calc-svc")) }))
    };
    registry.commit("test", vec![declaration(vec![identity("other")])], None).await.unwrap();
    let lease = registry.new_lease();
    registry.attach(lease, &identity("other"), Peer::Local, endpoint("calc-svc", "1", 1)).await.unwrap();
    let own = registry.attach(lease, &identity("calc-svc"), Peer::Local, endpoint("calc-svc", "2", 1)).await;
    assert!(matches!(own, Err(RegistryError::Refused(_))));
    registry.commit("test", vec![declaration(Vec::new())], None).await.unwrap();
    assert_eq!(registry.view().declaration(&service("calc-svc")).unwrap().identities, [identity("other")]);
    let foreign = SpiffeId::parse("spiffe://elsewhere/ns/default/sa/calc-svc").unwrap();
    let refused = registry.commit("test", vec![declaration(vec![foreign])], None).await;
    assert!(matches!(refused, Err(RegistryError::Invalid(_))));
}

#[tokio::test(start_paused = true)]
async fn a_workload_whose_stream_ended_leaves_after_a_grace_and_one_that_came_back_stays() {
    let (registry, _tasks) = fresh().await;
    let (lease, key) = attach(&registry, "calc-svc", "1").await;
    let (other, other_key) = attach(&registry, "calc-svc", "2").await;
    until(&registry, |view| count(view, "calc-svc") == 2).await;
    let before = tokio::time::Instant::now();
    registry.detach(lease, &key);
    registry.detach(other, &other_key);
    attach(&registry, "calc-svc", "2").await;
    until(&registry, |view| count(view, "calc-svc") == 1).await;
    let gone_after = before.elapsed();
    assert!(gone_after >= GRACE && gone_after < GRACE + Duration::from_secs(1), "{gone_after:?}");
    assert!(shown(&registry, "calc-svc", "2").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_workload_that_says_goodbye_leaves_at_once() {
    let (registry, _tasks) = fresh().await;
    let (lease, key) = attach(&registry, "calc-svc", "1").await;
    until(&registry, |view| count(view, "calc-svc") == 1).await;
    let before = tokio::time::Instant::now();
    registry.leave(lease, &key).await.unwrap();
    until(&registry, |view| count(view, "calc-svc") == 0).await;
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn after_a_start_nothing_leaves_until_it_had_time_to_come_back() {
    let store = Arc::new(MemoryStore::new());
    {
        let (registry, _tasks) = open(&store).await;
        attach(&registry, "calc-svc", "1").await;
        attach(&registry, "calc-svc", "2").await;
    }
    let before = tokio::time::Instant::now();
    let (registry, _tasks) = open(&store).await;
    assert_eq!(count(&registry.view(), "calc-svc"), 2, "there before anybody connects");
    attach(&registry, "calc-svc", "1").await;
    until(&registry, |view| count(view, "calc-svc") == 1).await;
    assert!(before.elapsed() >= START_GRACE);
    assert!(shown(&registry, "calc-svc", "1").is_some());
}

#[tokio::test(start_paused = true)]
async fn when_many_vanish_together_they_stay_for_a_minute_and_people_are_told() {
    let (registry, _tasks) = fresh().await;
    let mut leases = Vec::new();
    for n in 0..12 {
        leases.push(attach(&registry, "calc-svc", &n.to_string()).await);
    }
    until(&registry, |view| count(view, "calc-svc") == 12).await;
    let before = tokio::time::Instant::now();
    for (lease, key) in &leases {
        registry.detach(*lease, key);
    }
    until(&registry, |view| view.findings.iter().any(|finding| finding.code.0 == 2310)).await;
    assert_eq!(count(&registry.view(), "calc-svc"), 12);
    until(&registry, |view| count(view, "calc-svc") == 0).await;
    assert!(before.elapsed() >= HOLD);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_or_the_same_again_writes_nothing() {
    let store = Arc::new(MemoryStore::new());
    let (registry, _tasks) = open(&store).await;
    attach(&registry, "calc-svc", "1").await;
    let before = store.list(Keyspace::Live, "").await.unwrap().revision;
    attach(&registry, "calc-svc", "1").await;
    advance(Duration::from_mins(10)).await;
    assert_eq!(store.list(Keyspace::Live, "").await.unwrap().revision, before);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_service_gets_no_work_until_it_is_started_or_comes_back_by_itself() {
    let (registry, _tasks) = fresh().await;
    let (lease, _) = attach(&registry, "calc-svc", "1").await;
    until(&registry, |view| count(view, "calc-svc") == 1).await;
    let health = || shown(&registry, "calc-svc", "1").unwrap().health;
    registry.set_desired(&service("calc-svc"), Desired::Stopped).await.unwrap();
    assert_eq!(health(), Health::Unhealthy);
    registry.set_desired(&service("calc-svc"), Desired::Started).await.unwrap();
    assert_eq!(health(), Health::Healthy);
    registry.set_desired(&service("calc-svc"), Desired::Stopped).await.unwrap();
    for health in [Health::Unhealthy, Health::Healthy] {
        let endpoint = Endpoint { health, ..endpoint("calc-svc", "1", 4000) };
        registry.attach(lease, &identity("calc-svc"), Peer::Local, endpoint).await.unwrap();
    }
    until(&registry, |view| view.stopped.is_empty()).await;
    assert_eq!(health(), Health::Healthy);
}

#[tokio::test(start_paused = true)]
async fn nobody_takes_what_is_another_workloads() {
    let (registry, _tasks) = fresh().await;
    attach(&registry, "calc-svc", "1").await;
    let by_api = registry.register("test", endpoint("calc-svc", "1", 1)).await;
    assert!(matches!(by_api, Err(RegistryError::Refused(_))));
    let lease = registry.new_lease();
    let elsewhere = Peer::Remote([10, 0, 0, 7].into());
    let forged = registry.attach(lease, &identity("calc-svc"), elsewhere, endpoint("calc-svc", "2", 1)).await;
    assert!(matches!(forged, Err(RegistryError::Refused(_))), "an address that is not the caller's");
    registry.reserve(["127.0.0.1:15014".parse().unwrap()]);
    let ours = registry.attach(lease, &identity("calc-svc"), Peer::Local, endpoint("calc-svc", "2", 15014)).await;
    assert!(matches!(ours, Err(RegistryError::Refused(_))), "the control plane's own address");
}

#[tokio::test]
async fn a_commit_is_refused_when_somebody_else_was_faster_and_what_was_before_is_kept() {
    let (registry, _tasks) = fresh().await;
    let route = |name: &str| Change::Put(Resource::Route(Route { service: service(name), rules: Vec::new() }));
    let first = registry.commit("test", vec![route("a")], None).await.unwrap();
    registry.commit("test", vec![route("b")], Some(first)).await.unwrap();
    let late = registry.commit("test", vec![route("c")], Some(first)).await;
    assert!(matches!(late, Err(RegistryError::Conflict { .. })));
    let history = registry.history(10).await.unwrap();
    let added = |name: &str| Some(vec![(ResourceKey::of(Kind::Route, &service(name)), Difference::Added)]);
    let told: Vec<_> = history.iter().map(|commit| (commit.revision, commit.changes.clone())).collect();
    assert_eq!(told, [(registry.view().config, added("b")), (first, added("a"))]);
    let before = registry.at(first).await.unwrap().unwrap();
    assert_eq!(before.keys().map(ToString::to_string).collect::<Vec<_>>(), ["route/default/a"]);
    assert_eq!(registry.at(Revision(9999)).await.unwrap(), None);
    let planned = registry.preview(vec![route("c"), route("a")], None).unwrap();
    assert_eq!(planned.altered.iter().map(Altered::difference).collect::<Vec<_>>(), [Difference::Added]);
    assert_eq!(registry.view().resources.len(), 2, "a preview changes nothing");
    let nothing =
        registry.commit("test", vec![Change::Delete(ResourceKey::of(Kind::Route, &service("z")))], None).await;
    assert!(matches!(nothing, Err(RegistryError::NotFound(_))));
}

#[tokio::test]
async fn a_commit_with_an_error_changes_nothing() {
    let (registry, _tasks) = fresh().await;
    let good = Change::Put(Resource::Route(Route { service: service("a"), rules: Vec::new() }));
    let bad = Change::Put(Resource::Endpoint(endpoint("a", "1", 1)));
    let refused = registry.commit("test", vec![good, bad], None).await;
    assert!(matches!(refused, Err(RegistryError::Invalid(findings)) if findings.len() == 1));
    assert!(registry.view().resources.is_empty());
}

#[tokio::test]
async fn the_store_of_another_mesh_is_refused() {
    let store = Arc::new(MemoryStore::new());
    drop(open(&store).await);
    let other = TrustDomain::new("z9.hms").unwrap();
    let store: Arc<dyn Store> = store;
    let refused = Registry::open(store, other, Arc::new(SystemClock)).await;
    assert!(matches!(refused, Err(RegistryError::ForeignTrustDomain { .. })));
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_reported() {
    let store = Arc::new(MemoryStore::new());
    let write = Write::Put("endpoint/default/a/1".to_owned(), Bytes::from_static(b"\xff"));
    store.commit(Keyspace::Live, Vec::new(), vec![write]).await.unwrap();
    let (registry, _tasks) = open(&store).await;
    registry.register("test", endpoint("a", "2", 1)).await.unwrap();
    let view = registry.view();
    assert_eq!(count(&view, "a"), 1);
    assert!(view.findings.iter().any(|f| f.severity == Severity::Error && f.message.contains("endpoint/default/a/1")));
}

#[tokio::test]
async fn a_registry_that_missed_the_past_reads_it_anew() {
    let store = Arc::new(MemoryStore::new());
    let shared: Arc<dyn Store> = Arc::<MemoryStore>::clone(&store);
    let behind = Registry::open(shared, domain(), Arc::new(SystemClock)).await.unwrap();
    let (other, _other_tasks) = open(&store).await;
    let revision = other.register("test", endpoint("a", "1", 1)).await.unwrap();
    store.compact(revision).await.unwrap();
    let _tasks = behind.start();
    until(&behind, |view| count(view, "a") == 1).await;
}

#[tokio::test]
async fn two_control_planes_on_one_store_show_the_same() {
    let store = Arc::new(MemoryStore::new());
    let (one, _one_tasks) = open(&store).await;
    let (two, _two_tasks) = open(&store).await;
    one.register("test", endpoint("a", "1", 1)).await.unwrap();
    until(&two, |view| count(view, "a") == 1).await;
    assert_eq!(one.view().mesh, two.view().mesh, "with the same opaque names");
}

/// What the name of a service resolves to, as proxies see it.
fn addresses(view: &View, name: &str) -> Vec<String> {
    let state = view.mesh.services.get(&service(name));
    state.map(|state| state.addresses.iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[tokio::test]
async fn a_service_keeps_its_addresses_over_removal_and_restart() {
    let store = Arc::new(MemoryStore::new());
    {
        let (registry, _tasks) = open(&store).await;
        let both = ["a", "b"].map(|name| Change::Put(Resource::Declaration(Declaration::new(service(name)))));
        registry.commit("test", both.to_vec(), None).await.unwrap();
        assert_eq!(addresses(&registry.view(), "a"), ["240.0.0.1", "fd48:4d53:6d65:7368::1"]);
        let gone = Change::Delete(ResourceKey::of(Kind::Declaration, &service("a")));
        registry.commit("test", vec![gone], None).await.unwrap();
    }
    let (registry, _tasks) = open(&store).await;
    registry.register("test", endpoint("c", "1", 1)).await.unwrap();
    registry.register("test", endpoint("a", "1", 1)).await.unwrap();
    let view = registry.view();
    let first = |name: &str| addresses(&view, name).first().cloned().unwrap_or_default();
    assert_eq!([first("a"), first("b"), first("c")], ["240.0.0.1", "240.0.0.2", "240.0.0.3"]);
}

#[tokio::test]
async fn many_services_at_once_get_numbers_of_their_own() {
    let (registry, _tasks) = fresh().await;
    let declare = |index: u32| Change::Put(Resource::Declaration(Declaration::new(service(&format!("s{index}")))));
    registry.commit("test", (0..500).map(declare).collect(), None).await.unwrap();
    let view = registry.view();
    let all: BTreeSet<String> = (0..500).flat_map(|index| addresses(&view, &format!("s{index}"))).collect();
    assert_eq!(all.len(), 1000);
}

#[tokio::test]
async fn two_control_planes_never_give_one_number_away_twice() {
    let store = Arc::new(MemoryStore::new());
    let (one, _one_tasks) = open(&store).await;
    let (two, _two_tasks) = open(&store).await;
    for round in 0..20 {
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let put = |name: &str| vec![Change::Put(Resource::Declaration(Declaration::new(service(name))))];
        // Only one of the two commits of configuration can win; both may have given a number before.
        let (first, second) = tokio::join!(one.commit("one", put(&a), None), two.commit("two", put(&b), None));
        assert!(first.is_ok() || second.is_ok());
    }
    let last = one.register("one", endpoint("last", "1", 1)).await.unwrap();
    until(&two, |view| view.live >= last).await;
    let view = two.view();
    let shown: Vec<String> =
        view.mesh.services.values().flat_map(|state| state.addresses.clone()).map(|a| a.to_string()).collect();
    assert_eq!(shown.len(), shown.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(shown.len(), 2 * view.mesh.services.len());
    assert_eq!(view.mesh, one.view().mesh);
}

/// One change of a large mesh, from the commit to the view that shows it. The bound is that of a release, with the pause in which
/// a change waits for its neighbours; an unoptimised build only shows that it is not read and written as a whole.
#[tokio::test]
async fn a_change_of_a_large_mesh_is_shown_in_milliseconds() {
    use hms_model::http_route::{HttpRoute, HttpRule, Parent};
    let (services, routes) = (1000, 10);
    let route = |of: usize, number: usize, rules: usize| {
        Change::Put(Resource::HttpRoute(HttpRoute {
            name: service(&format!("s{of}-{number}")),
            parents: vec![Parent::Service { service: service(&format!("s{of}")), port: None }],
            hosts: Vec::new(),
            rules: vec![HttpRule::to(Vec::new()); rules],
        }))
    };
    let (registry, _tasks) = fresh().await;
    let declared =
        (0..services).map(|of| Change::Put(Resource::Declaration(Declaration::new(service(&format!("s{of}"))))));
    let led = (0..services).flat_map(|of| (0..routes).map(move |number| (of, number)));
    let all = declared.chain(led.map(|(of, number)| route(of, number, 1))).collect();
    registry.commit("test", all, None).await.unwrap();
    let mut best = Duration::MAX;
    for round in 0..5 {
        let begun = tokio::time::Instant::now();
        registry.commit("test", vec![route(round, 0, 2)], None).await.unwrap();
        best = best.min(begun.elapsed());
        let view = registry.view();
        assert_eq!(view.mesh.services[&service(&format!("s{round}"))].service.http[0].rules.len(), 2);
    }
    println!("figure: a change among {services} services x {routes} routes is shown after {best:?}");
    let bound = if cfg!(debug_assertions) { 1000 } else { 100 };
    assert!(best.as_millis() <= bound, "{best:?}");
}
