//! `cargo xtask drift`: whether everything that is generated and checked in still follows its source.

use crate::process::{self, cargo_command};
use crate::{Outcome, codegen, reference};

/// Compares protobuf code, the description of the REST API and the reference pages.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask drift".to_owned());
    }
    codegen::run(&["--check".to_owned()])?;
    process::run(&mut cargo_command(&["test", "-p", "hms-control", "openapi"]))?;
    reference::run(&["--check".to_owned()])
}
