//! One process of a proxy takes the place of another, and nobody outside notices.
//!
//! A running proxy waits on a private socket in its runtime directory. A new process with the same directory connects, gets every
//! listening socket ([`sockets`]), makes itself ready, begins to accept, and only then says so: from that moment the old one
//! accepts nothing, finishes what it has and ends. A connection that waits in the kernel waits for whichever of them accepts it,
//! so none is lost. If the new process dies before it is ready, the old one goes on as if nothing had been.
//!
//! ```text
//! new                                    old
//!  │  role and service, one line          │   both see that the other runs as the same user
//!  │ ───────────────────────────────────► │
//!  │  each socket with its name           │   still accepts
//!  │ ◄─────────────────────────────────── │
//!  │  … certificate, configuration …      │   still accepts
//!  │  accepts                             │
//!  │  READY                               │
//!  │ ───────────────────────────────────► │   leaves: no control stream, no administration, no new connections
//!  │  LEAVING                             │
//!  │ ◄─────────────────────────────────── │   drains
//!  │  control stream, ports.json          │
//! ```

mod sockets;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use crate::listen::bind::Sockets;
use crate::private_socket::{Place, same_user};
use crate::settings::Settings;

/// The socket's name in the runtime directory.
const NAME: &str = "takeover.sock";
/// How long one step of the other process may take that needs no preparation.
const STEP: Duration = Duration::from_secs(5);
/// How long a new process may take to be ready.
pub const READY_WITHIN: Duration = Duration::from_secs(30);
/// The new process accepts connections.
const READY: u8 = b'R';
/// The old process takes no more.
const LEAVING: u8 = b'L';
/// The longest first line.
const LINE: usize = 512;

/// What the old process waits with for its successor.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    sockets: Sockets,
    own: String,
}

/// The old process, seen from the new one.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

/// The new process, seen from the old one; it has the listeners and is ready.
#[derive(Debug)]
pub struct Successor {
    stream: UnixStream,
}

/// Asks whoever listens in the runtime directory for its sockets. `None` if nobody does.
pub async fn meet(settings: &Settings) -> io::Result<Option<(Predecessor, Sockets)>> {
    let place = Place::of(&settings.runtime_dir, NAME)?;
    let Ok(mut stream) = UnixStream::connect(place.path()).await else { return Ok(None) };
    same_user(&stream)?;
    let asked = async {
        stream.write_all(own_line(settings).as_bytes()).await?;
        sockets::receive(&stream).await
    };
    let answer = tokio::time::timeout(STEP, asked).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()));
    let sockets = answer.map_err(|error| {
        let text = format!("the proxy that runs in {} does not hand over: {error}", settings.runtime_dir.display());
        io::Error::new(error.kind(), text)
    })?;
    tracing::info!(sockets = sockets.len(), "took over the listeners of a running proxy");
    Ok(Some((Predecessor { stream }, sockets)))
}

impl Predecessor {
    /// Tells it that we accept connections now, and waits until it takes no more. One that has died meanwhile takes none either.
    pub async fn relieve(mut self) {
        let told = async {
            self.stream.write_all(&[READY]).await?;
            self.stream.read_u8().await
        };
        match tokio::time::timeout(STEP, told).await {
            Ok(Ok(LEAVING)) => {}
            Ok(Ok(_)) => tracing::warn!("the former proxy answered with something else"),
            Ok(Err(error)) => tracing::warn!(%error, "the former proxy is gone"),
            Err(_elapsed) => tracing::warn!("the former proxy does not answer"),
        }
    }
}

impl Offer {
    /// Waits from now on. A former process's socket of the same name is replaced.
    pub fn open(settings: &Settings, sockets: Sockets) -> io::Result<Self> {
        let place = Place::of(&settings.runtime_dir, NAME)?;
        let _absent_is_fine = std::fs::remove_file(place.path()).is_ok();
        let listener = UnixListener::bind(place.path())?;
        // The directory keeps others out; this is for those who copy it.
        std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, sockets, own: own_line(settings) })
    }

    /// Resolves when another process has the listeners and is ready. Whoever asks and does not come so far changes nothing. Safe to
    /// drop: the sockets for a successor are closed with it.
    pub async fn taken(self) -> Successor {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(STEP).await;
                continue;
            };
            match self.hand_over(stream).await {
                Ok(successor) => return successor,
                Err(error) => tracing::warn!(%error, "another process asked for the listeners and did not take over"),
            }
        }
    }

    async fn hand_over(&self, mut stream: UnixStream) -> io::Result<Successor> {
        same_user(&stream)?;
        let given = async {
            let line = read_line(&mut stream).await?;
            if line != self.own {
                return Err(io::Error::other(format!("it is another proxy: {}", line.trim_end().escape_debug())));
            }
            sockets::send(&mut stream, &self.sockets).await
        };
        tokio::time::timeout(STEP, given).await??;
        match tokio::time::timeout(READY_WITHIN, stream.read_u8()).await?? {
            READY => Ok(Successor { stream }),
            _ => Err(io::Error::other("it said something else than that it is ready")),
        }
    }
}

impl Successor {
    /// Tells it that we take no more.
    pub async fn leave_to(mut self) {
        if let Err(error) = self.stream.write_all(&[LEAVING]).await {
            tracing::warn!(%error, "the new proxy is gone already");
        }
    }
}

/// Who we are: a directory that belongs to another proxy is a mistake, and taking that one's sockets would hide it.
fn own_line(settings: &Settings) -> String {
    format!("{} {}\n", settings.role, settings.service)
}

async fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while line.len() < LINE && line.last() != Some(&b'\n') {
        line.push(stream.read_u8().await?);
    }
    String::from_utf8(line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::last_good;
    use crate::listen::bind::bind;

    fn settings(dir: &Path, service: &str) -> Settings {
        let words = ["--service", service, "--control", "unix:/c", "--trust-domain", "k.hms", "--runtime-dir"];
        Settings::parse(words.iter().map(Into::into).chain([dir.into()])).unwrap()
    }

    /// A directory with a path longer than a socket's may be.
    fn deep(root: &Path) -> PathBuf {
        let dir = root.join("x".repeat(120)).join("portal-1");
        last_good::prepare(&dir).unwrap();
        dir
    }

    #[tokio::test]
    async fn a_new_process_gets_the_very_sockets_and_the_old_one_hears_that_it_is_ready() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&deep(root.path()), "portal");
        assert!(meet(&settings).await.unwrap().is_none(), "nobody runs");
        let bound = bind(&settings, Sockets::new()).unwrap();
        let offer = Offer::open(&settings, bound.sockets).unwrap();
        let mode = std::fs::metadata(settings.runtime_dir.join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        let old = async {
            let successor = offer.taken().await;
            successor.leave_to().await;
        };
        let new = async {
            let (predecessor, sockets) = meet(&settings).await.unwrap().unwrap();
            let taken = bind(&settings, sockets).unwrap();
            predecessor.relieve().await;
            taken.ports
        };
        let ((), ports) = tokio::join!(old, new);
        assert_eq!(ports, bound.ports);
        assert!(meet(&settings).await.unwrap().is_none(), "the old one waits no longer");
    }

    #[tokio::test]
    async fn one_that_dies_before_it_is_ready_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let settings = settings(&deep(root.path()), "portal");
        let bound = bind(&settings, Sockets::new()).unwrap();
        let offer = Offer::open(&settings, bound.sockets).unwrap();
        let new = async {
            drop(meet(&settings).await.unwrap().unwrap());
            let (predecessor, sockets) = meet(&settings).await.unwrap().unwrap();
            predecessor.relieve().await;
            sockets.len()
        };
        let old = async { offer.taken().await.leave_to().await };
        let (sockets, ()) = tokio::join!(new, old);
        assert_eq!(sockets, 3);
    }

    #[tokio::test]
    async fn another_proxy_in_the_same_directory_gets_nothing_and_says_why() {
        let root = tempfile::tempdir().unwrap();
        let dir = deep(root.path());
        let bound = bind(&settings(&dir, "portal"), Sockets::new()).unwrap();
        let offer = Offer::open(&settings(&dir, "portal"), bound.sockets).unwrap();
        let other = settings(&dir, "calc-svc");
        tokio::select! {
            _ = offer.taken() => unreachable!("it was given away"),
            met = meet(&other) => assert!(met.unwrap_err().to_string().contains("does not hand over")),
        }
    }
}
