//! `cargo xtask size`: how large the data plane is, as shipped.

use std::path::PathBuf;
use std::process::Command;

use crate::Outcome;
use crate::process::{self, cargo_command, say};
use crate::settings::target;

/// Largest stripped `hms-proxy`, in bytes (ruling R11: 10 MB).
const BOUND: u64 = 10_000_000;

/// Where the release build of the proxy ends up.
pub(crate) fn release_proxy() -> PathBuf {
    target().join("release/hms-proxy")
}

/// What builds it alone: a build of the whole workspace would unify features and grow it.
pub(crate) fn build() -> Command {
    cargo_command(&["build", "--release", "-p", "hms-proxy"])
}

/// Builds it and measures a stripped copy.
pub(crate) fn measure() -> Outcome {
    process::run(&mut build())?;
    let copy = target().join("release/hms-proxy.stripped");
    process::run(Command::new("strip").arg("-o").arg(&copy).arg(release_proxy()))?;
    let size = std::fs::metadata(&copy).map_err(|error| format!("{}: {error}", copy.display()))?.len();
    say(&verdict(size)?);
    Ok(())
}

/// The command.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask size".to_owned());
    }
    measure()
}

fn verdict(size: u64) -> Result<String, String> {
    let text = format!("hms-proxy, release, stripped: {size} bytes of at most {BOUND}");
    if size > BOUND { Err(text) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_too_many_is_too_many() {
        assert!(verdict(BOUND).is_ok());
        assert!(verdict(BOUND + 1).is_err());
    }
}
