use std::cell::Cell;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::transport::tls_stream::Stream;

const HOUR: Duration = Duration::from_hours(1);
const ROOM: usize = 64 * 1024;

#[derive(Default)]
struct Counted {
    up: Cell<usize>,
    down: Cell<usize>,
}

impl Count for Counted {
    fn came(&self, from: Side, bytes: usize) {
        let cell = if from == Side::Downstream { &self.up } else { &self.down };
        cell.set(cell.get() + bytes);
    }
}

/// Relays between two pipes; the caller's end, the server's end, and how it ends.
fn relayed(room: usize) -> (DuplexStream, DuplexStream, impl Future<Output = (Ended, Counted)>) {
    let ((client, ours), (server, theirs)) = (duplex(room), duplex(room));
    let relaying = async move {
        let (mut ours, mut theirs) = (Stream::Memory(ours), Stream::Memory(theirs));
        let mut relay = Relay::new(ReadBuffer::default(), ReadBuffer::default(), HOUR);
        let counted = Counted::default();
        let ended = poll_fn(|context| relay.poll(&mut ours, &mut theirs, &counted, context)).await;
        (ended, counted)
    };
    (client, server, relaying)
}

#[tokio::test(start_paused = true)]
async fn each_way_ends_by_itself() {
    let (mut client, mut server, relaying) = relayed(ROOM);
    let talking = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut asked = Vec::new();
        server.read_to_end(&mut asked).await.unwrap();
        // The question is over; the answer has not begun.
        server.write_all(b"a long answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        (asked, answer)
    };
    let ((ended, counted), (asked, answer)) = tokio::join!(relaying, talking);
    assert_eq!((&asked[..], &answer[..]), (b"question".as_slice(), b"a long answer".as_slice()));
    assert_eq!((ended, counted.up.get(), counted.down.get()), (Ended::Whole, 8, 13));
}

#[tokio::test(start_paused = true)]
async fn the_last_words_of_a_side_that_takes_no_more_arrive() {
    let (mut client, mut server, relaying) = relayed(ROOM);
    let talking = async {
        server.write_all(b"last words").await.unwrap();
        drop(server);
        // The caller has not noticed, and goes on.
        for _ in 0..4 {
            client.write_all(&[7; 1024]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let ((ended, _), heard) = tokio::join!(relaying, talking);
    assert_eq!((ended, &heard[..]), (Ended::Whole, b"last words".as_slice()));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_does_not_read_stops_its_sender() {
    let (mut client, server, relaying) = relayed(1024);
    let talking = async {
        let flood = vec![1; 8 * 1024 * 1024];
        let stopped = tokio::time::timeout(Duration::from_mins(1), client.write_all(&flood)).await.is_err();
        drop(server);
        drop(client);
        stopped
    };
    let ((_, counted), stopped) = tokio::join!(relaying, talking);
    assert!(stopped && counted.up.get() <= LARGE + ROOM, "{} bytes were taken", counted.up.get());
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it() {
    let begun = tokio::time::Instant::now();
    let (mut client, _server, relaying) = relayed(ROOM);
    let talking = async {
        tokio::time::sleep(HOUR / 2).await;
        client.write_all(b"still here").await.unwrap();
    };
    let ((ended, _), ()) = tokio::join!(relaying, talking);
    assert_eq!((ended, begun.elapsed()), (Ended::Idle, HOUR / 2 + HOUR));
}

#[tokio::test]
async fn every_byte_arrives_in_order_both_ways_through_a_narrow_pipe() {
    let (client, server, relaying) = relayed(777);
    let whole: Vec<u8> = (0..1_000_000_u32).map(|number| u8::try_from(number % 251).unwrap()).collect();
    let exchange = async |stream: DuplexStream| {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let (sent, read) = tokio::join!(
            async {
                write.write_all(&whole).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        sent.unwrap();
        read.unwrap();
        got
    };
    let ((ended, _), at_client, at_server) = tokio::join!(relaying, exchange(client), exchange(server));
    assert_eq!(ended, Ended::Whole);
    assert!(at_client == whole && at_server == whole);
}
