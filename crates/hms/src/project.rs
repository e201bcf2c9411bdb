//! Which project a command is about, and where that project keeps its things.

use std::fmt::Write as _;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::settings::{Directories, Settings};

/// The file that makes a folder a project.
pub(crate) const MESH_FILE: &str = "mesh.yaml";
/// Names a route file may have.
pub(crate) const ROUTE_FILES: [&str; 3] = ["route.yaml", "route.yml", "route.json"];
/// The longest socket path we make; the kernel takes 107 bytes (unix(7)).
const LONGEST_SOCKET: usize = 100;

/// One mesh on this laptop: a folder, and the private folders that belong to it.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The folder, canonical.
    pub(crate) root: PathBuf,
    /// `<sanitised name>-<8 hex digits of the folder's hash>`.
    pub(crate) id: String,
    /// What survives a reboot.
    pub(crate) state: PathBuf,
    /// What does not: sockets, keys.
    pub(crate) run: PathBuf,
    /// What belongs to the user, not to the project: the edge authority.
    pub(crate) data: PathBuf,
}

impl Project {
    /// The project a command is about: `--project`, else the nearest folder upward that has a `mesh.yaml`, a mesh, or
    /// services with route files one level below, else this folder.
    pub(crate) fn find(settings: &Settings) -> Result<Self, Failure> {
        let start = match &settings.project {
            Some(folder) => folder.clone(),
            None => std::env::current_dir().map_err(|error| unreadable(Path::new("."), &error))?,
        };
        let start = start.canonicalize().map_err(|error| unreadable(&start, &error))?;
        if !start.is_dir() {
            return Err(Failure::new(Exit::Usage, 1005, format!("{} is no folder", start.display())));
        }
        if settings.project.is_some() {
            return Ok(Self::at(start, &settings.directories));
        }
        let found = start.ancestors().find(|folder| is_project(folder, &settings.directories));
        Ok(Self::at(found.unwrap_or(&start).to_path_buf(), &settings.directories))
    }

    /// The project of a canonical folder.
    pub(crate) fn at(root: PathBuf, directories: &Directories) -> Self {
        let id = project_id(&root);
        Self {
            state: directories.state.join(&id),
            run: directories.run.join(&id),
            data: directories.data.clone(),
            id,
            root,
        }
    }

    /// Registry, authority, token: private.
    pub(crate) fn control_dir(&self) -> PathBuf {
        self.state.join("control")
    }

    /// Logs of programs and proxies.
    pub(crate) fn sidecar_dir(&self) -> PathBuf {
        self.state.join("sidecar")
    }

    /// Public certificates.
    pub(crate) fn certs_dir(&self) -> PathBuf {
        self.state.join("certs")
    }

    /// The folder `CURL_HOME` names.
    pub(crate) fn curl_dir(&self) -> PathBuf {
        self.state.join("curl")
    }

    /// The control plane's socket.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// What the control plane says of itself while it serves.
    pub(crate) fn control_file(&self) -> PathBuf {
        self.run.join("control.json")
    }

    /// What the gateway's supervisor says of it.
    pub(crate) fn gateway_file(&self) -> PathBuf {
        self.run.join("gateway.json")
    }

    /// Held by the command that starts the control plane or services.
    pub(crate) fn start_lock(&self) -> PathBuf {
        self.run.join(".lock")
    }

    /// Private folders of the proxies.
    pub(crate) fn proxies_dir(&self) -> PathBuf {
        self.run.join("proxies")
    }

    /// Records and sockets of the supervisors.
    pub(crate) fn supervisors_dir(&self) -> PathBuf {
        self.run.join("supervisors")
    }

    /// The project's `mesh.yaml`, if there is one.
    pub(crate) fn mesh_file(&self) -> Option<PathBuf> {
        Some(self.root.join(MESH_FILE)).filter(|path| path.is_file())
    }

    /// Makes every folder, private to this user, and refuses folders that others own or can write.
    pub(crate) fn prepare(&self) -> Result<(), Failure> {
        let runtime_root = self.run.parent().unwrap_or(&self.run);
        private_dir(runtime_root)?;
        for folder in [&self.state, &self.control_dir(), &self.sidecar_dir(), &self.certs_dir(), &self.curl_dir()] {
            private_dir(folder)?;
        }
        for folder in [&self.data, &self.run, &self.proxies_dir(), &self.supervisors_dir()] {
            private_dir(folder)?;
        }
        let longest = self.supervisors_dir().join("1234567890.lifeline");
        if longest.as_os_str().len() > LONGEST_SOCKET {
            return Err(Failure::new(Exit::Failed, 1009, "the runtime folder's path is too long for a socket")
                .at(self.run.display().to_string())
                .because(format!("{} bytes, at most {LONGEST_SOCKET} work", longest.as_os_str().len()))
                .fix("set XDG_RUNTIME_DIR to a shorter path"));
        }
        Ok(())
    }
}

/// Whether a folder is one a mesh belongs to.
fn is_project(folder: &Path, directories: &Directories) -> bool {
    if folder.join(MESH_FILE).is_file() {
        return true;
    }
    let id = project_id(folder);
    if directories.state.join(&id).is_dir() || directories.run.join(&id).is_dir() {
        return true;
    }
    // The home folder and the root hold many things that happen to lie below; they must say so with a mesh.yaml.
    folder != directories.home && folder.parent().is_some() && has_services_below(folder)
}

/// Whether a folder one level below holds a route file. Gives up on crowded folders.
fn has_services_below(folder: &Path) -> bool {
    const CROWDED: usize = 1000;
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries
        .take(CROWDED)
        .filter_map(Result::ok)
        .any(|entry| ROUTE_FILES.iter().any(|name| entry.path().join(name).is_file()))
}

/// The id of the project in a canonical folder.
fn project_id(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut id: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(24)
        .collect::<String>()
        .trim_matches('-')
        .to_owned();
    if id.is_empty() {
        id.push_str("root");
    }
    id.push('-');
    for byte in Sha256::digest(root.as_os_str().as_bytes()).iter().take(4) {
        // Writing to a String cannot fail.
        let _ = write!(id, "{byte:02x}");
    }
    id
}

/// Makes a folder that only this user may enter, or checks that it is one.
pub(crate) fn private_dir(path: &Path) -> Result<(), Failure> {
    let unsafe_folder = |why: String| {
        Failure::new(Exit::Failed, 1009, "a private folder is not private").at(path.display().to_string()).because(why)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        Failure::new(Exit::Failed, 1009, "cannot make a private folder")
            .at(path.display().to_string())
            .because(error.to_string())
    })?;
    let metadata = std::fs::symlink_metadata(path).map_err(|error| unsafe_folder(error.to_string()))?;
    if !metadata.is_dir() {
        return Err(unsafe_folder("it is no folder, perhaps a symbolic link".to_owned()).fix("remove it"));
    }
    let user = nix::unistd::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(unsafe_folder(format!("it belongs to user {}, not to {user}", metadata.uid())));
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(|error| unsafe_folder(format!("others may enter it, and its mode cannot be changed: {error}")))?;
    }
    Ok(())
}

/// Writes a small file as a whole: readers see the old one or the new one. Mode 0600 unless `public`, then 0644.
pub(crate) fn write_file(path: &Path, text: &str, public: bool) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}", std::process::id()));
    let beside = path.with_file_name(name);
    let mode = if public { 0o644 } else { 0o600 };
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    drop(file);
    std::fs::rename(&beside, path)
}

/// The failure for a path that cannot be read.
pub(crate) fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Failed, 1005, format!("cannot read {}", path.display())).because(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Environment;

    fn directories(home: &Path) -> Directories {
        Directories::resolve(&Environment::of(&[
            ("HOME", home.to_str().unwrap()),
            ("XDG_RUNTIME_DIR", home.join("run").to_str().unwrap()),
        ]))
        .unwrap()
    }

    fn settings(home: &Path, project: &Path) -> Settings {
        let globals = crate::cli::Globals {
            project: Some(project.to_path_buf()),
            server: None,
            namespace: None,
            output: None,
            quiet: false,
            verbose: 0,
            color: None,
            timeout: None,
            yes: false,
        };
        let environment = Environment::of(&[("HOME", home.to_str().unwrap())]);
        Settings::resolve(&globals, environment).unwrap()
    }

    #[test]
    fn walking_up_stops_at_the_nearest_project() {
        let home = tempfile::tempdir().unwrap();
        let root = home.path().canonicalize().unwrap();
        let directories = directories(&root);
        let lab = root.join("work/lab");
        let service = lab.join("calc_svc");
        std::fs::create_dir_all(service.join("deep")).unwrap();
        let found = |from: &Path| from.ancestors().find(|f| is_project(f, &directories)).map(Path::to_path_buf);
        assert_eq!(found(&service.join("deep")), None);
        std::fs::write(service.join("route.yaml"), "").unwrap();
        assert_eq!(found(&service.join("deep")), Some(lab), "a service one level below makes a project");
        assert_eq!(found(&root), None, "the home folder does not become one by accident");
        std::fs::write(service.join(MESH_FILE), "").unwrap();
        assert_eq!(found(&service.join("deep")), Some(service), "mesh.yaml decides");
    }

    #[test]
    fn ids_are_readable_and_differ_by_path() {
        let one = project_id(Path::new("/home/lena/My Lab!"));
        assert!(one.starts_with("my-lab-") && one.len() == "my-lab-".len() + 8, "{one}");
        assert_ne!(one, project_id(Path::new("/home/max/My Lab!")));
        assert!(project_id(Path::new("/")).starts_with("root-"));
        assert!(project_id(Path::new(&format!("/{}", "x".repeat(300)))).len() <= 33);
    }

    #[test]
    fn folders_are_private_and_links_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let project = Project::find(&settings(home.path(), home.path())).unwrap();
        assert_eq!(project.root, home.path().canonicalize().unwrap());
        let folder = home.path().join("a/b");
        private_dir(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        std::fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        private_dir(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().mode() & 0o777, 0o700, "opened folders are closed again");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(private_dir(&link).is_err());
    }

    #[test]
    fn files_appear_whole_and_private() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("x.json");
        write_file(&path, "{}", false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
