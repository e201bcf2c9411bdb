//! TLS that the proxy begins for an application that speaks in clear text.

use std::collections::HashMap;
use std::sync::Arc;

use hms_identity::tls::{self, Authorities};
use hms_model::policy::egress::Origination;
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;

use crate::refusal::{Reason, Refusal};
use crate::transport::Protocol;
use crate::transport::connect::Secured;
use crate::worker::Worker;

/// The system's authorities, read when they are first needed.
#[derive(Debug, Default)]
pub struct Roots(OnceCell<Authorities>);

/// Ready configurations, by protocol and the number of our certificate.
type Configs = HashMap<(Protocol, u64), Arc<ClientConfig>>;

/// How TLS to one host is begun.
#[derive(Debug)]
pub struct Origin {
    host: String,
    authorities: Authorities,
    client_certificate: bool,
    configs: Mutex<Configs>,
}

impl Origin {
    /// TLS to `host`. Without authorities there is none: a host that cannot be verified is not called.
    pub async fn new(roots: &Roots, host: &str, tls: &Origination) -> Result<Self, Refusal> {
        let authorities = if tls.ca.is_empty() {
            let found = roots.0.get_or_init(|| read(system)).await;
            found.clone()
        } else {
            let path = tls.ca.clone();
            read(move || file(&path)).await
        };
        if authorities.is_empty() {
            let place = if tls.ca.is_empty() { "this system" } else { tls.ca.as_str() };
            let sentence = format!("TLS to {host} cannot be verified: no authorities were found in {place}");
            return Err(Refusal::new(Reason::ConnectFailed, sentence));
        }
        Ok(Self {
            host: host.to_owned(),
            authorities,
            client_certificate: tls.client_certificate,
            configs: Mutex::default(),
        })
    }

    /// The number of our certificate that connections depend on; 0 for those that show none.
    pub fn generation(&self, worker: &Worker) -> u64 {
        let own = || worker.shared.holder.current().map_or(0, |own| own.generation);
        if self.client_certificate { own() } else { 0 }
    }

    /// What a connection needs.
    pub fn secured(&self, worker: &Worker, protocol: Protocol) -> Result<Secured, String> {
        let generation = self.generation(worker);
        let mut configs = self.configs.lock();
        configs.retain(|(_, of), _| *of == generation);
        let config = if let Some(config) = configs.get(&(protocol, generation)) {
            Arc::clone(config)
        } else {
            let config = self.config(worker, protocol)?;
            configs.insert((protocol, generation), Arc::clone(&config));
            config
        };
        Ok(Secured { config, sni: self.host.clone(), hello: Vec::new().into() })
    }

    fn config(&self, worker: &Worker, protocol: Protocol) -> Result<Arc<ClientConfig>, String> {
        let alpn: &[&[u8]] = match protocol {
            Protocol::Http1 => &[b"http/1.1"],
            Protocol::Http2 => &[b"h2"],
            Protocol::Opaque => &[],
        };
        let own = if self.client_certificate {
            Some(worker.shared.holder.current().ok_or("this proxy has no certificate yet")?)
        } else {
            None
        };
        tls::outside_client_config(&self.authorities, own.as_ref().map(|own| &own.svid), alpn)
            .map_err(|error| error.to_string())
    }
}

/// Reads files where that blocks nobody.
async fn read(find: impl FnOnce() -> Vec<CertificateDer<'static>> + Send + 'static) -> Authorities {
    let found = tokio::task::spawn_blocking(find).await.unwrap_or_default();
    Authorities::new(found)
}

fn system() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "some of this system's authorities cannot be read");
    }
    found.certs
}

fn file(path: &str) -> Vec<CertificateDer<'static>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    read.unwrap_or_else(|error| {
        tracing::warn!(path, %error, "authorities cannot be read");
        Vec::new()
    })
}
