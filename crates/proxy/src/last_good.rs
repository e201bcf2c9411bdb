//! What a proxy needs to serve after a restart without a control plane: its credentials and the resources it last accepted, in its
//! private directory in memory. A checksum keyed with the private key notices corruption and other users' hands; it does not
//! protect against the same user, and nothing here could.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_model::resource::Resource;
use hms_model::trust::TrustBundle;
use hms_wire::{Wire as _, decode, encode};
use prost::Message as _;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

const RESOURCES: &str = "last-good";
const KEY: &str = "key.der";
const CHAIN: &str = "chain";
const BUNDLE: &str = "bundle";
const EDGE_KEY: &str = "edge-key.der";
const EDGE_CHAIN: &str = "edge-chain";
/// First bytes of the resources' file; a later format gets another number.
const MAGIC: &[u8; 8] = b"hmslast1";
/// Largest file read back.
const MOST: u64 = 256 * 1024 * 1024;

/// The resources by name with their versions.
pub type Held = BTreeMap<String, (String, Resource)>;

/// Makes the directory ours alone: 0700, and owned by us. Somebody else's directory is refused.
pub fn prepare(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let meta = fs::symlink_metadata(dir)?;
    if !meta.is_dir() || meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a directory of ours", dir.display()),
        ));
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
}

/// Writes a file as a whole or not at all, readable by us alone.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!(".{name}.{}", std::process::id()));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))
}

/// Reads a file of ours: a plain one, owned by us, that nobody else may touch.
fn read(dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    let path = dir.join(name);
    let meta = fs::symlink_metadata(&path)?;
    let ours = meta.is_file()
        && meta.uid() == nix::unistd::geteuid().as_raw()
        && meta.permissions().mode().trailing_zeros() >= 6;
    if !ours || meta.len() > MOST {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} is not a private file of ours", path.display()),
        ));
    }
    fs::read(path)
}

/// Keeps a certificate with its key and the roots.
pub fn save_credentials(dir: &Path, svid: &Svid, bundle: &TrustBundle) -> io::Result<()> {
    // The key first: a chain without its key is noticed, a key without its chain is harmless.
    write(dir, KEY, &svid.key().to_pkcs8_der())?;
    write(dir, CHAIN, &join(svid.chain()))?;
    write(dir, BUNDLE, &bundle.to_wire().encode_to_vec())
}

/// The kept certificate; `None` if there is none that fits together.
pub fn load_credentials(dir: &Path) -> Option<(Svid, TrustBundle)> {
    let key = PrivateKey::from_pkcs8_der(&zeroize_on_drop(read(dir, KEY).ok()?)).ok()?;
    let svid = Svid::new(split(&read(dir, CHAIN).ok()?)?, key).ok()?;
    let bundle = hms_wire::proto::hms::v1::TrustBundle::decode(read(dir, BUNDLE).ok()?.as_slice()).ok()?;
    Some((svid, TrustBundle::from_wire(bundle).ok()?))
}

/// Keeps the edge certificate with its key.
pub fn save_edge(dir: &Path, chain: &[CertificateDer<'_>], key: &PrivateKey) -> io::Result<()> {
    write(dir, EDGE_KEY, &key.to_pkcs8_der())?;
    write(dir, EDGE_CHAIN, &join(chain))
}

/// The kept edge certificate.
pub fn load_edge(dir: &Path) -> Option<(Vec<CertificateDer<'static>>, PrivateKey)> {
    let key = PrivateKey::from_pkcs8_der(&zeroize_on_drop(read(dir, EDGE_KEY).ok()?)).ok()?;
    Some((split(&read(dir, EDGE_CHAIN).ok()?)?, key))
}

/// Keeps the resources that were accepted.
pub fn save_resources(dir: &Path, held: &Held, key: &PrivateKey) -> io::Result<()> {
    let mut body = Vec::new();
    for (name, (version, resource)) in held {
        for part in [name.as_bytes(), version.as_bytes(), &encode(resource)] {
            body.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            body.extend_from_slice(part);
        }
    }
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&authenticate(key, &body));
    file.extend_from_slice(&body);
    write(dir, RESOURCES, &file)
}

/// The kept resources; `None` if there are none or they were tampered with.
pub fn load_resources(dir: &Path, key: &PrivateKey) -> Option<Held> {
    let file = read(dir, RESOURCES).ok()?;
    let rest = file.strip_prefix(MAGIC.as_slice())?;
    let (mac, mut body) = rest.split_at_checked(32)?;
    if !bool::from(authenticate(key, body).as_slice().ct_eq(mac)) {
        tracing::warn!("the last good configuration was altered and is not used");
        return None;
    }
    let mut held = Held::new();
    while !body.is_empty() {
        let name = String::from_utf8(take(&mut body)?.to_vec()).ok()?;
        let version = String::from_utf8(take(&mut body)?.to_vec()).ok()?;
        let resource = decode(take(&mut body)?).ok()?;
        held.insert(name, (version, resource));
    }
    Some(held)
}

/// HMAC-SHA-256 (RFC 2104) under a key derived from the private key, so that the file needs no secret of its own.
fn authenticate(key: &PrivateKey, body: &[u8]) -> [u8; 32] {
    let secret = Sha256::new().chain_update(b"hms last good").chain_update(key.to_pkcs8_der().as_slice()).finalize();
    let padded = |pad: u8| {
        let mut block = [pad; 64];
        for (byte, secret) in block.iter_mut().zip(secret.iter()) {
            *byte ^= secret;
        }
        block
    };
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(body).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (part, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *bytes = rest;
    Some(part)
}

fn join(chain: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for der in chain {
        out.extend_from_slice(&u32::try_from(der.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(der);
    }
    out
}

fn split(mut bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        chain.push(CertificateDer::from(take(&mut bytes)?.to_vec()));
    }
    Some(chain)
}

fn zeroize_on_drop(bytes: Vec<u8>) -> zeroize::Zeroizing<Vec<u8>> {
    zeroize::Zeroizing::new(bytes)
}

#[cfg(test)]
mod tests {
    use hms_model::names::ServiceName;

    use super::*;

    fn held() -> Held {
        let name = ServiceName::new("calc-svc").unwrap();
        let resource = Resource::Declaration(hms_model::resource::Declaration::new(name));
        Held::from([(resource.key().to_string(), ("v1".to_owned(), resource))])
    }

    #[test]
    fn resources_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let key = PrivateKey::generate().unwrap();
        save_resources(dir.path(), &held(), &key).unwrap();
        assert_eq!(load_resources(dir.path(), &key), Some(held()));
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let key = PrivateKey::generate().unwrap();
        save_resources(dir.path(), &held(), &key).unwrap();
        let good = read(dir.path(), RESOURCES).unwrap();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            write(dir.path(), RESOURCES, &bad).unwrap();
            assert_eq!(load_resources(dir.path(), &key), None, "byte {index}");
        }
        for length in 0..good.len() {
            write(dir.path(), RESOURCES, &good[..length]).unwrap();
            assert_eq!(load_resources(dir.path(), &key), None, "length {length}");
        }
        write(dir.path(), RESOURCES, &good).unwrap();
        assert_eq!(load_resources(dir.path(), &PrivateKey::generate().unwrap()), None, "another key");
    }

    #[test]
    fn files_that_others_could_touch_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        let key = PrivateKey::generate().unwrap();
        save_resources(dir.path(), &held(), &key).unwrap();
        fs::set_permissions(dir.path().join(RESOURCES), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(load_resources(dir.path(), &key), None);
        fs::remove_file(dir.path().join(RESOURCES)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(RESOURCES)).unwrap();
        assert_eq!(load_resources(dir.path(), &key), None);
    }
}
