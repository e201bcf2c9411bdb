//! Getting a certificate, and another before it ends. The key is made here and never leaves this process but for its private
//! directory in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_identity::clock::SystemClock;
use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_identity::verify::{Usage, verify_chain};
use hms_identity::{rotate, tls};
use hms_model::listener::Role;
use hms_model::trust::TrustBundle;
use hms_traffic::dice::Dice;
use hms_wire::Wire as _;
use hms_wire::proto::hms::v1::authority_client::AuthorityClient;
use hms_wire::proto::hms::v1::{IssueRequest, IssueResponse};
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::{Notify, mpsc, oneshot};
use tonic::metadata::MetadataValue;

use crate::control_channel;
use crate::last_good;
use crate::settings::ControlAddress;
use crate::worker::Shared;

/// Why no certificate came.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The control plane could not be reached.
    #[error("the control plane is not reached: {0}")]
    Unreachable(#[from] tonic::transport::Error),
    /// It refused.
    #[error("the control plane refused: {}", .0.message())]
    Refused(#[from] Box<tonic::Status>),
    /// What it sent cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Unusable(String),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] std::io::Error),
}

/// A wish for a new certificate now, from a person.
#[derive(Debug)]
pub struct RotateNow {
    /// The life asked for; nothing for the default.
    pub validity: Option<Duration>,
    /// Told what became of it.
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What is told about the certificate.
#[derive(Debug, Default)]
pub struct State {
    /// When it is renewed next, and how often that failed since the last success.
    pub plan: Mutex<Plan>,
    /// Something to report changed.
    pub changed: Notify,
}

/// When the certificate is renewed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// The moment; `None` before the first certificate.
    pub rotates_at: Option<SystemTime>,
    /// Failures since the last success.
    pub failures: u32,
}

/// Keeps a certificate until the process ends: at once if there is none, at one third of its life (ruling R4), whenever a person
/// asks.
pub async fn keep(shared: Arc<Shared>, state: Arc<State>, mut wishes: mpsc::Receiver<RotateNow>, mut dice: Dice) {
    let mut validity = None;
    let mut swaps = shared.current.watch();
    let mut hosts = None;
    let mut key = None;
    loop {
        let due = due(&shared, &state, &mut dice);
        let wait = due.duration_since(shared.now()).unwrap_or_default();
        // The wall clock may jump; looking again each minute notices it.
        let nap = wait.min(Duration::from_mins(1));
        let wish = tokio::select! {
            () = tokio::time::sleep(nap) => None,
            Ok(()) = swaps.changed() => {
                if edge_is_outdated(&shared, &mut hosts) {
                    state.plan.lock().rotates_at = Some(shared.now());
                }
                None
            }
            wish = wishes.recv() => match wish {
                Some(wish) => Some(wish),
                None => return,
            },
            () = shared.drain.handed_over() => return,
        };
        if wish.is_none() && shared.now() < due {
            continue;
        }
        if let Some(wish) = &wish {
            validity = wish.validity.or(validity);
        }
        let renewed = renew(&shared, validity, &mut key).await;
        if let Err(error) = &renewed {
            tracing::warn!(%error, "no certificate");
        }
        {
            let mut plan = state.plan.lock();
            plan.rotates_at = None;
            plan.failures = if renewed.is_ok() { 0 } else { plan.failures.saturating_add(1) };
        }
        if let Some(wish) = wish {
            let _told = wish.done.send(renewed.map_err(|error| error.to_string())).is_ok();
        }
        state.changed.notify_one();
    }
}

/// Whether the gateway's certificate names other hosts than the gateway answers for.
fn edge_is_outdated(shared: &Shared, known: &mut Option<BTreeSet<String>>) -> bool {
    let now = shared.current.load().gateway.as_ref().map(|gateway| gateway.hosts.clone());
    if shared.settings.role != Role::Gateway || now.is_none() {
        return false;
    }
    let before = std::mem::replace(known, now.clone());
    before.is_some() && before != now || shared.edge.load().is_none() && shared.holder.current().is_some()
}

/// When the next renewal is due; rolled once per certificate or failure.
fn due(shared: &Shared, state: &State, dice: &mut Dice) -> SystemTime {
    let mut plan = state.plan.lock();
    if let Some(due) = plan.rotates_at {
        return due;
    }
    let due = match (shared.holder.current(), plan.failures) {
        (None, 0) => shared.now(),
        // Without any certificate nothing works, so the first ones are asked for quickly: the supervisor may just be vouching.
        (None, failures @ 1..=50) => shared.now() + Duration::from_millis(20 * u64::from(failures.min(10))),
        (None, failures) => shared.now() + rotate::retry_after(failures - 50, dice.unit()),
        (Some(current), 0) => rotate::renew_at(current.svid.not_before(), current.svid.not_after(), dice.unit()),
        (Some(current), failures) => rotate::retry_at(shared.now(), current.svid.not_after(), failures, dice.unit()),
    };
    plan.rotates_at = Some(due);
    due
}

/// Asks for a certificate for a new key. A key that got no answer is kept in `pending` and asked for again: a join token belongs to
/// the first key that came with it.
async fn renew(
    shared: &Arc<Shared>,
    validity: Option<Duration>,
    pending: &mut Option<PrivateKey>,
) -> Result<(), CertificateError> {
    let key = match pending.take() {
        Some(key) => key,
        None => PrivateKey::generate().map_err(|error| CertificateError::Unusable(error.to_string()))?,
    };
    let asked = ask(shared, &key, validity).await;
    let (mut client, response) = match asked {
        Ok(answer) => answer,
        Err(error) => {
            *pending = Some(key);
            return Err(error);
        }
    };
    let (chain, bundle) = checked(shared, response)?;
    let svid = Svid::new(chain, key).map_err(|error| CertificateError::Unusable(error.to_string()))?;
    let saved = last_good::save_credentials(&shared.settings.runtime_dir, &svid, &bundle);
    shared.holder.replace(svid, bundle).map_err(|error| CertificateError::Unusable(error.to_string()))?;
    // A certificate that cannot be kept is still a good one.
    if let Err(error) = saved {
        tracing::warn!(%error, "the certificate could not be kept for a restart");
    }
    if shared.settings.role == Role::Gateway {
        renew_edge(shared, &mut client).await?;
    }
    Ok(())
}

async fn ask(
    shared: &Arc<Shared>,
    key: &PrivateKey,
    validity: Option<Duration>,
) -> Result<(AuthorityClient<tonic::transport::Channel>, IssueResponse), CertificateError> {
    let mut client = AuthorityClient::new(control_channel::open(shared).await?);
    let response = issue(shared, &mut client, key, validity, false).await?;
    Ok((client, response))
}

/// The certificate for the outside; its key is as private as the other.
async fn renew_edge(
    shared: &Arc<Shared>,
    client: &mut AuthorityClient<tonic::transport::Channel>,
) -> Result<(), CertificateError> {
    let key = PrivateKey::generate().map_err(|error| CertificateError::Unusable(error.to_string()))?;
    let response = issue(shared, client, &key, None, true).await?;
    let chain: Vec<_> = response.chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    last_good::save_edge(&shared.settings.runtime_dir, &chain, &key)?;
    use_edge(shared, chain, &key)
}

/// Takes an edge certificate into use.
pub fn use_edge(
    shared: &Shared,
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKey,
) -> Result<(), CertificateError> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der().to_vec()));
    let config = tls::edge_server_config(chain, key, &[b"h2", b"http/1.1"], Arc::new(SystemClock));
    shared.edge.store(Some(config.map_err(|error| CertificateError::Unusable(error.to_string()))?));
    Ok(())
}

async fn issue(
    shared: &Shared,
    client: &mut AuthorityClient<tonic::transport::Channel>,
    key: &PrivateKey,
    validity: Option<Duration>,
    edge: bool,
) -> Result<IssueResponse, CertificateError> {
    let csr = key.csr().map_err(|error| CertificateError::Unusable(error.to_string()))?;
    let validity_seconds = validity.map_or(0, |validity| validity.as_secs().max(1));
    let mut request = tonic::Request::new(IssueRequest { csr: csr.into(), validity_seconds });
    request.set_timeout(Duration::from_secs(10));
    if let ControlAddress::Tcp { join_token: Some(file), .. } = &shared.settings.control
        && shared.holder.current().is_none()
    {
        let token = std::fs::read_to_string(file)?;
        let value = MetadataValue::try_from(token.trim()).map_err(|_not_ascii| bad_token())?;
        request.metadata_mut().insert("x-hms-join-token", value);
    }
    let response = if edge { client.issue_edge(request).await } else { client.issue(request).await };
    Ok(response.map_err(Box::new)?.into_inner())
}

fn bad_token() -> CertificateError {
    CertificateError::Unusable("the join token file holds no token".to_owned())
}

/// What the control plane sent, if its root vouches for it and it is of our domain.
fn checked(
    shared: &Shared,
    response: IssueResponse,
) -> Result<(Vec<CertificateDer<'static>>, TrustBundle), CertificateError> {
    let unusable = |error: String| CertificateError::Unusable(error);
    let bundle = response.bundle.ok_or_else(|| unusable("it came without roots".to_owned()))?;
    let bundle = TrustBundle::from_wire(bundle).map_err(|error| unusable(error.to_string()))?;
    if bundle.trust_domain != shared.settings.trust_domain {
        return Err(unusable(format!("it is of the trust domain {}", bundle.trust_domain)));
    }
    let chain: Vec<_> = response.chain.into_iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    verify_chain(&chain, &bundle, shared.now(), Usage::Server).map_err(|error| unusable(error.to_string()))?;
    Ok((chain, bundle))
}
