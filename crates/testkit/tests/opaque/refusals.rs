//! Who gets no connection, and how that shows: the caller sees a reset, the code stands in the log and the series.

use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::http1::End;
use hms_testkit::scenario;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::tcp::{Caller, GREETING, Manner, TcpApp};

use crate::stack::{Stack, caller};

/// Waits until one line of a proxy's log has all of these.
async fn until_logged(proxy: &Proxy, words: &[&str]) {
    hms_testkit::wait::until("it is logged", Duration::from_secs(10), || async {
        let log = proxy.process.output();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
}

#[test]
fn a_port_with_routes_is_never_passed_on_unread() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{routes: [GET /*]}", Manner::Greet).await;
        let before = stack.app.bytes();
        for first in [&[0_u8][..], b"EHLO a\r\n", &[0x16, 3, 1, 0, 5], b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
            let mut caller = stack.connect().await;
            assert!(caller.send(first).await);
            let (told, _) = caller.rest().await;
            assert!(!told.starts_with(GREETING), "{}", told.escape_ascii());
        }
        assert_eq!(stack.app.bytes(), before, "something reached the application unread");
    });
}

#[test]
fn rules_about_requests_let_nobody_in_and_rules_about_callers_do() {
    scenario(Duration::from_mins(3), async {
        let mesh = |rule: &str| {
            format!(
                "services: {{db: {{protocol: tcp}}, portal: {{}}, stranger: {{}}}}\nallow: [{{from: portal, to: db{rule}}}]"
            )
        };
        let stack = Stack::start_with(&mesh(""), Manner::Greet).await;
        let mut allowed = stack.connect().await;
        assert_eq!(allowed.read(GREETING.len()).await.as_deref(), Ok(GREETING));
        let (stranger, pinned) = caller(&stack.mesh, "stranger").await;
        let mut denied = Caller::connect(pinned).await;
        assert_eq!(denied.rest().await, (Vec::new(), End::Broken));
        until_logged(&stranger, &["\"code\":\"HMS-3201\""]).await;

        let stack = Stack::start_with(&mesh(", routes: [GET /x]"), Manner::Greet).await;
        let mut denied = stack.connect().await;
        assert_eq!(denied.rest().await, (Vec::new(), End::Broken));
        stack.until_counted("istio_tcp_connections_closed_total", &["response_flags=\"RBAC\""], 1.0).await;
    });
}

#[test]
fn a_dead_application_costs_no_connection_while_another_lives() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Greet).await;
        let second = TcpApp::start(Manner::Greet).await;
        let _server = Proxy::start(&stack.mesh, Plan::of("db", second.address()).workload("2")).await;
        let (_client, pinned) = caller(&stack.mesh, "stranger").await;
        let greeted = async || {
            let mut caller = Caller::connect(pinned).await;
            caller.read(GREETING.len()).await.is_ok_and(|said| said == GREETING)
        };
        let one = second.taken();
        while second.taken() == one {
            assert!(greeted().await, "with both");
        }
        let Stack { app, .. } = stack;
        let address = app.address();
        drop(app);
        hms_testkit::wait::until("it is gone", Duration::from_secs(5), || async {
            tokio::net::TcpStream::connect(address).await.map_or(Ok(()), |_| Err("it listens".to_owned()))
        })
        .await;
        for number in 0..20 {
            assert!(greeted().await, "connection {number}, with one");
        }
    });
}

#[test]
fn without_an_application_a_caller_is_refused_in_the_words_it_speaks() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{}", Manner::Greet).await;
        let Stack { app, client, pinned, mesh: _mesh, server: _server, .. } = stack;
        let address = app.address();
        drop(app);
        hms_testkit::wait::until("it is gone", Duration::from_secs(5), || async {
            tokio::net::TcpStream::connect(address).await.map_or(Ok(()), |_| Err("it listens".to_owned()))
        })
        .await;
        let mut silent = Caller::connect(pinned).await;
        assert_eq!(silent.rest().await, (Vec::new(), End::Broken));
        let answer = Http::plain(pinned).get("/x").await.expect("an answer");
        assert_eq!(answer.status, 503, "{}", answer.text());
        until_logged(&client, &["\"protocol\":\"tcp\"", "\"code\":\"HMS-30"]).await;
    });
}
