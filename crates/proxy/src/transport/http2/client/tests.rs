use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::*;

const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
/// A frame that means nothing.
const PRIORITY: &[u8] = b"\0\0\x05\x02\0\0\0\0\x03\0\0\0\0\x01";
const SETTINGS_ACK: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";

fn on_paused_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

async fn connected(liveness: Liveness) -> (Connection, DuplexStream) {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let connection = Connection::new(ours, None, liveness).await.unwrap();
    theirs.write_all(SETTINGS).await.unwrap();
    theirs.write_all(SETTINGS_ACK).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    (connection, theirs)
}

#[test]
fn a_dead_peer_is_noticed_within_15_seconds() {
    on_paused_time(async {
        let (mut connection, _silent) = connected(Liveness::Asked).await;
        assert!(connection.is_open());
        let begun = Instant::now();
        while connection.is_open() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(begun.elapsed() <= Duration::from_millis(15_200), "{:?}", begun.elapsed());
    });
}

#[test]
fn a_peer_that_answers_is_kept_and_one_that_must_not_be_asked_is_not() {
    on_paused_time(async {
        let (mut connection, peer) = connected(Liveness::Asked).await;
        let (mut reading, mut writing) = tokio::io::split(peer);
        let _answering = tokio::task::spawn_local(async move {
            let mut preface = [0; 24];
            reading.read_exact(&mut preface).await.unwrap();
            let mut head = [0; 9];
            while reading.read_exact(&mut head).await.is_ok() {
                let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
                reading.read_exact(&mut payload).await.unwrap();
                if head[3] == 6 && head[4] == 0 {
                    head[4] = 1;
                    writing.write_all(&[&head[..], &payload].concat()).await.unwrap();
                }
            }
        });
        let (mut assumed, mut plain) = connected(Liveness::Assumed).await;
        tokio::time::sleep(Duration::from_mins(10)).await;
        assert!(connection.is_open() && assumed.is_open());
        let mut sent = vec![0; 4096];
        let length = plain.read(&mut sent).await.unwrap();
        assert!(!sent[..length].windows(5).any(|head| head == [0, 0, 8, 6, 0]), "no PING");
    });
}

#[test]
fn a_connection_that_was_told_to_go_takes_no_requests() {
    on_paused_time(async {
        let (mut connection, mut peer) = connected(Liveness::Assumed).await;
        assert!(connection.is_open() && connection.has_room());
        peer.write_all(b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!connection.is_open());
    });
}

#[test]
fn an_upstream_that_floods_is_left() {
    on_paused_time(async {
        let (mut connection, mut peer) = connected(Liveness::Assumed).await;
        peer.write_all(&SETTINGS_ACK.repeat(30_000)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!connection.is_open());
    });
}

#[test]
fn a_peer_that_talks_but_never_answers_is_alive_until_it_is_silent() {
    on_paused_time(async {
        let (mut connection, mut peer) = connected(Liveness::Asked).await;
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_mins(1) {
            tokio::time::sleep(Duration::from_secs(12)).await;
            // Longer than the silence before the question, shorter than the time for the answer.
            peer.write_all(PRIORITY).await.unwrap();
            assert!(connection.is_open(), "{:?}", begun.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20_100)).await;
        assert!(!connection.is_open());
    });
}
