//! Accepting proxies: on the local socket, and over TCP with TLS. Handshakes run beside each other and never hold up the next.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use super::connection::{Caller, Connection};
use crate::tasks;

/// How long a handshake may take (reliability §6).
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes at the same time.
const HANDSHAKES: usize = 128;
/// Connections of recognised callers over TCP at the same time.
const CONNECTIONS: usize = 10_000;
/// Connections of callers without a certificate, who can only redeem a join token.
const STRANGERS: usize = 64;
/// Connections that may wait to be served.
const BACKLOG: usize = 64;
/// Pause after an accept failed, for want of file descriptors for example.
const AGAIN: Duration = Duration::from_millis(100);

/// Connections, ready to be served.
pub type Incoming = ReceiverStream<io::Result<Connection>>;

/// The TLS settings in use; replaced when the control plane renews its certificate.
pub type CurrentTls = Arc<ArcSwap<ServerConfig>>;

/// Opens the local socket, mode 0600. One left behind by a process that is gone is replaced; anything else in its place is an
/// error.
pub fn bind_local(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let message = format!("{} is in use by another control plane", path.display());
                return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
            }
            fs::remove_file(path)?;
        }
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is no socket", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    // The directory is private already; this keeps the socket so wherever it is moved.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Accepts on the local socket until the incoming stream is dropped.
pub fn accept_local(listener: UnixListener) -> Incoming {
    let (sender, incoming) = mpsc::channel(BACKLOG);
    tasks::spawn("accept-local", async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, _unnamed)) => match local(stream) {
                    Ok(connection) => drop(sender.send(Ok(connection)).await),
                    Err(error) => tracing::warn!(%error, "a local caller without credentials"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the local socket");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}

fn local(stream: UnixStream) -> io::Result<Connection> {
    let credentials = stream.peer_cred()?;
    let process = credentials.pid().and_then(|id| u32::try_from(id).ok());
    let process = process.ok_or_else(|| io::Error::other("the kernel names no process"))?;
    Ok(Connection::new(Caller::Process { process, user: credentials.uid() }, stream))
}

/// Accepts over TCP until the incoming stream is dropped.
pub fn accept_remote(listener: TcpListener, tls: CurrentTls) -> Incoming {
    let (sender, incoming) = mpsc::channel(BACKLOG);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let places = Arc::new(Places::default());
    tasks::spawn("accept-remote", async move {
        loop {
            let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = sender.closed() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let greeting = Greeting { address, turn, places: Arc::clone(&places), sender: sender.clone() };
                    tasks::spawn("handshake", greeting.shake(stream, tls.load_full()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept over TCP");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    });
    ReceiverStream::new(incoming)
}

/// How many more connections there may be.
struct Places {
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        Self { known: Arc::new(Semaphore::new(CONNECTIONS)), strangers: Arc::new(Semaphore::new(STRANGERS)) }
    }
}

/// One handshake.
struct Greeting {
    address: SocketAddr,
    turn: OwnedSemaphorePermit,
    places: Arc<Places>,
    sender: mpsc::Sender<io::Result<Connection>>,
}

impl Greeting {
    /// Whoever fails it is told so by TLS and not heard of again.
    async fn shake(self, stream: TcpStream, tls: Arc<ServerConfig>) {
        let Self { address, turn, places, sender } = self;
        // Small messages must not wait for each other; without it they still arrive.
        drop(stream.set_nodelay(true));
        let stream = match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "a handshake failed"),
            Err(_late) => return tracing::debug!(%address, "a handshake took too long"),
        };
        drop(turn);
        let (_, session) = stream.get_ref();
        let identity = session.peer_certificates().and_then(hms_identity::tls::peer_identity);
        let places = if identity.is_some() { &places.known } else { &places.strangers };
        let Ok(place) = Arc::clone(places).try_acquire_owned() else {
            return tracing::warn!(%address, "too many connections");
        };
        let caller = Caller::Remote { ip: address.ip(), identity };
        drop(sender.send(Ok(Connection::new(caller, stream).in_place(place))).await);
    }
}
