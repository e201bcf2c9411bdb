use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::task::LocalSet;

use super::*;
use crate::drain;
use crate::transport::{BadHead, response_head};

/// What every client begins with: the preface and empty `SETTINGS`.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const GOAWAY: u8 = 7;

/// Answers with 204, or never.
#[derive(Debug, Clone)]
struct Test {
    answers: bool,
}

impl Handler for Test {
    async fn handle(&self, request: Result<Request, BadHead>, reply: impl Reply) {
        if !self.answers {
            std::future::pending::<()>().await;
        }
        drop(request);
        let head = response_head(http::StatusCode::NO_CONTENT, HeaderMap::new());
        reply.send(Response { head, body: Body::empty() }).await;
    }
}

/// A connection that is served, and what became of it.
fn served(
    limits: Limits,
    age: Duration,
    handler: Test,
) -> (DuplexStream, drain::Drainer, tokio::task::JoinHandle<Option<Breach>>) {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (drainer, drain) = drain::channel();
    let serving = tokio::task::spawn_local(async move { serve(ours, handler, &limits, age, &drain).await });
    (theirs, drainer, serving)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `GET http://a/` of a static table and one literal.
fn request(stream: u32) -> Vec<u8> {
    frame(1, 5, stream, &[0x82, 0x86, 0x84, 0x41, 1, b'a'])
}

/// The error code of the last `GOAWAY`, read to the end of the connection.
async fn farewell(stream: &mut DuplexStream) -> Option<u32> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    let mut rest = bytes.as_slice();
    let mut code = None;
    while let Some((head, after)) = rest.split_first_chunk::<9>() {
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        if head[3] == GOAWAY {
            code = Some(u32::from_be_bytes(after[4..8].try_into().unwrap()));
        }
        rest = &after[length..];
    }
    code
}

fn on_paused_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(LocalSet::new().run_until(test));
}

/// Kind, stream and payload of the next frame.
async fn next(stream: &mut DuplexStream) -> (u8, u32, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], u32::from_be_bytes(head[5..9].try_into().unwrap()), payload)
}

/// The next frame of a stream.
async fn next_of(stream: &mut DuplexStream, number: u32) -> (u8, Vec<u8>) {
    loop {
        let (kind, found, payload) = next(stream).await;
        if found == number {
            return (kind, payload);
        }
    }
}

const HOUR: Duration = Duration::from_hours(1);

#[test]
fn a_flood_is_told_to_calm_down_and_counted_once() {
    on_paused_time(async {
        let (mut peer, _drainer, serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        peer.write_all(&frame(6, 0, 0, &[0; 8]).repeat(20_000)).await.unwrap();
        assert_eq!(farewell(&mut peer).await, Some(11));
        drop(peer);
        assert_eq!(serving.await.unwrap(), Some(Breach::IdleFrames));
    });
}

#[test]
fn a_header_block_that_trickles_in_ends_after_ten_seconds() {
    on_paused_time(async {
        let (mut peer, _drainer, serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        let begun = Instant::now();
        let (mut reading, mut writing) = tokio::io::split(peer);
        let trickle = tokio::task::spawn_local(async move {
            // A frame that announces more than it sends, a byte a second.
            let mut bytes = frame(1, 4, 1, &[0; 200]).into_iter();
            while let Some(byte) = bytes.next()
                && writing.write_all(&[byte]).await.is_ok()
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.unwrap();
        // The clock starts when the frame's head, nine bytes, says what it is.
        assert!(begun.elapsed() <= Duration::from_secs(19), "{:?}", begun.elapsed());
        trickle.abort();
        assert_eq!(serving.await.unwrap(), Some(Breach::HeaderDeadline));
    });
}

#[test]
fn an_old_connection_leaves_politely_and_so_does_one_with_many_requests() {
    on_paused_time(async {
        let limits = Limits { requests: Some(3), ..Limits::EDGE };
        let (mut peer, _drainer, serving) = served(limits, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        for stream in [1, 3, 5] {
            peer.write_all(&request(stream)).await.unwrap();
        }
        assert_eq!(farewell(&mut peer).await, Some(0));
        assert_eq!(serving.await.unwrap(), None);

        let limits = Limits { idle: 2 * HOUR, ..Limits::EDGE };
        let (mut peer, _drainer, serving) = served(limits, HOUR, Test { answers: true });
        let begun = Instant::now();
        peer.write_all(HELLO).await.unwrap();
        assert_eq!(farewell(&mut peer).await, Some(0));
        assert!(begun.elapsed() >= HOUR && begun.elapsed() < HOUR + Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(serving.await.unwrap(), None);
    });
}

#[test]
fn a_connection_without_a_stream_ends_and_one_with_a_stream_does_not() {
    on_paused_time(async {
        let (mut peer, _drainer, serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        let begun = Instant::now();
        peer.write_all(HELLO).await.unwrap();
        peer.write_all(&request(1)).await.unwrap();
        assert_eq!(farewell(&mut peer).await, Some(0));
        assert!(
            begun.elapsed() >= Limits::EDGE.idle && begun.elapsed() < 2 * Limits::EDGE.idle,
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(serving.await.unwrap(), None);

        let (mut peer, _drainer, serving) = served(Limits::EDGE, 24 * HOUR, Test { answers: false });
        peer.write_all(HELLO).await.unwrap();
        peer.write_all(&request(1)).await.unwrap();
        tokio::time::sleep(2 * HOUR).await;
        assert!(!serving.is_finished(), "a stream that waits is not idle");
    });
}

#[test]
fn draining_asks_every_connection_to_leave_once() {
    on_paused_time(async {
        let (mut peer, drainer, serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let drained =
            tokio::task::spawn_local(
                async move { drainer.drain(Duration::from_mins(1), Duration::from_secs(1)).await },
            );
        assert_eq!(farewell(&mut peer).await, Some(0));
        assert_eq!(serving.await.unwrap(), None);
        assert_eq!(drained.await.unwrap(), 0);
    });
}

/// `POST http://a/` without its body.
fn upload(stream: u32) -> Vec<u8> {
    frame(1, 4, stream, &[0x83, 0x86, 0x84, 0x41, 1, b'a'])
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;

#[test]
fn a_request_answered_before_its_body_is_not_reset_while_the_body_comes() {
    on_paused_time(async {
        let (mut peer, _drainer, _serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        peer.write_all(&upload(1)).await.unwrap();
        assert_eq!(next_of(&mut peer, 1).await.0, HEADERS);
        peer.write_all(&frame(0, 1, 1, b"late")).await.unwrap();
        // Everything about the first stream was said before the second is answered.
        peer.write_all(&request(3)).await.unwrap();
        let (kind, stream) = loop {
            let (kind, stream, _) = next(&mut peer).await;
            if stream != 0 {
                break (kind, stream);
            }
        };
        assert_eq!((kind, stream), (HEADERS, 3));
    });
}

#[test]
fn a_body_that_never_comes_is_given_up_without_calling_it_an_error() {
    on_paused_time(async {
        let (mut peer, _drainer, _serving) = served(Limits::EDGE, HOUR, Test { answers: true });
        peer.write_all(HELLO).await.unwrap();
        peer.write_all(&upload(1)).await.unwrap();
        let begun = Instant::now();
        assert_eq!(next_of(&mut peer, 1).await.0, HEADERS);
        assert_eq!(next_of(&mut peer, 1).await, (RESET, vec![0; 4]));
        assert_eq!(begun.elapsed(), LINGER);
        peer.write_all(&upload(3)).await.unwrap();
        assert_eq!(next_of(&mut peer, 3).await.0, HEADERS);
        let begun = Instant::now();
        // More than is taken, less than the window lets through.
        for _ in 0..3 {
            peer.write_all(&frame(0, 0, 3, &[b'x'; 16 * 1024])).await.unwrap();
        }
        assert_eq!(next_of(&mut peer, 3).await, (RESET, vec![0; 4]));
        assert!(begun.elapsed() < LINGER, "{:?}", begun.elapsed());
    });
}
