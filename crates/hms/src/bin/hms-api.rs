//! `hms-api register FILE…`: the seed's name for `hms register`. It only hands over to the `hms` beside it.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("hms")).filter(|path| path.exists());
    let error = Command::new(beside.unwrap_or_else(|| "hms".into()))
        .args(["__as", "hms-api"])
        .args(std::env::args_os().skip(1))
        .exec();
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("hms-api: cannot run hms: {error}\n").as_bytes()));
    ExitCode::FAILURE
}
