//! The way to the control plane: its socket on this host, or mutual TLS to its address.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hms_identity::clock::SystemClock;
use hms_identity::{bundle, tls};
use hms_model::spiffe::SpiffeId;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use crate::settings::ControlAddress;
use crate::worker::Shared;

/// How long a connection to the control plane may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A silent control plane is asked this often, and given up after as long again (reliability F5).
const PING_EVERY: Duration = Duration::from_secs(10);
/// How long an answer to a ping may take.
const PING_DEADLINE: Duration = Duration::from_secs(5);
/// The namespace and name of the control plane's identity.
const CONTROL: (&str, &str) = ("hms-system", "control");

/// Opens a connection. It is not reopened by itself: whoever needs another asks for it, after a pause of its own choosing.
pub async fn open(shared: &Arc<Shared>) -> Result<Channel, tonic::transport::Error> {
    // The authority is a formality: the connector decides where to go.
    let endpoint = Endpoint::from_static("http://control.hms.internal")
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_DEADLINE)
        .keep_alive_while_idle(true);
    match shared.settings.control.clone() {
        ControlAddress::Unix(path) => {
            let connector = service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            });
            endpoint.connect_with_connector(connector).await
        }
        ControlAddress::None => {
            let nowhere = || async { Err::<TokioIo<UnixStream>, _>(io::Error::other("there is no control plane")) };
            endpoint.connect_with_connector(service_fn(move |_: Uri| nowhere())).await
        }
        ControlAddress::Tcp { address, bundle, .. } => {
            let shared = Arc::clone(shared);
            let connector = service_fn(move |_: Uri| {
                let (shared, bundle) = (Arc::clone(&shared), bundle.clone());
                async move {
                    let config = client_config(&shared, &bundle)?;
                    let tcp = TcpStream::connect(address).await?;
                    tcp.set_nodelay(true)?;
                    TlsConnector::from(config).connect(tls::server_name(), tcp).await.map(TokioIo::new)
                }
            });
            endpoint.connect_with_connector(connector).await
        }
    }
}

/// Shows our certificate once we have one; before that only the control plane proves itself.
fn client_config(shared: &Shared, file: &std::path::Path) -> io::Result<Arc<rustls::ClientConfig>> {
    let domain = shared.settings.trust_domain.clone();
    let control = SpiffeId::new(&domain, CONTROL.0, CONTROL.1).map_err(io::Error::other)?;
    let expected = BTreeSet::from([control]);
    let clock = Arc::new(SystemClock);
    let config = if let Some(own) = shared.holder.current() {
        tls::client_config(&own.svid, &own.bundle, &expected, &[b"h2"], clock)
    } else {
        let roots = bundle::from_pem(domain, &std::fs::read(file)?).map_err(io::Error::other)?;
        tls::bootstrap_client_config(&roots, &expected, &[b"h2"], clock)
    };
    config.map_err(io::Error::other)
}
