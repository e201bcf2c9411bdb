//! Long streams, half-closed ones, slow ones, silent ones.

use std::time::Duration;

use hms_testkit::http1::End;
use hms_testkit::processes::resident_kib;
use hms_testkit::settings::full_size;
use hms_testkit::tcp::{Caller, GREETING, Manner, Sum};
use hms_testkit::{figure, scenario, wait};
use tokio::io::AsyncWriteExt as _;

use crate::stack::Stack;

/// Memory that a stream of any length may cost a proxy.
const STREAM_KIB: u64 = 8 * 1024;

fn piece(number: usize) -> Vec<u8> {
    (0..64 * 1024).map(|at| u8::try_from((at * 31 + number * 7 + at / 256) % 256).unwrap()).collect()
}

#[test]
fn a_long_stream_arrives_whole_and_its_answer_comes_after_its_end() {
    scenario(Duration::from_mins(10), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Sum).await;
        let pieces = if full_size() { 16 * 1024 } else { 512 };
        let (client, server) = (stack.client.process.pid(), stack.server.process.pid());
        let before = (resident_kib(client), resident_kib(server));
        let mut caller = stack.connect().await;
        let mut sum = Sum::default();
        for number in 0..pieces {
            let piece = piece(number);
            sum.add(&piece);
            assert!(caller.send(&piece).await, "piece {number}");
        }
        let grown = [resident_kib(client).saturating_sub(before.0), resident_kib(server).saturating_sub(before.1)];
        caller.finish().await;
        let (answer, end) = caller.rest().await;
        assert_eq!((String::from_utf8(answer).unwrap(), end), (format!("{sum:?}"), End::Clean));
        figure("memory of a long stream, KiB", format!("{grown:?}"));
        assert!(grown.iter().all(|grown| *grown <= STREAM_KIB), "{grown:?} KiB");
    });
}

#[test]
fn a_server_that_does_not_read_stops_its_caller_and_no_proxy_fills_up() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Hang).await;
        let before = resident_kib(stack.client.process.pid());
        let mut caller = stack.connect().await;
        let mut sent = 0;
        let flood = piece(0);
        while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(2), caller.0.write(&flood)).await {
            sent += length;
            assert!(sent < 256 << 20, "nothing stops the caller");
        }
        let grown = resident_kib(stack.client.process.pid()).saturating_sub(before);
        figure("sent to a server that does not read, KiB", sent / 1024);
        assert!(grown <= STREAM_KIB, "{grown} KiB");
    });
}

#[test]
fn the_last_words_of_a_server_that_leaves_reach_a_caller_that_goes_on_talking() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Leave).await;
        for _ in 0..20 {
            let mut caller = stack.connect().await;
            let _taken_or_not = caller.send(b"more and more").await;
            assert_eq!(caller.read(GREETING.len()).await.as_deref(), Ok(GREETING));
        }
    });
}

#[test]
fn a_caller_that_breaks_off_is_no_end_in_order() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Sum).await;
        let caller = stack.connect().await;
        rustix::net::sockopt::set_socket_linger(&caller.0, Some(Duration::ZERO)).unwrap();
        let mut caller = caller;
        assert!(caller.send(b"half of it").await);
        wait::until("the application's proxy has it", Duration::from_secs(10), || async {
            let metrics = stack.server.metrics().await;
            let had = metrics.sum("istio_tcp_received_bytes_total", &["reporter=\"destination\""]);
            if had >= 10.0 { Ok(()) } else { Err(metrics.text().to_owned()) }
        })
        .await;
        drop(caller);
        stack.until_counted("istio_tcp_connections_closed_total", &["response_flags=\"DC\""], 1.0).await;
        assert_eq!(stack.app.bytes(), 0, "what broke off was taken for whole");
    });
}

#[test]
fn connections_that_are_silent_hold_no_buffers() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start("{protocol: tcp}", Manner::Echo).await;
        let count = if full_size() { 900 } else { 300 };
        let mut warm = stack.connect().await;
        assert!(warm.send(b"warm").await && warm.read(4).await.is_ok());
        let (client, server) = (stack.client.process.pid(), stack.server.process.pid());
        let before = resident_kib(client) + resident_kib(server);
        let mut callers = Vec::new();
        for _ in 0..count {
            let mut caller = stack.connect().await;
            assert!(caller.send(b"word").await && caller.read(4).await.is_ok());
            callers.push(caller);
        }
        let each = (resident_kib(client) + resident_kib(server)).saturating_sub(before) / count;
        figure("a silent connection through two proxies, KiB", each);
        assert!(each <= 64, "{each} KiB each");
        for caller in &mut callers {
            assert!(caller.send(b"again").await);
            assert_eq!(caller.read(5).await.as_deref(), Ok(b"again".as_slice()));
        }
    });
}

#[test]
fn a_stream_that_outlives_the_drain_is_broken_off_and_not_ended() {
    scenario(Duration::from_mins(2), async {
        let mut stack = Stack::start("{protocol: tcp}", Manner::Echo).await;
        let mut caller: Caller = stack.connect().await;
        assert!(caller.send(b"word").await && caller.read(4).await.is_ok());
        let ending = tokio::time::Instant::now();
        let code = stack.client.process.terminate().await;
        figure("drain with an open stream, ms", ending.elapsed().as_millis());
        assert_eq!(code, Some(0));
        assert_eq!(caller.rest().await.1, End::Broken);
    });
}
