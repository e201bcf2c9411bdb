//! Names over real sockets: the mesh's from its tables, all others from resolvers that err, lie and die.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking, as the test does")]

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_proxy::capture::dns::resolver::{Resolver, Source};
use hms_proxy::capture::dns::{Names, Searched, Serving, Sockets};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::stage::{self, Prepared, Stage};

const ID: u16 = 0x1234;
/// Fields of a header that every answer has set.
const RESPONSE: u8 = 0x80;
const NXDOMAIN: u8 = 3;
const SERVFAIL: u8 = 2;

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    [labels.collect::<Vec<_>>().concat(), vec![0]].concat()
}

fn query(host: &str) -> Vec<u8> {
    let head = [ID, 0x0100, 1, 0, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    [head, name(host), vec![0, 1, 0, 1]].concat()
}

/// The answer to a query: these addresses, for so many seconds.
fn answer(query: &[u8], addresses: &[[u8; 4]], seconds: u32) -> Vec<u8> {
    let mut message = query.to_vec();
    (message[2], message[3]) = (0x81, 0x80);
    message[6..8].copy_from_slice(&u16::try_from(addresses.len()).unwrap().to_be_bytes());
    for address in addresses {
        let head = [&[0xc0, 12, 0, 1, 0, 1], &seconds.to_be_bytes()[..], &[0, 4]].concat();
        message.extend([head, address.to_vec()].concat());
    }
    message
}

fn with_code(query: &[u8], code: u8) -> Vec<u8> {
    let mut message = answer(query, &[], 0);
    message[3] |= code;
    message
}

/// The last address of an answer, or what it says instead.
fn told(answer: &[u8]) -> Result<[u8; 4], u8> {
    assert_eq!((answer[..2].to_vec(), answer[2] & RESPONSE), (ID.to_be_bytes().to_vec(), RESPONSE));
    match answer[3] & 15 {
        0 => Ok(answer[answer.len() - 4..].try_into().unwrap()),
        code => Err(code),
    }
}

/// A question, and who asked it.
type Asked = (Vec<u8>, SocketAddr);

/// A resolver that sends what its script says, for the how many-eth question it was asked.
#[derive(Clone)]
struct Liar {
    address: SocketAddr,
    asked: Rc<RefCell<Vec<Asked>>>,
}

impl Liar {
    fn start(script: impl Fn(usize, &[u8]) -> Vec<Vec<u8>> + 'static) -> Self {
        let (sockets, address) = Sockets::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (udp, tcp) = (sockets.udp.into_iter().next().unwrap(), sockets.tcp.into_iter().next().unwrap());
        let liar = Self { address, asked: Rc::default() };
        let (script, seen) = (Rc::new(script), liar.clone());
        let shared = Rc::clone(&script);
        tokio::task::spawn_local(async move {
            let mut message = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut message).await {
                for reaction in shared(seen.note(&message[..length], client), &message[..length]) {
                    udp.send_to(&reaction, client).await.unwrap();
                }
            }
        });
        let seen = liar.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, client)) = tcp.accept().await {
                let Ok(length) = stream.read_u16().await else { continue };
                let mut message = vec![0; length.into()];
                stream.read_exact(&mut message).await.unwrap();
                for reaction in script(seen.note(&message, client), &message) {
                    stream.write_u16(reaction.len().try_into().unwrap()).await.unwrap();
                    // In parts, as streams may.
                    for octet in reaction {
                        stream.write_u8(octet).await.unwrap();
                    }
                }
            }
        });
        liar
    }

    fn note(&self, message: &[u8], client: SocketAddr) -> usize {
        self.asked.borrow_mut().push((message.to_vec(), client));
        self.asked.borrow().len() - 1
    }

    fn count(&self) -> usize {
        self.asked.borrow().len()
    }
}

/// A resolver that knows one address for every name.
fn honest(last: u8) -> Liar {
    Liar::start(move |_, query| vec![answer(query, &[[192, 0, 2, last]], 60)])
}

/// An address at which no resolver is.
async fn gone() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Names as an application asks for them.
struct Asker {
    stage: Stage,
    address: SocketAddr,
    _serving: Serving,
}

impl Asker {
    fn new(source: Source) -> Self {
        Self::of(Stage::new().entry("payment-svc", "240.0.0.1"), source)
    }

    fn of(prepared: Prepared, source: Source) -> Self {
        let stage = prepared.build();
        let names = Names::new(stage.shared(), Arc::new(Resolver::new(source)));
        let (sockets, address) = Sockets::open("127.0.0.1:0".parse().unwrap()).unwrap();
        Self { stage, address, _serving: names.serve(sockets, Searched::Mesh) }
    }

    async fn ask(&self, message: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message, self.address).await.unwrap();
        let mut answer = vec![0; 4096];
        let (length, server) = socket.recv_from(&mut answer).await.unwrap();
        assert_eq!(server, self.address);
        answer.truncate(length);
        answer
    }

    async fn host(&self, host: &str) -> Result<[u8; 4], u8> {
        told(&self.ask(&query(host)).await)
    }
}

fn servers(servers: &[SocketAddr]) -> Source {
    Source::Servers(servers.to_vec())
}

#[test]
fn a_service_has_its_address_over_both_transports_and_its_details_are_asked_for() {
    stage::run(async {
        let mut asker = Asker::new(servers(&[]));
        assert_eq!(asker.host("payment-svc.mesh").await, Ok([240, 0, 0, 1]));
        assert_eq!(asker.stage.wishes.recv().await.unwrap().to_string(), "payment-svc");
        let mut stream = TcpStream::connect(asker.address).await.unwrap();
        let message = query("PAYMENT-svc");
        let framed = [&u16::try_from(message.len()).unwrap().to_be_bytes(), &message[..]].concat();
        // Twice in one write, then once octet by octet.
        stream.write_all(&[&framed[..], &framed[..]].concat()).await.unwrap();
        for octet in framed {
            stream.write_u8(octet).await.unwrap();
            tokio::task::yield_now().await;
        }
        for _ in 0..3 {
            let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(told(&answer), Ok([240, 0, 0, 1]));
        }
        let metrics = asker.stage.metrics();
        assert!(metrics.contains("hms_dns_queries_total{kind=\"mesh\",code=\"NOERROR\"} 4"), "{metrics}");
    });
}

#[test]
fn a_connection_that_sends_no_query_is_closed() {
    stage::run(async {
        let asker = Asker::new(servers(&[]));
        for bad in [vec![0, 0], vec![255, 255], vec![0x10, 0x01], vec![0, 5, 1, 2, 3, 4, 5], vec![0, 40, 1]] {
            let mut stream = TcpStream::connect(asker.address).await.unwrap();
            stream.write_all(&bad).await.unwrap();
            if bad.len() == 3 {
                stream.shutdown().await.unwrap();
            }
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "{bad:?}");
        }
    });
}

#[test]
fn a_name_that_is_not_the_meshs_is_asked_of_the_hosts_resolver_and_kept() {
    stage::run(async {
        let resolver = honest(7);
        let asker = Asker::new(servers(&[resolver.address]));
        for _ in 0..3 {
            assert_eq!(asker.host("Example.com").await, Ok([192, 0, 2, 7]));
        }
        assert_eq!(resolver.count(), 1, "the later ones are kept");
        for number in 0..40 {
            assert_eq!(asker.host(&format!("h{number}.example.com")).await, Ok([192, 0, 2, 7]));
        }
        let asked = resolver.asked.borrow();
        let distinct = |values: Vec<u16>| values.into_iter().collect::<std::collections::BTreeSet<_>>().len();
        let ids = asked.iter().map(|(message, _)| u16::from_be_bytes([message[0], message[1]])).collect();
        assert!(distinct(ids) > 35, "nobody guesses an id");
        assert!(distinct(asked.iter().map(|(_, client)| client.port()).collect()) > 35, "nor a port");
    });
}

#[test]
fn what_does_not_answer_the_question_is_ignored() {
    stage::run(async {
        let liar = Liar::start(|_, query| {
            let wrong = answer(query, &[[6, 6, 6, 6]], 60);
            let (mut other_id, mut other_name, mut other_kind) = (wrong.clone(), wrong.clone(), wrong);
            other_id[0] ^= 1;
            other_name[13] ^= 1;
            other_kind[query.len() - 3] = 28;
            vec![other_id, other_name, other_kind, vec![0; 5], query.to_vec(), answer(query, &[[192, 0, 2, 1]], 60)]
        });
        let asker = Asker::new(servers(&[liar.address]));
        assert_eq!(asker.host("example.com").await, Ok([192, 0, 2, 1]));
        assert_eq!(asker.host("example.com").await, Ok([192, 0, 2, 1]), "nor was it kept");
    });
}

#[test]
fn an_answer_from_another_address_does_not_arrive() {
    stage::run(async {
        let spoofer = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let seen = Rc::<RefCell<Option<Liar>>>::default();
        let (sender, own) = (Rc::clone(&spoofer), Rc::clone(&seen));
        let liar = Liar::start(move |_, query| {
            let client = own.borrow().as_ref().unwrap().asked.borrow().last().unwrap().1;
            let wrong = answer(query, &[[6, 6, 6, 6]], 60);
            assert_eq!(sender.try_send_to(&wrong, client).unwrap(), wrong.len());
            vec![answer(query, &[[192, 0, 2, 1]], 60)]
        });
        *seen.borrow_mut() = Some(liar.clone());
        spoofer.writable().await.unwrap();
        let asker = Asker::new(servers(&[liar.address]));
        assert_eq!(asker.host("example.com").await, Ok([192, 0, 2, 1]));
    });
}

#[test]
fn an_answer_cut_short_is_asked_for_over_tcp() {
    stage::run(async {
        let many: Vec<[u8; 4]> = (0..100).map(|last| [192, 0, 2, last]).collect();
        let resolver = Liar::start(move |number, query| {
            let mut short = answer(query, &[], 60);
            short[2] |= 2;
            vec![if number == 0 { short } else { answer(query, &many, 60) }]
        });
        let asker = Asker::new(servers(&[resolver.address]));
        let short = asker.ask(&query("example.com")).await;
        assert_eq!((short[2] & 2, short.len() <= 512), (2, true), "the client is sent to TCP in turn");
        let mut stream = TcpStream::connect(asker.address).await.unwrap();
        let message = query("example.com");
        stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&message).await.unwrap();
        let mut whole = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut whole).await.unwrap();
        assert_eq!((told(&whole), whole[7]), (Ok([192, 0, 2, 99]), 100));
        assert_eq!(resolver.count(), 2, "the whole answer was kept");
    });
}

#[test]
fn a_resolver_that_is_dead_silent_or_broken_is_replaced_by_the_next() {
    stage::run(async {
        let silent = Liar::start(|_, _| Vec::new());
        let broken = Liar::start(|_, query| vec![answer(query, &[[192, 0, 2, 1]], 60)[..30].to_vec()]);
        let failing = Liar::start(|_, query| vec![with_code(query, SERVFAIL)]);
        for (first, most) in
            [(gone().await, 600), (failing.address, 600), (broken.address, 600), (silent.address, 2000)]
        {
            let second = honest(9);
            let asker = Asker::new(servers(&[first, second.address]));
            let begun = Instant::now();
            assert_eq!(asker.host("example.com").await, Ok([192, 0, 2, 9]));
            assert!(begun.elapsed() < Duration::from_millis(most), "{:?}", begun.elapsed());
            let begun = Instant::now();
            assert_eq!(asker.host("www.example.com").await, Ok([192, 0, 2, 9]));
            assert!(begun.elapsed() < Duration::from_millis(600), "the bad one comes last now");
        }
    });
}

#[test]
fn a_slow_answer_is_taken_after_another_resolver_was_asked_in_vain() {
    stage::run(async {
        let listener = Rc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let (slow, silent) = (Rc::clone(&listener), Liar::start(|_, _| Vec::new()));
        let asked = silent.clone();
        tokio::task::spawn_local(async move {
            let mut message = [0; 512];
            let (length, client) = slow.recv_from(&mut message).await.unwrap();
            while asked.count() == 0 {
                tokio::task::yield_now().await;
            }
            slow.send_to(&answer(&message[..length], &[[192, 0, 2, 5]], 60), client).await.unwrap();
        });
        let asker = Asker::new(servers(&[listener.local_addr().unwrap(), silent.address]));
        assert_eq!(asker.host("example.com").await, Ok([192, 0, 2, 5]));
    });
}

#[test]
fn without_any_answer_there_is_one_nevertheless() {
    stage::run(async {
        let silent = Liar::start(|_, _| Vec::new());
        for source in [servers(&[]), servers(&[gone().await])] {
            let asker = Asker::new(source);
            let begun = Instant::now();
            assert_eq!(asker.host("example.com").await, Err(SERVFAIL));
            assert_eq!(asker.host("printer").await, Err(NXDOMAIN));
            assert!(begun.elapsed() < Duration::from_millis(600), "{:?}", begun.elapsed());
        }
        let asker = Asker::new(servers(&[silent.address]));
        let begun = Instant::now();
        let (bare, full) = tokio::join!(asker.host("printer"), asker.host("example.com"));
        assert_eq!((bare, full), (Err(NXDOMAIN), Err(SERVFAIL)));
        assert!(begun.elapsed() < Duration::from_secs(5), "before programs ask again");
        assert_eq!(asker.host("nothing.mesh").await, Err(NXDOMAIN));
        let metrics = asker.stage.metrics();
        assert!(metrics.contains("hms_dns_queries_total{kind=\"forwarded\",code=\"SERVFAIL\"} 1"), "{metrics}");
    });
}

#[test]
fn an_address_of_the_mesh_from_outside_is_not_believed() {
    stage::run(async {
        let liar = Liar::start(|_, query| vec![answer(query, &[[240, 0, 0, 1]], 60)]);
        assert_eq!(Asker::new(servers(&[liar.address])).host("evil.example").await, Err(SERVFAIL));
    });
}

#[test]
fn many_who_ask_the_same_ask_once() {
    stage::run(async {
        let resolver = Liar::start(
            |number, query| if number == 0 { Vec::new() } else { vec![answer(query, &[[192, 0, 2, 1]], 60)] },
        );
        let asker = Asker::new(servers(&[resolver.address]));
        let asking = (0..50).map(|_| asker.host("example.com"));
        let answers = futures_util::future::join_all(asking).await;
        assert!(answers.iter().all(|told| *told == Ok([192, 0, 2, 1])));
        assert_eq!(resolver.count(), 2, "once, and once more after a silence");
    });
}

#[test]
fn who_waits_is_bounded_and_the_surplus_is_answered() {
    stage::run(async {
        let silent = Liar::start(|_, _| Vec::new());
        let asker = Asker::new(servers(&[silent.address]));
        // As many as the kernel holds until they are read.
        let hosts: Vec<String> = (0..200).map(|number| format!("h{number}.example.com")).collect();
        let begun = Instant::now();
        let asking = hosts.iter().map(|host| async {
            let told = asker.host(host).await;
            (told, begun.elapsed() < Duration::from_secs(2))
        });
        let answers = futures_util::future::join_all(asking).await;
        assert!(answers.iter().all(|(told, _)| *told == Err(SERVFAIL)));
        let at_once = answers.iter().filter(|(_, at_once)| *at_once).count();
        assert!(at_once >= 200 - 128, "{at_once} did not wait");
        assert_eq!(asker.host("payment-svc").await, Ok([240, 0, 0, 1]), "the mesh's names need nobody else");
    });
}

#[test]
fn a_resolver_that_does_not_know_edns_is_asked_without() {
    stage::run(async {
        let old = Liar::start(|_, query| {
            vec![if query[11] == 1 { with_code(query, 1) } else { answer(query, &[[192, 0, 2, 1]], 60) }]
        });
        let asker = Asker::new(servers(&[old.address]));
        let mut message = query("example.com");
        message[11] = 1;
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        let answer = asker.ask(&message).await;
        assert_eq!((answer[3] & 15, answer[7]), (0, 1));
    });
}

#[test]
fn another_network_brings_other_resolvers_and_forgets_what_the_old_ones_said() {
    stage::run(async {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("resolv.conf");
        // No file at all: the laptop has no network yet.
        let asker = Asker::new(Source::File(file.clone()));
        assert_eq!(asker.host("example.com").await, Err(SERVFAIL));
        std::fs::write(&file, "nameserver 192.0.2.1\nsearch corp.example\n").unwrap();
        let resolver = Resolver::new(Source::File(file.clone()));
        assert_eq!(resolver.host().servers, ["192.0.2.1:53".parse().unwrap()]);
        std::fs::write(&file, "nameserver 192.0.2.22\n").unwrap();
        let changed = async {
            while resolver.host().servers != ["192.0.2.22:53".parse().unwrap()] {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), changed).await.expect("it is looked at every second");
        std::fs::remove_file(&file).unwrap();
        let empty = async {
            while !resolver.host().servers.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(5), empty).await.expect("a file that is gone names nobody");
    });
}

#[test]
fn a_query_before_the_first_word_of_the_mesh_waits_for_it() {
    stage::run(async {
        let asker = Asker::of(Stage::new(), servers(&[]));
        let begun = Instant::now();
        assert_eq!(asker.host("payment-svc").await, Err(SERVFAIL), "not that there is none");
        assert!((900..2500).contains(&begun.elapsed().as_millis()));
        let (told, ()) = tokio::join!(asker.host("payment-svc.mesh"), async {
            tokio::task::yield_now().await;
            asker.stage.learn(&Stage::new().entry("payment-svc", "240.0.0.1"));
        });
        assert_eq!(told, Ok([240, 0, 0, 1]));
    });
}

#[test]
fn junk_has_no_answer_and_harms_nobody() {
    stage::run(async {
        let asker = Asker::new(servers(&[]));
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for length in [0, 1, 11] {
            socket.send_to(&vec![0xff; length], asker.address).await.unwrap();
        }
        let mut an_answer = query("payment-svc");
        an_answer[2] |= RESPONSE;
        socket.send_to(&an_answer, asker.address).await.unwrap();
        socket.send_to(&query("payment-svc"), asker.address).await.unwrap();
        let mut first = [0; 512];
        let length = socket.recv(&mut first).await.unwrap();
        assert_eq!(told(&first[..length]), Ok([240, 0, 0, 1]), "the only answer");
    });
}

#[test]
fn both_sockets_have_one_port_and_a_taken_one_is_an_error() {
    stage::run(async {
        let (sockets, address) = Sockets::open("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(sockets.udp[0].local_addr().unwrap(), address);
        assert_eq!(sockets.tcp[0].local_addr().unwrap(), address);
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        assert!(Sockets::open(other.local_addr().unwrap()).is_err());
    });
}
