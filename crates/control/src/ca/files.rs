//! A certificate and its key on disk, where nobody but their owner can read or replace them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::CaError;

/// Largest file read: a certificate or key of ours has a few hundred bytes.
const LIMIT: u64 = 64 * 1024;

/// A certificate, as it is used and as it is shown.
pub(crate) struct Certificate {
    /// DER.
    pub(crate) der: CertificateDer<'static>,
    /// PEM (RFC 7468).
    pub(crate) pem: String,
}

impl From<rcgen::Certificate> for Certificate {
    fn from(made: rcgen::Certificate) -> Self {
        Self { pem: made.pem(), der: made.into() }
    }
}

/// A certificate authority's certificate and key.
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: Certificate,
    /// The key that belongs to it.
    pub(crate) key: KeyPair,
}

/// Where a pair lies.
pub(crate) struct Paths {
    /// The certificate, PEM.
    pub(crate) certificate: PathBuf,
    /// The key, PKCS#8 PEM.
    pub(crate) key: PathBuf,
}

impl Paths {
    /// `NAME.pem` and `NAME.key` in a directory.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        Self { certificate: directory.join(format!("{name}.pem")), key: directory.join(format!("{name}.key")) }
    }
}

/// Makes `directory` if it is missing, refuses it if anybody else could reach into it, and holds a lock on it until dropped:
/// two processes that start at once must not both make keys.
pub(crate) fn lock(directory: &Path) -> Result<Flock<File>, CaError> {
    let io = |source| CaError::Io { path: directory.to_owned(), source };
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(directory) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let found = fs::symlink_metadata(directory).map_err(io)?;
    if !found.is_dir() {
        return Err(CaError::Unsafe {
            path: directory.to_owned(),
            reason: "it is no directory (a link is not followed)",
        });
    }
    check_owner(directory, &found, 0o077)?;
    let path = directory.join(".lock");
    let file = open_private(&path, OpenOptions::new().read(true).write(true).create(true))
        .map_err(|source| CaError::Io { path: path.clone(), source })?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_file, errno)| CaError::Io { path, source: io::Error::from_raw_os_error(errno as i32) })
}

/// Reads a pair; `None` if neither file exists.
pub(crate) fn load(paths: &Paths) -> Result<Option<Pair>, CaError> {
    let certificate = read(&paths.certificate)?;
    let key = read(&paths.key)?;
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => return Err(half(&paths.certificate, &paths.key)),
        (None, Some(_)) => return Err(half(&paths.key, &paths.certificate)),
    };
    let mismatch = |path: &Path, reason: String| CaError::Mismatch { path: path.to_owned(), reason };
    let certificate =
        parse(&certificate).ok_or_else(|| mismatch(&paths.certificate, "it holds no certificate".to_owned()))?;
    let key = std::str::from_utf8(&key)
        .map_err(|error| error.to_string())
        .and_then(|text| KeyPair::from_pem(text).map_err(|error| error.to_string()))
        // What a parser says of a key stays out of messages.
        .map_err(|_secret| mismatch(&paths.key, "it holds no private key".to_owned()))?;
    let spki = spki_of(&certificate.der).map_err(|reason| mismatch(&paths.certificate, reason))?;
    if spki != rcgen::PublicKeyData::subject_public_key_info(&key) {
        let reason = format!("{} is the key of another certificate", paths.key.display());
        return Err(mismatch(&paths.certificate, reason));
    }
    Ok(Some(Pair { certificate, key }))
}

/// Writes a pair, key first: a key alone has never signed anything that anybody holds.
pub(crate) fn store(paths: &Paths, pair: &Pair) -> Result<(), CaError> {
    let key = Zeroizing::new(pair.key.serialize_pem());
    write(&paths.key, key.as_bytes())?;
    store_certificate(&paths.certificate, &pair.certificate)
}

/// Replaces the certificate of a pair.
pub(crate) fn store_certificate(path: &Path, certificate: &Certificate) -> Result<(), CaError> {
    write(path, certificate.pem.as_bytes())
}

/// The certificate of a PEM file, without whatever stands around it.
fn parse(file: &[u8]) -> Option<Certificate> {
    const END: &str = "-----END CERTIFICATE-----";
    let text = std::str::from_utf8(file).ok()?;
    let begin = text.find("-----BEGIN CERTIFICATE-----")?;
    let end = begin + text.get(begin..)?.find(END)? + END.len();
    let pem = format!("{}\n", text.get(begin..end)?);
    Some(Certificate { der: CertificateDer::from_pem_slice(pem.as_bytes()).ok()?, pem })
}

/// The content of a file that may hold a secret; wiped when dropped.
pub(crate) type Secret = Zeroizing<Vec<u8>>;

/// Reads a secret text of at most 64 KiB; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<Secret>, CaError> {
    let io = |source| CaError::Io { path: path.to_owned(), source };
    let file = match open_private(path, OpenOptions::new().read(true)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
            return Err(CaError::Unsafe { path: path.to_owned(), reason: "it is a symbolic link" });
        }
        Err(error) => return Err(io(error)),
    };
    let found = file.metadata().map_err(io)?;
    if !found.is_file() {
        return Err(CaError::Unsafe { path: path.to_owned(), reason: "it is no regular file" });
    }
    check_owner(path, &found, 0o077)?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LIMIT).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

/// Writes a file that only its owner can read: beside it first, then renamed over it, so that a reader sees the old or the
/// new one and never half of one.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), CaError> {
    let io = |source| CaError::Io { path: path.to_owned(), source };
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let mut file = open_private(&beside, OpenOptions::new().write(true).create_new(true)).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&beside, path).map_err(io)?;
    // The rename itself must survive a power cut as well.
    path.parent().map_or(Ok(()), |parent| File::open(parent).and_then(|parent| parent.sync_all())).map_err(io)
}

/// Opens without following a link and without waiting at a pipe; a file that is made is 0600.
fn open_private(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    options.mode(0o600).custom_flags(flags.bits()).open(path)
}

/// Refuses what belongs to somebody else or grants a bit of `forbidden`.
fn check_owner(path: &Path, found: &fs::Metadata, forbidden: u32) -> Result<(), CaError> {
    let unsafe_because = |reason| Err(CaError::Unsafe { path: path.to_owned(), reason });
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return unsafe_because("it belongs to another user");
    }
    if found.mode() & forbidden != 0 {
        return unsafe_because("others may read or change it (chmod go-rwx mends that)");
    }
    Ok(())
}

fn half(present: &Path, missing: &Path) -> CaError {
    CaError::Half { present: present.to_owned(), missing: missing.to_owned() }
}

/// The subject public key info of a certificate, DER.
fn spki_of(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, String> {
    let (_rest, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("it holds no readable certificate ({error})"))?;
    Ok(parsed.public_key().raw.to_vec())
}
