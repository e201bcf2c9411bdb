use futures_util::FutureExt as _;
use hms_wire::proto::hms::v1::{control_message, proxy_message};

use super::*;

fn hello(id: &str) -> ProxyHello {
    ProxyHello {
        id: id.to_owned(),
        role: Role::Sidecar,
        release: "0".to_owned(),
        level: 1,
        admin: None,
        process: 0,
        identity: SpiffeId::parse("spiffe://k3.hms/ns/default/sa/calc-svc").unwrap(),
    }
}

fn calc() -> ServiceName {
    ServiceName::new("calc-svc").unwrap()
}

fn named(service: &ServiceName) -> v1::ServiceName {
    v1::ServiceName { namespace: service.namespace().to_owned(), name: service.name().to_owned() }
}

fn event(source: &str, destination: &str) -> v1::TapEvent {
    v1::TapEvent { source: source.to_owned(), destination: destination.to_owned(), ..v1::TapEvent::default() }
}

#[tokio::test(start_paused = true)]
async fn a_breaker_counts_down_between_reports_and_goes_with_its_proxy() {
    let live = Live::new();
    let (session, _messages) = live.connect(hello("a"));
    session.report(proxy_message::Kind::Breaker(v1::BreakerState {
        service: Some(named(&calc())),
        phase: v1::BreakerPhase::Open.into(),
        reason: "3 x connect refused\n".to_owned(),
        next_probe_ms: 30_000,
        endpoints: vec![v1::EndpointState::default()],
    }));
    tokio::time::advance(Duration::from_secs(12)).await;
    let reports = live.breakers(Some(&calc()));
    assert_eq!((reports[0].phase, reports[0].reason.as_str()), (BreakerPhase::Open, "3 x connect refused"));
    assert_eq!(reports[0].next_probe, Some(Duration::from_secs(18)));
    drop(session);
    assert_eq!(live.breakers(None), []);
}

#[tokio::test]
async fn a_tap_starts_reporting_with_the_first_reader_and_stops_with_the_last() {
    let live = Live::new();
    let (session, mut messages) = live.connect(hello("a"));
    let mut tap = live.tap(Some(&calc()));
    let other = live.tap(None);
    assert!(matches!(messages.recv().await.unwrap().kind, Some(control_message::Kind::TapStart(_))));
    let events = vec![event("x", "y"), event("hello-svc", "calc-svc")];
    session.report(proxy_message::Kind::Tap(v1::TapEvents { events, dropped: 3 }));
    let item = tap.next().await.unwrap();
    assert_eq!((item.event.destination.as_str(), item.dropped), ("calc-svc", 3));
    drop(tap);
    assert!(messages.try_recv().is_err());
    drop(other);
    assert!(matches!(messages.recv().await.unwrap().kind, Some(control_message::Kind::TapStop(_))));
}

#[tokio::test]
async fn a_proxy_that_comes_while_somebody_looks_is_told_to_report() {
    let live = Live::new();
    let _tap = live.tap(None);
    let (_session, mut messages) = live.connect(hello("a"));
    assert!(matches!(messages.recv().await.unwrap().kind, Some(control_message::Kind::TapStart(_))));
}

#[tokio::test(start_paused = true)]
async fn a_rotation_tells_who_did_who_did_not_and_why() {
    let live = Live::new();
    let (quick, mut messages) = live.connect(hello("quick"));
    let (_mute, _unread) = live.connect(hello("mute"));
    let answer = async {
        let Some(control_message::Kind::Rotate(rotate)) = messages.recv().await.unwrap().kind else { panic!() };
        assert_eq!(rotate.validity_seconds, 3600);
        quick.report(proxy_message::Kind::Certificate(v1::CertificateState {
            identity: "spiffe://k3.hms/ns/default/sa/calc-svc".to_owned(),
            serial: "2a".to_owned(),
            ..v1::CertificateState::default()
        }));
        quick.report(proxy_message::Kind::Rotated(v1::Rotated { request_id: rotate.request_id, error: String::new() }));
    };
    let service = calc();
    let (views, ()) = tokio::join!(live.rotate(Some(&service), Duration::from_hours(1)), answer);
    assert_eq!((views[1].serial.as_deref(), &views[1].error), (Some("2a"), &None));
    assert!(views[0].error.as_deref().unwrap().contains("10 seconds"));
}

#[test]
fn a_second_session_of_a_proxy_replaces_the_first() {
    let live = Live::new();
    let (first, _first_messages) = live.connect(hello("a"));
    let (second, _second_messages) = live.connect(hello("a"));
    drop(first);
    assert_eq!(live.proxies().len(), 1, "the end of the former does not end the latter");
    drop(second);
    assert_eq!(live.proxies().len(), 0);
}

#[test]
fn a_proxy_reports_its_own_certificate_only() {
    let live = Live::new();
    let (session, _messages) = live.connect(hello("a"));
    let foreign = "spiffe://k3.hms/ns/default/sa/other".to_owned();
    session.report(proxy_message::Kind::Certificate(v1::CertificateState {
        identity: foreign,
        ..v1::CertificateState::default()
    }));
    assert_eq!(live.certificates(), []);
}

#[tokio::test]
async fn a_revision_has_arrived_when_every_subscriber_has_it_or_has_gone() {
    let live = Live::new();
    let key = |id: &str| (hello(id).identity, id.to_owned());
    let (a, b) = (live.subscriber_began(&key("a")), live.subscriber_began(&key("b")));
    live.subscriber_reached(&key("a"), a, Some(7), None);
    let mut all = Box::pin(live.all_reached(7));
    assert!(all.as_mut().now_or_never().is_none(), "b has nothing");
    let late = live.subscriber_began(&key("late"));
    live.subscriber_reached(&key("b"), b, Some(6), None);
    assert!(all.as_mut().now_or_never().is_none());
    live.subscriber_ended(&key("b"), b);
    assert!(all.as_mut().now_or_never().is_some(), "nobody waits for who came later");
    live.subscriber_ended(&key("late"), late);
    live.all_reached(7).await;
}
