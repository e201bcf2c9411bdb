//! The edge authority: vouches for the names a gateway shows to the outside of this machine's user, and can vouch for nothing
//! else. Its root carries critical name constraints (RFC 5280 §4.2.1.10), so a browser that trusts it believes it about
//! `gateway.local` and never about `example.com`, whoever should come to hold the key.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hms_identity::clock::Clock;
use rcgen::{
    BasicConstraints, CidrSubnet, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose,
    NameConstraints, SanType,
};

use super::attest::Attestation;
use super::files::{self, Pair, Paths};
use super::issuer::requested_key;
use super::{CaError, DAY, IssueError, Issued, Life, named, parameters};

/// Life of the edge root. Ten years.
const ROOT_LIFE: Duration = DAY.saturating_mul(3652);
/// Life of a gateway's certificate. 30 days.
const LIFE: Duration = DAY.saturating_mul(30);
/// The domains under which names may be vouched for.
const DOMAINS: [&str; 3] = ["local", "localhost", "mesh"];
/// The names every gateway answers for, beside the loopback addresses (ruling R12).
const HOSTS: [&str; 3] = ["gateway.local", "localhost", "gateway.localhost"];
/// Most names in one certificate.
const MOST_HOSTS: usize = 64;

/// The edge authority of one user.
pub struct EdgeCa {
    pair: Pair,
    not_after: SystemTime,
    clock: Arc<dyn Clock>,
    issued: AtomicU64,
}

impl fmt::Debug for EdgeCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EdgeCa").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl EdgeCa {
    /// Opens `edge-ca.pem` and `edge-ca.key` in `directory` (0700; made if missing), or makes them. All projects of a user share
    /// them, so that trust has to be given only once.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Self, CaError> {
        let _lock = files::lock(directory)?;
        let paths = Paths::new(directory, "edge-ca");
        let pair = if let Some(pair) = files::load(&paths)? {
            pair
        } else {
            let pair = make(clock.now()).map_err(CaError::Make)?;
            files::store(&paths, &pair)?;
            tracing::info!(target: "audit", path = %paths.certificate.display(), "made the edge authority");
            pair
        };
        let end = read(&pair).map_err(|reason| CaError::Mismatch { path: paths.certificate, reason })?;
        Ok(Self { pair, not_after: end, clock, issued: AtomicU64::new(0) })
    }

    /// The root in PEM, for those who are to trust it; public.
    pub fn root_pem(&self) -> String {
        self.pair.certificate.pem.clone()
    }

    /// When the edge root ends.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// How many certificates were issued since the start.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// Whether a name lies within the constraints.
    pub fn may_vouch_for(host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_name) => {
                let labels = || host.split('.');
                host.len() <= 253
                    && labels().all(|label| hms_model::names::Label::new(label).is_ok())
                    && labels().next_back().is_some_and(|last| DOMAINS.contains(&last))
            }
        }
    }

    /// Issues a gateway's certificate for the key of a PKCS#10 request: for the names every gateway has, the loopback
    /// addresses, and those of `hosts` that lie within the constraints. The others are left out and told.
    pub fn issue(&self, request: &[u8], hosts: &[String], attestation: &Attestation) -> Result<Issued, IssueError> {
        let key = requested_key(request)?;
        let life = Life::from(self.clock.now(), LIFE).within(self.not_after);
        let names = names(hosts)?;
        let text = |error: rcgen::Error| IssueError::Sign(error.to_string());
        let (mut leaf, serial) = parameters(&life).map_err(IssueError::Sign)?;
        named(&mut leaf, "gateway");
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.subject_alt_names = names;
        let issuer = rcgen::Issuer::from_ca_cert_der(&self.pair.certificate.der, &self.pair.key).map_err(text)?;
        let signed = leaf.signed_by(&key, &issuer).map_err(text)?;
        self.issued.fetch_add(1, Ordering::Relaxed);
        tracing::info!(target: "audit", serial, proof = %attestation, "issued an edge certificate");
        Ok(Issued { chain: vec![signed.into()], serial, not_before: life.not_before, not_after: life.not_after })
    }
}

/// The subject alternative names of a gateway.
fn names(hosts: &[String]) -> Result<Vec<SanType>, IssueError> {
    let mut names: Vec<String> = HOSTS.iter().map(ToString::to_string).collect();
    for host in hosts {
        let host = host.to_ascii_lowercase();
        if !EdgeCa::may_vouch_for(&host) {
            tracing::warn!(host, "the edge authority may not vouch for this name; bring a certificate for it");
        } else if !names.contains(&host) && names.len() < MOST_HOSTS {
            names.push(host);
        }
    }
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut sans = Vec::with_capacity(names.len() + addresses.len());
    for name in names {
        match name.parse() {
            Ok(address) if addresses.contains(&address) => {}
            Ok(address) => addresses.push(address),
            Err(_name) => {
                sans.push(SanType::DnsName(name.as_str().try_into().map_err(|_bad| IssueError::ForeignHost(name))?));
            }
        }
    }
    sans.extend(addresses.into_iter().map(SanType::IpAddress));
    Ok(sans)
}

fn make(now: SystemTime) -> Result<Pair, String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let (mut root, serial) = parameters(&Life::from(now, ROOT_LIFE))?;
    // Each has a name of its own: two roots of one name in a trust store are mistaken for each other.
    named(&mut root, &format!("HMS Mesh edge {}", serial.get(..8).unwrap_or_default()));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let names = DOMAINS.iter().map(|domain| GeneralSubtree::DnsName((*domain).to_owned()));
    let addresses =
        [CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8), CidrSubnet::from_v6_prefix(Ipv6Addr::LOCALHOST.octets(), 128)];
    root.name_constraints = Some(NameConstraints {
        permitted_subtrees: names.chain(addresses.into_iter().map(GeneralSubtree::IpAddress)).collect(),
        excluded_subtrees: Vec::new(),
    });
    let certificate = root.self_signed(&key).map_err(|error| error.to_string())?.into();
    Ok(Pair { certificate, key })
}

/// The end of the root. One without critical constraints was not made here and is not used.
fn read(pair: &Pair) -> Result<SystemTime, String> {
    let (_rest, parsed) =
        x509_parser::parse_x509_certificate(&pair.certificate.der).map_err(|error| error.to_string())?;
    let oid = x509_parser::oid_registry::OID_X509_EXT_NAME_CONSTRAINTS;
    let constraints = parsed.get_extension_unique(&oid).map_err(|error| error.to_string())?;
    if !parsed.is_ca() || !constraints.is_some_and(|extension| extension.critical) {
        return Err("it is no name-constrained authority, so it was not made here".to_owned());
    }
    Ok(parsed.validity().not_after.to_datetime().into())
}

#[cfg(test)]
mod tests;
