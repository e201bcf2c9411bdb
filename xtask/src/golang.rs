//! Tools written in Go, installed by name into the build folder.

use std::path::PathBuf;
use std::process::Command;

use crate::debian;
use crate::process::{capture, run, say};
use crate::settings::target;

/// What knows every demand of HTTP/2 on a server. It has no `go.mod`, so only its latest release can be asked for by name.
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@latest";

/// h2spec, installed if it is not there.
pub(crate) fn h2spec() -> Result<PathBuf, String> {
    let folder = target().join("tools");
    let program = folder.join("h2spec");
    if capture(Command::new(&program).arg("--version")).is_err() {
        say(&format!("installing {H2SPEC} into {}", folder.display()));
        run(Command::new(go()?).args(["install", H2SPEC]).env("GOBIN", &folder))?;
    }
    Ok(program)
}

/// Go from `PATH`, from where its own installer puts it, or from the system's packages.
pub(crate) fn go() -> Result<&'static str, String> {
    let works = |program: &&str| capture(Command::new(program).arg("version")).is_ok();
    let known = ["go", "/usr/local/go/bin/go"];
    if let Some(there) = known.into_iter().find(works) {
        return Ok(there);
    }
    debian::install("golang-go").map(|()| "go")
}
