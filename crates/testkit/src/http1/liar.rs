//! An application that answers with whatever bytes it is told to, and remembers every connection and every byte it got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::End;
use super::message::{self, Kind, Message};
use crate::{tasks, wait};

/// A polite answer.
pub const POLITE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// When it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as a request's head is here.
    Head,
    /// When the request is here as a whole.
    Whole,
}

/// What it does after its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Waits for the next request.
    Keep,
    /// Closes in order.
    Close,
    /// Closes with a reset.
    Reset,
}

/// What it answers with from now on.
#[derive(Debug, Clone)]
pub struct Script {
    /// When it begins.
    pub when: When,
    /// What it writes. Each piece but the first waits for [`Liar::release`].
    pub pieces: Vec<Vec<u8>>,
    /// What follows.
    pub then: Then,
}

impl Script {
    /// These bytes to a whole request, and the connection stays.
    pub fn of(bytes: impl Into<Vec<u8>>) -> Self {
        Self { when: When::Whole, pieces: vec![bytes.into()], then: Then::Keep }
    }

    /// The same, with something else afterwards.
    #[must_use]
    pub fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }
}

/// A connection as it was seen.
#[derive(Debug, Clone)]
pub struct Contact {
    /// Every byte that came.
    pub bytes: Vec<u8>,
    /// How it ended, if it has.
    pub ended: Option<End>,
}

impl Contact {
    /// The requests on it; the last one may be incomplete.
    pub fn requests(&self) -> Vec<Message> {
        message::all(&self.bytes, Kind::Request)
    }

    /// How many requests on it are whole.
    pub fn whole(&self) -> usize {
        self.requests().iter().filter(|request| request.is_whole()).count()
    }
}

#[derive(Debug)]
struct Shared {
    script: Mutex<Script>,
    contacts: Mutex<Vec<Contact>>,
    released: Semaphore,
}

/// A running liar; ends with the scenario.
#[derive(Debug)]
pub struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Liar {
    /// Starts it on a free port; it begins politely.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Mutex::new(Script::of(POLITE));
        let shared = Arc::new(Shared { script, contacts: Mutex::default(), released: Semaphore::new(0) });
        let serving = Arc::clone(&shared);
        let _until_the_end = tasks::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let mut contacts = serving.contacts.lock();
                let number = contacts.len();
                contacts.push(Contact { bytes: Vec::new(), ended: None });
                drop(contacts);
                let _until_closed = tasks::spawn(serve(stream, Arc::clone(&serving), number));
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers with from now on.
    pub fn play(&self, script: Script) {
        *self.shared.script.lock() = script;
    }

    /// Lets the next piece go.
    pub fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// Every connection so far.
    pub fn contacts(&self) -> Vec<Contact> {
        self.shared.contacts.lock().clone()
    }

    /// How many connections there were so far.
    pub fn connections(&self) -> usize {
        self.shared.contacts.lock().len()
    }

    /// How many bytes came on all of them.
    pub fn bytes(&self) -> usize {
        self.shared.contacts.lock().iter().map(|contact| contact.bytes.len()).sum()
    }

    /// How many whole requests came on all of them.
    pub fn requests(&self) -> usize {
        self.contacts().iter().map(Contact::whole).sum()
    }

    /// Waits until the connection of this number has ended.
    pub async fn until_ended(&self, number: usize) -> End {
        wait::until("the liar's connection ends", Duration::from_secs(20), || {
            let contact = self.shared.contacts.lock().get(number).cloned();
            std::future::ready(contact.as_ref().and_then(|contact| contact.ended).ok_or_else(|| format!("{contact:?}")))
        })
        .await
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>, number: usize) {
    let ended = converse(&mut stream, &shared, number).await;
    shared.contacts.lock()[number].ended = Some(ended);
}

/// Answers each request once. Returns how the other end closed; what we close ourselves counts as clean.
async fn converse(stream: &mut TcpStream, shared: &Shared, number: usize) -> End {
    stream.set_nodelay(true).unwrap();
    let mut begins = 0;
    let mut answered = false;
    loop {
        let request = {
            let contacts = shared.contacts.lock();
            message::first(&contacts[number].bytes[begins..], Kind::Request)
        };
        if let Some(request) = &request {
            let script = shared.script.lock().clone();
            if !answered && (script.when == When::Head || request.is_whole()) {
                answered = true;
                if let Some(ended) = perform(stream, shared, &script).await {
                    return ended;
                }
            }
            if let Some(length) = request.length {
                begins += length;
                answered = false;
                continue;
            }
        }
        let mut part = vec![0; 16 * 1024];
        match stream.read(&mut part).await {
            Ok(0) => return End::Clean,
            Ok(length) => shared.contacts.lock()[number].bytes.extend_from_slice(&part[..length]),
            Err(_) => return End::Broken,
        }
    }
}

async fn perform(stream: &mut TcpStream, shared: &Shared, script: &Script) -> Option<End> {
    for (number, piece) in script.pieces.iter().enumerate() {
        if number > 0 {
            shared.released.acquire().await.unwrap().forget();
        }
        if stream.write_all(piece).await.is_err() {
            return Some(End::Broken);
        }
    }
    match script.then {
        Then::Keep => return None,
        Then::Close => {
            let _gone_is_fine = stream.shutdown().await.is_ok();
        }
        Then::Reset => stream.set_zero_linger().unwrap(),
    }
    Some(End::Clean)
}
