//! `cargo xtask engine`: the test of containers with a real engine and a real Compose, on a machine that has neither.
//!
//! Docker Engine comes from the system's packages, unpacked and not installed; Compose from its module; the image from the system's
//! packages. All of it runs in network, mount and process namespaces of its own: no bridge and no rule is left behind, and no process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;

use crate::process::{cargo_command, output_of, run as start, say};
use crate::settings::{path_after, target};
use crate::{Outcome, debian, golang};

/// The packages that an engine consists of.
const PACKAGES: [&str; 3] = ["docker.io", "containerd", "runc"];
/// What Compose is built of, and where it keeps its version.
const COMPOSE: (&str, &str) = ("github.com/docker/compose/v2", "v2.36.2");
/// What the test needs of its image, beside a minimal system.
const INCLUDED: &str = "--include=python3,curl";
/// The image's name.
const IMAGE: &str = "hms-test/base:1";
/// Starts the engine at the first argument, gives it the image at the second, and runs the others.
const SCRIPT: &str = "set -e; folder=$1; image=$2; shift 2; ip link set lo up
dockerd --host=\"$DOCKER_HOST\" --bridge=none --data-root=\"$folder/data\" --exec-root=\"$folder/exec\" \
    --pidfile=\"$folder/pid\" >\"$folder/log\" 2>&1 &
tries=0; until docker version >/dev/null 2>&1; do
    tries=$((tries + 1)); if [ $tries -gt 300 ]; then cat \"$folder/log\"; exit 1; fi; sleep 0.1
done
docker import \"$image\" \"$HMS_TEST_ENGINE_IMAGE\" >/dev/null
exec \"$@\"";

/// Runs the test.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if !arguments.is_empty() {
        return Err("`cargo xtask engine` takes no arguments".to_owned());
    }
    if !geteuid().is_root() {
        return Err("an engine needs root: sudo cargo xtask engine".to_owned());
    }
    let folder = target().join("tools/engine");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let programs = engine(&folder)?;
    let plugins = compose(&folder)?;
    let image = image(&folder)?;
    start(&mut cargo_command(&["build", "-p", "hms", "-p", "hms-proxy"]))?;
    start(&mut cargo_command(&["test", "-p", "hms-testkit", "--test", "engine", "--no-run"]))?;
    // Sockets have short paths, and what an engine keeps is of no use to the next.
    let state = PathBuf::from(format!("/tmp/hms-engine-{}", std::process::id()));
    fs::create_dir(&state).map_err(|error| format!("{}: {error}", state.display()))?;
    let ended = with_engine(&state, &programs, &plugins, &image);
    fs::remove_dir_all(&state).map_err(|error| format!("{}: {error}", state.display()))?;
    ended
}

/// Runs the test where an engine serves that keeps everything in `state`.
fn with_engine(state: &Path, programs: &[PathBuf], plugins: &Path, image: &Path) -> Outcome {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "--",
        "sh",
        "-c",
        SCRIPT,
        "sh",
    ]);
    command.arg(state).arg(image).arg("cargo");
    command.args(["test", "--offline", "-p", "hms-testkit", "--test", "engine"]);
    command.current_dir(crate::settings::root());
    command.env("DOCKER_HOST", format!("unix://{}/docker.sock", state.display()));
    command.env("DOCKER_CONFIG", plugins).env("HMS_TEST_ENGINE_IMAGE", IMAGE).env("PATH", path_after(programs)?);
    start(&mut command)
}

/// The folders of the engine's programs.
fn engine(folder: &Path) -> Result<Vec<PathBuf>, String> {
    // An engine without it has no networks.
    debian::tool("iptables", "iptables", "--version")?;
    let unpacked = folder.join("system");
    let folders = ["usr/bin", "usr/sbin"].map(|name| unpacked.join(name));
    if !folders.iter().any(|folder| folder.join("dockerd").is_file()) {
        say(&format!("unpacking {} into {}", PACKAGES.join(", "), unpacked.display()));
        let packages = folder.join("packages");
        fs::create_dir_all(&packages).map_err(|error| format!("{}: {error}", packages.display()))?;
        start(Command::new("apt-get").args(["-qq", "download"]).args(PACKAGES).current_dir(&packages))?;
        for package in fs::read_dir(&packages).map_err(|error| error.to_string())?.filter_map(Result::ok) {
            start(Command::new("dpkg").arg("-x").arg(package.path()).arg(&unpacked))?;
        }
    }
    Ok(folders.to_vec())
}

/// The folder that tells `docker` of its Compose.
fn compose(folder: &Path) -> Result<PathBuf, String> {
    let config = folder.join("config");
    let program = config.join("cli-plugins/docker-compose");
    if !program.is_file() {
        let (module, version) = COMPOSE;
        say(&format!("building {module}@{version}; this takes some minutes"));
        let go = golang::go()?;
        let said = output_of(Command::new(go).args(["mod", "download", "-json", &format!("{module}@{version}")]))?;
        let said: serde_json::Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let source =
            said.get("Dir").and_then(serde_json::Value::as_str).ok_or("go has not said where the module is")?;
        // What excludes versions of others cannot be installed by its name, and the module's own folder cannot be written.
        let copy = folder.join("compose");
        start(Command::new("rm").arg("-rf").arg(&copy))?;
        start(Command::new("cp").args(["-r", "--no-preserve=mode", source]).arg(&copy))?;
        let name = format!("-X {module}/internal.Version={version}");
        start(Command::new(go).args(["build", "-ldflags", &name, "-o"]).arg(&program).arg("./cmd").current_dir(&copy))?;
    }
    Ok(config)
}

/// A minimal system with what the test needs, as a file.
fn image(folder: &Path) -> Result<PathBuf, String> {
    debian::tool("mmdebstrap", "mmdebstrap", "--version")?;
    let file = folder.join("image.tar");
    if !file.is_file() {
        let release = output_of(Command::new("sh").args(["-c", ". /etc/os-release; echo $VERSION_CODENAME"]))?;
        say(&format!("making a minimal {}", release.trim()));
        let made = folder.join("unfinished.tar");
        start(Command::new("mmdebstrap").args(["--quiet", "--variant=minbase", INCLUDED, release.trim()]).arg(&made))?;
        fs::rename(&made, &file).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(file)
}
