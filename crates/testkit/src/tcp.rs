//! Applications and callers that speak no HTTP: bytes, who speaks first, and how it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::http1::End;
use crate::tasks;

/// What a server that speaks first says.
pub const GREETING: &[u8] = b"220 mail.example ESMTP\r\n";
/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What an application does with a connection.
#[derive(Clone)]
pub enum Manner {
    /// Sends back what comes, and ends when the caller does.
    Echo,
    /// Says [`GREETING`], then sends back what comes.
    Greet,
    /// Reads to the end, then answers with the number of bytes and their checksum, and ends.
    Sum,
    /// Says [`GREETING`] and closes although the caller has more to say.
    Leave,
    /// Takes the connection and neither reads nor writes.
    Hang,
    /// TLS with a certificate of this authority for any name; then sends back what comes.
    Tls(Arc<ServerConfig>),
}

/// A running application. Dropping it closes its socket; connections go on.
#[derive(Debug)]
pub struct TcpApp {
    address: SocketAddr,
    taken: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
    _stop: watch::Sender<bool>,
}

impl TcpApp {
    /// Starts it on a free port.
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (taken, bytes) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (stop, mut stopped) = watch::channel(false);
        let (count, read) = (Arc::clone(&taken), Arc::clone(&bytes));
        let _until_stopped = tasks::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stopped.changed() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let _until_closed = tasks::spawn(serve(stream, manner.clone(), Arc::clone(&read)));
            }
        });
        Self { address, taken, bytes, _stop: stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has taken; health checks are among them.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// How many bytes it has read.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, manner: Manner, read: Arc<AtomicUsize>) {
    let _without_delay = stream.set_nodelay(true).is_ok();
    match manner {
        Manner::Echo => echo(stream, &read).await,
        Manner::Greet => {
            if stream.write_all(GREETING).await.is_ok() {
                echo(stream, &read).await;
            }
        }
        Manner::Sum => {
            let mut sum = Sum::default();
            if sum.read_all(&mut stream).await.is_ok() {
                read.fetch_add(sum.bytes, Ordering::Relaxed);
                let _told = stream.write_all(format!("{sum:?}").as_bytes()).await.is_ok();
            }
        }
        Manner::Leave => {
            let _told = stream.write_all(GREETING).await.is_ok();
        }
        Manner::Hang => {
            let _kept = stream;
            std::future::pending::<()>().await;
        }
        Manner::Tls(config) => {
            if let Ok(stream) = Box::pin(TlsAcceptor::from(config).accept(stream)).await {
                echo(stream, &read).await;
            }
        }
    }
}

async fn echo(mut stream: impl AsyncRead + AsyncWrite + Unpin, read: &AtomicUsize) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        read.fetch_add(length, Ordering::Relaxed);
        if stream.write_all(&buffer[..length]).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    let _ended = stream.shutdown().await.is_ok();
}

/// A certificate for `host` of an authority of its own: what the server shows, and the authority as PEM.
pub fn tls_for(host: &str) -> (Arc<ServerConfig>, String) {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = root.self_signed(&authority).unwrap().pem();
    let issuer = rcgen::Issuer::new(root, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![CertificateDer::from(leaf)], key).unwrap();
    (Arc::new(config), pem)
}

/// How many bytes passed, and a sum that depends on their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    bytes: usize,
    sum: u64,
}

impl Sum {
    /// Adds bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.sum = self.sum.rotate_left(5) ^ u64::from_le_bytes(word.try_into().unwrap());
        }
        for byte in words.remainder() {
            self.sum = self.sum.rotate_left(5) ^ u64::from(*byte);
        }
    }

    /// Reads to the end, by pieces whose size does not matter for the sum.
    pub async fn read_all(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        let mut buffer = vec![0; 256 * 1024];
        let mut kept = 0;
        loop {
            let length = stream.read(&mut buffer[kept..]).await?;
            let here = kept + length;
            // Whole words only, until the end.
            let whole = if length == 0 { here } else { here / 8 * 8 };
            self.add(&buffer[..whole]);
            buffer.copy_within(whole..here, 0);
            kept = here - whole;
            if length == 0 {
                return Ok(());
            }
        }
    }
}

/// The caller's end of a connection.
#[derive(Debug)]
pub struct Caller(pub TcpStream);

impl Caller {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends bytes; `false` when the connection takes none any more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok()
    }

    /// The next so many bytes, or what came of them and how it ended.
    pub async fn read(&mut self, length: usize) -> Result<Vec<u8>, (Vec<u8>, End)> {
        let mut got = Vec::new();
        let mut buffer = vec![0; length];
        while got.len() < length {
            let reading = self.0.read(&mut buffer[got.len()..]);
            let Ok(read) = tokio::time::timeout(PATIENCE, reading).await else {
                panic!("nothing came; before: {got:?}")
            };
            match read {
                Ok(0) => return Err((got, End::Clean)),
                Ok(read) => {
                    let start = got.len();
                    got.extend_from_slice(&buffer[start..start + read]);
                }
                Err(_) => return Err((got, End::Broken)),
            }
        }
        Ok(got)
    }

    /// Ends this side.
    pub async fn finish(&mut self) {
        let _gone_is_fine = self.0.shutdown().await.is_ok();
    }

    /// Everything to the end, and how that was.
    pub async fn rest(&mut self) -> (Vec<u8>, End) {
        self.read(usize::MAX >> 40).await.expect_err("an end")
    }
}
