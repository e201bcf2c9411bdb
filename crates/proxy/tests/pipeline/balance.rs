//! Where requests go when more is said of it than one word.

use std::time::Duration;

use bytes::Bytes;
use hms_model::policy::{Affinity, Algorithm, Balance, HashKey, TrafficPolicy, Zones};
use hms_model::workload::Health;
use http::{HeaderName, Method, StatusCode};

use crate::quick;
use crate::stage::{self, Answer, Answered, Prepared, Stage, Upstream};

const USER: HeaderName = HeaderName::from_static("x-user");
const COOKIE: HeaderName = HeaderName::from_static("cookie");

fn policy(balance: Balance) -> TrafficPolicy {
    TrafficPolicy { balance, ..quick() }
}

/// That many endpoints that always answer.
async fn endpoints(count: usize) -> Vec<Upstream> {
    let mut upstreams = Vec::new();
    for _ in 0..count {
        upstreams.push(Upstream::start(|_| Answer::Status(200)).await);
    }
    upstreams
}

fn prepared(balance: &Balance, upstreams: &[Upstream]) -> Prepared {
    Stage::new().service("calc-svc", policy(balance.clone()), &upstreams.iter().collect::<Vec<_>>())
}

async fn call(stage: &Stage, name: HeaderName, value: &str) -> Answered {
    let line = [(name.as_str(), value)];
    let lines = if value.is_empty() { &[] } else { &line[..] };
    let answer = stage.call_with(Method::GET, "calc-svc", "/", lines, Bytes::new()).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer
}

/// The endpoint that a call with a field goes to.
async fn goes_to(stage: &Stage, upstreams: &[Upstream], name: HeaderName, value: &str) -> usize {
    let before: Vec<usize> = upstreams.iter().map(Upstream::count).collect();
    call(stage, name, value).await;
    upstreams.iter().zip(before).position(|(own, before)| own.count() > before).expect("somebody was called")
}

#[test]
fn equal_keys_go_to_one_endpoint_and_to_the_next_in_line_while_that_is_unusable() {
    stage::run(async {
        for algorithm in [Algorithm::RingHash(HashKey::Header(USER)), Algorithm::Maglev(HashKey::Header(USER))] {
            let upstreams = endpoints(5).await;
            let prepared = || prepared(&algorithm.clone().into(), &upstreams);
            let stage = prepared().build();
            let users: Vec<String> = (0..60).map(|user| format!("user-{user}")).collect();
            let mut homes = Vec::new();
            for user in &users {
                let home = goes_to(&stage, &upstreams, USER, user).await;
                assert_eq!(goes_to(&stage, &upstreams, USER, user).await, home, "the second time too");
                homes.push(home);
            }
            assert!((0..5).all(|index| homes.contains(&index)), "{homes:?}");
            let gone = homes.first().copied().expect("a home");
            stage.learn(&prepared().each_endpoint(|own| {
                if own.id == gone.to_string() {
                    own.health = Health::Unhealthy;
                }
            }));
            for (user, home) in users.iter().zip(&homes) {
                let now = goes_to(&stage, &upstreams, USER, user).await;
                assert!(if *home == gone { now != gone } else { now == *home }, "{user}: {home}, now {now}");
            }
            stage.learn(&prepared());
            for (user, home) in users.iter().zip(&homes) {
                assert_eq!(goes_to(&stage, &upstreams, USER, user).await, *home, "and back");
            }
        }
    });
}

#[test]
fn another_try_goes_to_the_next_endpoint_of_the_key() {
    stage::run(async {
        let mut upstreams = endpoints(3).await;
        upstreams.push(Upstream::start(|_| Answer::Status(500)).await);
        let balance = Algorithm::RingHash(HashKey::Header(USER)).into();
        let stage = prepared(&balance, &upstreams).build();
        // Ten retries a second are always within the budget, and it has a quarter of the keys.
        for user in 0..20 {
            call(&stage, USER, &format!("user-{user}")).await;
        }
        assert!(upstreams.last().is_some_and(|own| own.count() > 0), "it has keys, and each call was answered");
    });
}

#[test]
fn a_request_without_a_key_goes_anywhere() {
    stage::run(async {
        let upstreams = endpoints(3).await;
        let stage = prepared(&Algorithm::Maglev(HashKey::Header(USER)).into(), &upstreams).build();
        for _ in 0..100 {
            call(&stage, USER, "").await;
        }
        assert!(upstreams.iter().all(|own| own.count() > 0));
    });
}

#[test]
fn a_session_stays_with_its_endpoint_and_moves_with_a_new_cookie_when_that_is_gone() {
    stage::run(async {
        let upstreams = endpoints(4).await;
        let ttl = Some(Duration::from_hours(1));
        let affinity = Some(Affinity::Cookie { name: "sid".to_owned(), ttl });
        let balance = Balance { affinity, ..Algorithm::RoundRobin.into() };
        let prepared = || prepared(&balance, &upstreams);
        let stage = prepared().build();
        let set = call(&stage, COOKIE, "").await.field("set-cookie").expect("a cookie");
        let (sid, attributes) = set.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
        let value = sid.strip_prefix("sid=").expect("the name");
        assert!(value.len() == 16 && !value.contains("127"), "opaque: {value}");
        let with = format!("theme=dark; {sid}");
        let home = goes_to(&stage, &upstreams, COOKIE, &with).await;
        for _ in 0..10 {
            assert_eq!(goes_to(&stage, &upstreams, COOKIE, &with).await, home);
            assert_eq!(call(&stage, COOKIE, &with).await.field("set-cookie"), None, "it has one already");
        }
        stage.learn(&prepared().each_endpoint(|own| {
            if own.id == home.to_string() {
                own.health = Health::Unhealthy;
            }
        }));
        let moved = call(&stage, COOKIE, &with).await.field("set-cookie").expect("a new cookie");
        let moved = moved.split_once("; ").expect("attributes").0;
        assert_ne!(moved, sid);
        let other = goes_to(&stage, &upstreams, COOKIE, moved).await;
        assert_ne!(other, home);
        stage.learn(&prepared());
        assert_eq!(goes_to(&stage, &upstreams, COOKIE, moved).await, other, "it does not move back");
        let forged = call(&stage, COOKIE, "sid=0123456789abcdef").await.field("set-cookie");
        assert!(forged.is_some(), "a token of nobody is replaced");
    });
}

#[test]
fn a_session_by_header_is_told_and_taken_in_that_header() {
    stage::run(async {
        let upstreams = endpoints(4).await;
        let session = HeaderName::from_static("x-session");
        let balance = Balance { affinity: Some(Affinity::Header(session.clone())), ..Algorithm::Random.into() };
        let stage = prepared(&balance, &upstreams).build();
        let token = call(&stage, session.clone(), "").await.field("x-session").expect("a token");
        let home = goes_to(&stage, &upstreams, session.clone(), &token).await;
        for _ in 0..10 {
            assert_eq!(goes_to(&stage, &upstreams, session.clone(), &token).await, home);
        }
        assert_eq!(call(&stage, session, &token).await.field("x-session"), None);
    });
}

#[test]
fn calls_stay_in_the_zone_until_it_lacks_endpoints_and_never_fail_for_that() {
    stage::run(async {
        let upstreams = endpoints(4).await;
        let balance = Balance { zones: Zones::Prefer, ..Balance::default() };
        // Endpoints 0 and 1 are in the caller's zone, 2 and 3 in another; of the first `usable` can be called.
        let prepared = |usable: usize| {
            prepared(&balance, &upstreams).zone("a").each_endpoint(|own| {
                let index: usize = own.id.parse().expect("a number");
                own.zone = if index < 2 { "a" } else { "b" }.to_owned();
                own.health = if index < 2 && index >= usable { Health::Unhealthy } else { Health::Healthy };
            })
        };
        let stage = prepared(2).build();
        let far = || upstreams.iter().skip(2).map(Upstream::count).sum::<usize>();
        for _ in 0..100 {
            call(&stage, USER, "").await;
        }
        assert_eq!(far(), 0, "all stay");
        stage.learn(&prepared(1));
        for _ in 0..300 {
            call(&stage, USER, "").await;
        }
        // One of two is 70 % by 1.4; five deviations of 300 are 40.
        assert!(far().abs_diff(90) < 40, "{} of 300 left the zone", far());
        let before = far();
        stage.learn(&prepared(0));
        for _ in 0..50 {
            call(&stage, USER, "").await;
        }
        assert_eq!(far() - before, 50, "and none is left");
    });
}

#[test]
fn a_failed_try_in_the_own_zone_goes_to_another_zone() {
    stage::run(async {
        let (bad, good) =
            (Upstream::start(|_| Answer::Status(500)).await, Upstream::start(|_| Answer::Status(200)).await);
        let balance = Balance { zones: Zones::Prefer, ..Balance::default() };
        let upstreams = [bad, good];
        let stage = prepared(&balance, &upstreams).zone("a");
        let stage = stage.each_endpoint(|own| own.zone = if own.id == "0" { "a" } else { "b" }.to_owned()).build();
        for _ in 0..10 {
            call(&stage, USER, "").await;
        }
        assert_eq!(upstreams.each_ref().map(Upstream::count), [10, 10]);
    });
}

#[test]
fn an_endpoint_that_is_new_begins_with_a_tenth_of_its_share() {
    stage::run(async {
        let upstreams = endpoints(3).await;
        for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
            // So long that its share is the same during the test.
            let balance = Balance { slow_start: Duration::from_hours(1), ..algorithm.clone().into() };
            let before: Vec<usize> = upstreams.iter().map(Upstream::count).collect();
            let stage = prepared(&balance, upstreams.get(..2).expect("two")).build();
            stage.learn(&prepared(&balance, &upstreams));
            for _ in 0..300 {
                call(&stage, USER, "").await;
            }
            let counts: Vec<usize> = upstreams.iter().zip(before).map(|(own, before)| own.count() - before).collect();
            let new = counts.last().copied().expect("a third");
            // Ten are its part. By load it may win whenever it is let in, which is a tenth of the time.
            assert!((1..50).contains(&new), "{algorithm:?}: {counts:?}");
        }
    });
}
