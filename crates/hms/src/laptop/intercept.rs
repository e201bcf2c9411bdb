//! How the packets of an application get to its proxy: which ways there are, which one this machine allows, and what to change for a
//! better one.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use hms_formats::mesh_yaml::Intercept;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use super::sidecar::Surroundings;
use crate::cli::InterceptChoice;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::project::Project;

/// How long trying may take; it takes some tens of milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way where nobody says.
const DEFAULT: Intercept = Intercept::Auto;

/// How an application is captured, and why so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Capture {
    /// The way.
    pub(crate) mode: Mode,
    /// Why this one.
    pub(crate) why: String,
    /// What to change for a better one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

impl Capture {
    /// Before anything is started.
    pub(crate) fn undecided() -> Self {
        Self { mode: Mode::None, why: String::new(), fix: String::new() }
    }
}

/// The ways, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// In namespaces of its own.
    Netns,
    /// By notifications of its system calls.
    Notify,
    /// In a container, whose network is its sidecar's.
    Joined,
    /// By `HTTP_PROXY` and `<NAME>_URL`.
    Env,
    /// By `<NAME>_URL` alone.
    Port,
    /// Not at all.
    None,
}

impl Mode {
    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Notify => "notify",
            Self::Joined => "joined",
            Self::Env => "env",
            Self::Port => "port",
            Self::None => "none",
        }
    }

    /// What the application's shepherd is told.
    pub(crate) fn of_shepherd(self) -> &'static str {
        match self {
            Self::Netns | Self::Notify => self.as_str(),
            Self::Joined | Self::Env | Self::Port | Self::None => "none",
        }
    }

    /// Whether the application's network is not the laptop's.
    pub(crate) fn is_private(self) -> bool {
        matches!(self, Self::Netns | Self::Joined)
    }

    /// Whether the application needs no word from us to reach the mesh.
    pub(crate) fn is_transparent(self) -> bool {
        matches!(self, Self::Netns | Self::Notify)
    }
}

impl From<InterceptChoice> for Intercept {
    fn from(choice: InterceptChoice) -> Self {
        match choice {
            InterceptChoice::Auto => Self::Auto,
            InterceptChoice::Netns => Self::Netns,
            InterceptChoice::Notify => Self::Notify,
            InterceptChoice::Env => Self::Env,
            InterceptChoice::Port => Self::Port,
            InterceptChoice::None => Self::None,
        }
    }
}

/// What trying showed, as `hms-proxy __capture` says it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Tried {
    mode: Mode,
    /// Why it is none of the better ones.
    why: String,
    #[serde(default)]
    milliseconds: u128,
}

/// The folders an application does not see: by the sockets in them it could speak to the mesh as somebody else.
pub(crate) fn masks(project: &Project) -> Vec<PathBuf> {
    let runtime = project.run.parent().unwrap_or(&project.run).to_path_buf();
    vec![runtime, project.control_dir(), project.data.clone()]
}

/// The way for an application for which `wanted` was asked.
pub(crate) async fn choose(around: &Surroundings, wanted: Option<Intercept>) -> Result<Capture, Failure> {
    let asked = |mode: Mode| Capture { mode, why: "asked for".to_owned(), fix: String::new() };
    match wanted.unwrap_or(DEFAULT) {
        Intercept::Env => return Ok(asked(Mode::Env)),
        Intercept::Port => return Ok(asked(Mode::Port)),
        Intercept::None => return Ok(asked(Mode::None)),
        Intercept::Notify => return Ok(asked(Mode::Notify)),
        Intercept::Auto | Intercept::Netns => {}
    }
    let tried = around.tried.get_or_try_init(|| attempt(around)).await?.clone();
    match (tried.mode, wanted) {
        (Mode::Netns, _) => {
            let why = format!("a network of its own, set up in {} ms", tried.milliseconds);
            Ok(Capture { mode: Mode::Netns, why, fix: String::new() })
        }
        (_, Some(Intercept::Netns)) => Err(impossible(&tried.why)),
        (mode, _) => {
            let mode = if mode == Mode::Notify { mode } else { Mode::Env };
            Ok(Capture { mode, why: format!("HMS-1201 no namespaces: {}", tried.why), fix: remedy() })
        }
    }
}

fn impossible(why: &str) -> Failure {
    Failure::new(Exit::Failed, 1201, "cannot capture in namespaces").because(why.to_owned()).fix(remedy())
}

/// What this machine forbids, in the order in which it is usually found.
fn remedy() -> String {
    let setting =
        |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    if setting("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0".to_owned();
    }
    if setting("kernel/unprivileged_userns_clone") == "0" {
        return "sudo sysctl kernel.unprivileged_userns_clone=1".to_owned();
    }
    if setting("user/max_user_namespaces") == "0" {
        return "sudo sysctl user.max_user_namespaces=15000".to_owned();
    }
    "allow user namespaces and nf_tables for this user".to_owned()
}

/// Does everything but start a program.
async fn attempt(around: &Surroundings) -> Result<Tried, Failure> {
    let failed = |why: String| Failure::new(Exit::Failed, 1201, "cannot find out how to capture").because(why);
    let mut command = Command::new(&around.program);
    command.arg("__capture");
    for mask in masks(&around.project) {
        command.arg("--mask").arg(mask);
    }
    command.stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let begun = Instant::now();
    let output = tokio::time::timeout(PATIENCE, command.output())
        .await
        .map_err(|_elapsed| failed("it took too long".to_owned()))?
        .map_err(|error| failed(error.to_string()))?;
    let mut tried: Tried = serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
    tried.milliseconds = begun.elapsed().as_millis();
    Ok(tried)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_is_read() {
        let tried: Tried = serde_json::from_str(r#"{"mode": "none", "why": "unshare: EPERM"}"#).unwrap();
        assert_eq!((tried.mode, tried.why.as_str()), (Mode::None, "unshare: EPERM"));
    }

    #[test]
    fn every_way_has_the_name_that_people_write() {
        for (name, way) in Intercept::ALL {
            let read = <InterceptChoice as clap::ValueEnum>::from_str(name, false).unwrap();
            assert_eq!(Intercept::from(read), way);
        }
    }
}
