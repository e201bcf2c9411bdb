//! What this proxy proves itself with at the moment, and the TLS configurations made of it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use hms_identity::clock::SystemClock;
use hms_identity::svid::Svid;
use hms_identity::tls::{self, TlsError};
use hms_model::spiffe::SpiffeId;
use hms_model::trust::TrustBundle;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::transport::Protocol;
use crate::transport::connect::{ALPN_HTTP1, ALPN_HTTP2, ALPN_OPAQUE};

/// A certificate with its key, and the roots to verify peers with. Never changed; replaced as a whole.
pub struct Credentials {
    /// Our certificate.
    pub(crate) svid: Svid,
    /// The roots.
    pub(crate) bundle: TrustBundle,
    /// Counts up with each replacement.
    pub(crate) generation: u64,
    /// For the inbound listener.
    pub(crate) server: Arc<ServerConfig>,
    clients: Clients,
}

/// Configurations by the peer they expect, made once each.
type Clients = Mutex<HashMap<(SpiffeId, Protocol), Arc<ClientConfig>>>;

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", self.svid.identity())
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// The configuration for a connection to exactly `peer`.
    pub fn client(&self, peer: &SpiffeId, protocol: Protocol) -> Result<Arc<ClientConfig>, TlsError> {
        let key = (peer.clone(), protocol);
        if let Some(config) = self.clients.lock().get(&key) {
            return Ok(Arc::clone(config));
        }
        let alpn = match protocol {
            Protocol::Http1 => ALPN_HTTP1,
            Protocol::Http2 => ALPN_HTTP2,
            Protocol::Opaque => ALPN_OPAQUE,
        };
        let expected = BTreeSet::from([peer.clone()]);
        let config = tls::client_config(&self.svid, &self.bundle, &expected, &[alpn], Arc::new(SystemClock))?;
        self.clients.lock().insert(key, Arc::clone(&config));
        Ok(config)
    }
}

/// The current credentials, shared by all threads.
#[derive(Debug, Default)]
pub struct Holder {
    current: ArcSwapOption<Credentials>,
    generations: AtomicU64,
    changed: watch::Sender<u64>,
}

impl Holder {
    /// The current credentials; `None` before the first certificate.
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.current.load_full()
    }

    /// Takes a new certificate into use; connections opened from now on show it.
    pub fn replace(&self, svid: Svid, bundle: TrustBundle) -> Result<Arc<Credentials>, TlsError> {
        let server = tls::server_config(&svid, &bundle, &[ALPN_HTTP2, ALPN_HTTP1, ALPN_OPAQUE], Arc::new(SystemClock))?;
        let generation = self.generations.fetch_add(1, Relaxed) + 1;
        let clients = Mutex::default();
        let credentials = Arc::new(Credentials { svid, bundle, generation, server, clients });
        self.current.store(Some(Arc::clone(&credentials)));
        self.changed.send_replace(generation);
        Ok(credentials)
    }

    /// Takes new roots into use with the certificate we have. Answers whether anything changed.
    pub fn trust(&self, bundle: &TrustBundle) -> Result<bool, TlsError> {
        match self.current() {
            Some(current) if current.bundle != *bundle => {
                self.replace(current.svid.clone(), bundle.clone())?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Hears of every replacement; the value is the generation in use.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
