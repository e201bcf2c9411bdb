//! Directories and files of the control plane that nobody else may touch.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rand::TryRngCore as _;
use zeroize::Zeroizing;

/// Makes a directory that only its owner can enter, or refuses the one that is there if others can.
pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    let refuse = |reason: &str| Err(io::Error::other(format!("{}: {reason}", path.display())));
    if !found.is_dir() {
        return refuse("it is no directory (a link is not followed)");
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("it belongs to another user");
    }
    if found.mode() & 0o077 != 0 {
        return refuse("others may enter it; chmod 700 it");
    }
    Ok(())
}

/// Writes a file (0600) so that a reader sees the old content or the new, never a part.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(fresh, path)
}

/// The token of the REST API: 64 hexadecimal digits, made at the first start.
pub(super) fn admin_token(path: &Path) -> io::Result<Zeroizing<String>> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    match fs::OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => {
            let found = file.metadata()?;
            if found.mode() & 0o077 != 0 || found.uid() != nix::unistd::geteuid().as_raw() {
                return Err(io::Error::other(format!("{}: others may read it; delete it", path.display())));
            }
            let mut text = Zeroizing::new(String::new());
            file.take(1024).read_to_string(&mut text)?;
            let token = Zeroizing::new(text.trim().to_owned());
            if token.len() != 64 || !token.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(io::Error::other(format!("{}: it holds no token; delete it", path.display())));
            }
            Ok(token)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = Zeroizing::new([0_u8; 32]);
            rand::rngs::OsRng.try_fill_bytes(secret.as_mut()).map_err(io::Error::other)?;
            let token = Zeroizing::new(crate::registry::hex(secret.as_ref()));
            write_atomically(path, token.as_bytes())?;
            Ok(token)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_refused_when_others_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let token = admin_token(&path).unwrap();
        assert_eq!((token.len(), admin_token(&path).unwrap()), (64, token));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(admin_token(&path).is_err());
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run");
        private_directory(&path).unwrap();
        private_directory(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(private_directory(&path).is_err());
    }
}
