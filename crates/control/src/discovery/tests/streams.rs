use super::*;

fn service(text: &str) -> Scope {
    Scope::Service(name(text))
}

fn names(update: &Update) -> Vec<&str> {
    update.upserts.iter().map(|upsert| upsert.name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_gets_what_it_asked_for_and_then_only_what_changes() {
    let mesh = Fixture::new().await;
    mesh.register("calc-svc", 1).await;
    let channel = mesh.channel(Some(mesh.identity("default", "hello-svc"))).await;
    let mut proxy = Subscriber::open(channel, "p", [Scope::Mesh, service("calc-svc")]).await.unwrap();
    let first = proxy.update(Vec::new()).await.unwrap();
    let expected = [
        "defaults/mesh/mesh",
        "entry/default/calc-svc",
        "service/default/calc-svc",
        "endpoint/default/calc-svc/1",
        "egress/mesh/mesh",
    ];
    assert_eq!(names(&first), expected);
    let began = Instant::now();
    let revision = mesh.register("calc-svc", 2).await;
    let second = proxy.update(Vec::new()).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
    assert_eq!((names(&second), &second.revision), (vec!["endpoint/default/calc-svc/1"], &revision.to_string()));
    mesh.registry.remove("test", &name("calc-svc"), "1").await.unwrap();
    let third = proxy.update(Vec::new()).await.unwrap();
    assert_eq!(third.removed, ["endpoint/default/calc-svc/1"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_resource_is_shown_and_does_not_hold_up_the_others() {
    let mesh = Fixture::new().await;
    mesh.register("calc-svc", 1).await;
    let identity = mesh.identity("default", "hello-svc");
    let mut control = Attached::open(mesh.channel(Some(identity.clone())).await, "p", Role::Sidecar).await.unwrap();
    control.register("hello-svc", "10.0.0.7", v1::Health::Healthy).await.unwrap();
    let mut proxy = Subscriber::open(mesh.channel(Some(identity)).await, "p", [service("calc-svc")]).await.unwrap();
    let refused = v1::RefusedResource {
        name: "endpoint/default/calc-svc/1".to_owned(),
        reason: "no".to_owned(),
        ..v1::RefusedResource::default()
    };
    proxy.update(vec![refused]).await.unwrap();
    mesh.register("calc-svc", 2).await;
    let next = proxy.receive().await.unwrap();
    assert_eq!(names(&next), ["endpoint/default/calc-svc/1"]);
    let view = mesh.live.proxies().remove(0);
    assert_eq!(view.service, Some(name("hello-svc")));
    assert_eq!((view.refused[0].name.as_str(), view.refused[0].reason.as_str()), ("endpoint/default/calc-svc/1", "no"));
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_has_reached_follows_also_when_it_is_not_concerned() {
    let mesh = Fixture::new().await;
    let identity = mesh.identity("default", "hello-svc");
    let _control = Attached::open(mesh.channel(Some(identity.clone())).await, "p", Role::Sidecar).await.unwrap();
    mesh.register("calc-svc", 1).await;
    let mut proxy = Subscriber::open(mesh.channel(Some(identity)).await, "p", [service("calc-svc")]).await.unwrap();
    proxy.update(Vec::new()).await.unwrap();
    let revision = mesh.register("other-svc", 1).await;
    // The stream tells on its own time; nothing is sent that could be waited for.
    while mesh.live.proxies().first().and_then(|view| view.acknowledged) != Some(revision) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_not_recognised_is_turned_away() {
    let mesh = Fixture::new().await;
    let strangers = [
        Caller::Remote { ip: [127, 0, 0, 1].into(), identity: None },
        Caller::Process { process: std::process::id(), user: 0xffff },
    ];
    for caller in strangers {
        let (channel, _) = mesh.channel_of(caller.clone()).await;
        let refused = Subscriber::open(channel, "p", [Scope::Mesh]).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{caller:?}");
        let (channel, _) = mesh.channel_of(caller.clone()).await;
        let refused = Attached::open(channel, "p", Role::Sidecar).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{caller:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_is_recognised_from_the_moment_it_is_attested() {
    let mesh = Fixture::new().await;
    let own = Caller::Process { process: std::process::id(), user: nix::unistd::geteuid().as_raw() };
    let (channel, _) = mesh.channel_of(own).await;
    let early = Attached::open(channel.clone(), "p", Role::Sidecar).await.map(|_| ()).unwrap_err();
    assert_eq!(early.code(), Code::Unauthenticated);
    let identity = mesh.identity("default", "calc-svc");
    mesh.services.attestations.attest(std::process::id(), identity, Role::Sidecar).unwrap();
    let mut control = Attached::open(channel, "p", Role::Sidecar).await.unwrap();
    let answer = control.register("calc-svc", "127.0.0.1", v1::Health::Healthy).await.unwrap();
    assert!(matches!(answer, control_message::Kind::Registered(_)), "{answer:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_does_not_get_what_is_a_gateways() {
    let mesh = Fixture::new().await;
    let sidecar = mesh.channel(Some(mesh.identity("default", "calc-svc"))).await;
    let mut proxy = Subscriber::open(sidecar.clone(), "p", [Scope::Gateway]).await.unwrap();
    assert_eq!(proxy.receive().await.unwrap_err().code(), Code::PermissionDenied);
    let mut control = Attached::open(sidecar, "p", Role::Gateway).await.unwrap();
    assert_eq!(control.answer().await.unwrap_err().code(), Code::PermissionDenied);
    let gateway = mesh.channel(Some(mesh.identity(SYSTEM_NAMESPACE, GATEWAY))).await;
    let mut proxy = Subscriber::open(gateway, "g", [Scope::Gateway]).await.unwrap();
    assert_eq!(names(&proxy.update(Vec::new()).await.unwrap()), ["gateway/mesh/mesh"]);
}

#[tokio::test(start_paused = true)]
async fn a_workload_is_there_while_its_stream_is() {
    let mesh = Fixture::new().await;
    let identity = mesh.identity("default", "calc-svc");
    let (channel, frozen) =
        mesh.channel_of(Caller::Remote { ip: [10, 0, 0, 7].into(), identity: Some(identity) }).await;
    let mut control = Attached::open(channel, "p", Role::Sidecar).await.unwrap();
    let refused = control.register("calc-svc", "10.0.0.8", v1::Health::Healthy).await.unwrap();
    assert!(matches!(refused, control_message::Kind::Refused(r) if r.code == "HMS-2311"), "not its own address");
    control.register("calc-svc", "10.0.0.7", v1::Health::Healthy).await.unwrap();
    let present = |view: &View| view.mesh.services.get(&name("calc-svc")).is_some_and(|s| !s.endpoints.is_empty());
    mesh.until(present).await;
    // Long after, still there without a word: pings hold the connection.
    let gone = tokio::time::timeout(Duration::from_mins(2), mesh.until(|view| !present(view))).await;
    assert!(gone.is_err(), "it left while its stream was open");
    frozen.store(true, Ordering::Relaxed);
    let began = Instant::now();
    mesh.until(|view| !present(view)).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(mesh.live.proxies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_drains_and_ends_leaves_at_once() {
    let mesh = Fixture::new().await;
    let channel = mesh.channel(Some(mesh.identity("default", "calc-svc"))).await;
    let mut control = Attached::open(channel, "p", Role::Sidecar).await.unwrap();
    control.register("calc-svc", "10.0.0.7", v1::Health::Healthy).await.unwrap();
    control.register("calc-svc", "10.0.0.7", v1::Health::Draining).await.unwrap();
    let began = Instant::now();
    drop(control);
    mesh.until(|view| view.mesh.services.get(&name("calc-svc")).is_some_and(|s| s.endpoints.is_empty())).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_stalls_is_dropped_and_holds_up_nobody() {
    let mesh = Fixture::new().await;
    mesh.register("calc-svc", 1).await;
    let identity = || Some(mesh.identity("default", "hello-svc"));
    let mut stalled = Subscriber::open(mesh.channel(identity()).await, "s", [service("calc-svc")]).await.unwrap();
    let mut quick = Subscriber::open(mesh.channel(identity()).await, "q", [service("calc-svc")]).await.unwrap();
    let began = Instant::now();
    stalled.receive().await.unwrap();
    quick.update(Vec::new()).await.unwrap();
    mesh.register("calc-svc", 2).await;
    quick.update(Vec::new()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(stalled.receive().await.unwrap_err().code(), Code::DeadlineExceeded);
    let after = began.elapsed();
    assert!(after >= STALLED && after < STALLED + Duration::from_secs(5), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn nonsense_ends_the_stream_with_a_precise_code() {
    let mesh = Fixture::new().await;
    let channel = mesh.channel(Some(mesh.identity("default", "a"))).await;
    let mut proxy = Subscriber::open(channel.clone(), "p", [Scope::Mesh]).await.unwrap();
    let never_sent = discovery::DeltaDiscoveryRequest {
        response_nonce: "99".to_owned(),
        ..discovery::DeltaDiscoveryRequest::default()
    };
    proxy.requests.send(never_sent).await.unwrap();
    let end = loop {
        if let Err(status) = proxy.receive().await {
            break status;
        }
    };
    assert_eq!(end.code(), Code::InvalidArgument);
    let (messages, outgoing) = mpsc::channel(1);
    let traffic = proxy_message::Kind::Traffic(v1::Traffic::default());
    messages.send(v1::ProxyMessage { kind: Some(traffic) }).await.unwrap();
    let mut answers = ControlClient::new(channel).attach(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap_err().code(), Code::InvalidArgument, "a report before the hello");
}

#[tokio::test]
async fn a_thousand_subscribers_learn_of_a_move() {
    const PROXIES: usize = 1000;
    // A connection carries ten of them: what is measured is the control plane.
    const PER_CONNECTION: usize = 10;
    let mesh = Fixture::new().await;
    mesh.register("fee-payment", 1).await;
    let (arrived, mut arrivals) = mpsc::channel(PROXIES);
    let mut proxies = Tasks::default();
    for connection in 0..PROXIES / PER_CONNECTION {
        let channel = mesh.channel(Some(mesh.identity("default", "caller"))).await;
        for n in 0..PER_CONNECTION {
            let id = format!("{connection}-{n}");
            let (channel, arrived) = (channel.clone(), arrived.clone());
            proxies.spawn("proxy", async move {
                let mut proxy = Subscriber::open(channel, &id, [Scope::Mesh, service("fee-payment")]).await.unwrap();
                while let Ok(update) = proxy.update(Vec::new()).await {
                    arrived.send(update.revision).await.unwrap();
                }
            });
        }
    }
    for _ in 0..PROXIES {
        arrivals.recv().await.unwrap();
    }
    let began = Instant::now();
    let revision = mesh.register("fee-payment", 2).await.to_string();
    for _ in 0..PROXIES {
        assert_eq!(arrivals.recv().await.unwrap(), revision);
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    println!("{PROXIES} subscribers learned of a move within {took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_refuses_stands_in_the_status_of_what_it_refuses() {
    use hms_model::resource::{Declaration, Resource};
    use hms_model::split::{Share, Split};

    use crate::conditions::{self, Proxies};
    use crate::registry::Change;

    let mesh = Fixture::new().await;
    let share = |weight| Share { service: name("calc-svc"), version: String::new(), weight };
    let split = |weight| Resource::Split(Split { service: name("calc-svc"), shares: vec![share(weight)] });
    let calc = Resource::Declaration(Declaration::new(name("calc-svc")));
    mesh.registry.commit("test", vec![Change::Put(calc), Change::Put(split(1))], None).await.unwrap();
    let identity = mesh.identity("default", "hello-svc");
    let mut control = Attached::open(mesh.channel(Some(identity.clone())).await, "p", Role::Sidecar).await.unwrap();
    control.register("hello-svc", "10.0.0.7", v1::Health::Healthy).await.unwrap();
    let mut proxy = Subscriber::open(mesh.channel(Some(identity)).await, "p", [service("calc-svc")]).await.unwrap();
    proxy.update(Vec::new()).await.unwrap();
    let programmed = async |weight: u32| {
        let key = split(weight).key();
        let view = mesh.registry.view();
        let age = mesh.registry.age(&key).unwrap();
        assert_eq!(age.config, view.config);
        let proxies = Proxies::new(mesh.live.reaches());
        let status = conditions::of(&view, &proxies, &split(weight), age, |_| None);
        let [.., programmed] = status.conditions;
        (status.programmed, status.proxies, programmed.reason(), programmed.message)
    };
    let until = async |weight: u32, reason: &str| loop {
        let (have, of, now, words) = programmed(weight).await;
        if now == reason {
            return (have, of, words);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(until(1, "Programmed").await, (1, 1, "1 of 1 proxies have it".to_owned()));
    mesh.registry.commit("test", vec![Change::Put(split(2))], None).await.unwrap();
    let update = proxy.receive().await.unwrap();
    assert_eq!(names(&update), ["service/default/calc-svc"]);
    let (have, of, reason, words) = programmed(2).await;
    assert!((have, of, reason) == (0, 1, "Pending") && words.contains("hello-svc (p) has revision"), "{words}");
    let refused = v1::RefusedResource {
        name: "service/default/calc-svc".to_owned(),
        reason: "needs level 9".to_owned(),
        ..v1::RefusedResource::default()
    };
    let acknowledgement = proxy.client.acknowledge(&update.nonce, vec![refused]).unwrap();
    proxy.requests.send(acknowledgement).await.unwrap();
    let words = "hello-svc (p) refuses service/default/calc-svc (needs level 9)".to_owned();
    assert_eq!(until(2, "Invalid").await, (0, 1, words));
    mesh.registry.commit("test", vec![Change::Put(split(3))], None).await.unwrap();
    proxy.update(Vec::new()).await.unwrap();
    assert_eq!(until(3, "Programmed").await.0, 1);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_asks_for_more_has_not_reached_anything_until_it_has_that() {
    let mesh = Fixture::new().await;
    mesh.register("calc-svc", 1).await;
    let revision = mesh.register("pay-svc", 1).await;
    let identity = mesh.identity("default", "hello-svc");
    let mut control = Attached::open(mesh.channel(Some(identity.clone())).await, "p", Role::Sidecar).await.unwrap();
    control.register("hello-svc", "10.0.0.7", v1::Health::Healthy).await.unwrap();
    let mut proxy = Subscriber::open(mesh.channel(Some(identity)).await, "p", [service("calc-svc")]).await.unwrap();
    proxy.update(Vec::new()).await.unwrap();
    mesh.live.all_reached(revision).await;
    let acknowledged = || mesh.live.reaches().remove(0).acknowledged;
    assert!(acknowledged() >= Some(revision));
    proxy.client.subscribe([service("pay-svc")]);
    proxy.requests.send(proxy.client.next_request().unwrap()).await.unwrap();
    let update = proxy.receive().await.unwrap();
    assert_eq!(names(&update), ["service/default/pay-svc", "endpoint/default/pay-svc/1"]);
    assert_eq!(acknowledged(), None, "of what is new it has nothing yet");
    let acknowledgement = proxy.client.acknowledge(&update.nonce, Vec::new()).unwrap();
    proxy.requests.send(acknowledgement).await.unwrap();
    mesh.live.all_reached(revision).await;
    assert!(acknowledged() >= Some(revision));
}
