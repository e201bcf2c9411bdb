//! `cargo xtask fuzz`: the fuzz targets of `fuzz/`, built with the stable compiler.
//!
//! Coverage counters come from LLVM's own pass and libFuzzer from its crate, so neither a nightly compiler nor another program is
//! needed. What a run finds worth keeping goes to `target/fuzz/corpus`, an input that breaks something to `target/fuzz/found`.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::process::{self, cargo_command, output_of, say};
use crate::settings::{root, target};
use crate::{Outcome, debian};

const USAGE: &str = "usage: cargo xtask fuzz TARGET [SECONDS] | --smoke | --list";

/// How long a target runs: each of them in CI, and one that a person names.
const SMOKE_SECONDS: u32 = 10;
const SECONDS: u32 = 300;

/// What `cargo fuzz` passes too, less the sanitizers that only a nightly compiler has.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
     -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table --cfg fuzzing";

/// Longest input, in bytes; memory in MiB and seconds for one input. Beyond them is a finding.
const BOUNDS: [&str; 3] = ["-max_len=8192", "-rss_limit_mb=512", "-timeout=5"];

/// Test data of other crates that are seeds as well.
const MORE_SEEDS: [(&str, &str); 4] = [
    ("envoy_static", "crates/formats/tests/golden/envoy_static"),
    ("objects", "crates/formats/tests/golden/objects"),
    ("route_yaml", "crates/formats/tests/golden/route_yaml"),
    ("jwks", "crates/formats/tests/golden/jwks"),
];

/// The command.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let targets = targets()?;
    match arguments {
        [flag] if flag == "--list" => {
            say(&targets.join("\n"));
            Ok(())
        }
        [flag] if flag == "--smoke" => smoke(),
        [name] => one(&targets, name, SECONDS),
        [name, seconds] => one(&targets, name, seconds.parse().map_err(|error| format!("{seconds}: {error}"))?),
        _ => Err(USAGE.to_owned()),
    }
}

/// Builds all targets and runs each for a short time, as many at once as there are processors: each of them uses one.
pub(crate) fn smoke() -> Outcome {
    let built = build()?;
    let (names, next) = (targets()?, AtomicUsize::new(0));
    let work = || {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            try_for_a_while(&built, name)?;
        }
        Ok(())
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        running.resize_with(workers, || scope.spawn(work));
        running.into_iter().try_for_each(|worker| worker.join().map_err(|_panic| "a worker died".to_owned())?)
    })
}

fn try_for_a_while(built: &Path, name: &str) -> Outcome {
    let mut command = command(built, name, SMOKE_SECONDS)?;
    let output = process::capture(command.arg("-print_final_stats=1"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{said}\nthe fuzz target {name} ended with {}", output.status));
    }
    let tried = said.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let tried = tried.ok_or_else(|| format!("the fuzz target {name} did not run:\n{said}"))?;
    say(&format!("{name}: {} inputs in {SMOKE_SECONDS} s", tried.trim()));
    Ok(())
}

fn one(targets: &[String], name: &str, seconds: u32) -> Outcome {
    if !targets.iter().any(|target| target == name) {
        return Err(format!("`{name}` is no fuzz target; there are {}\n{USAGE}", targets.join(", ")));
    }
    process::run(&mut command(&build()?, name, seconds)?)
}

/// The programs of `fuzz/src/bin`.
fn targets() -> Result<Vec<String>, String> {
    let folder = root().join("fuzz/src/bin");
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if let (Some(name), Some("rs")) = (path.file_stem(), path.extension().and_then(|end| end.to_str())) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Builds all targets and tells where they are. With an explicit target, the flags stay away from build scripts.
fn build() -> Result<PathBuf, String> {
    // libFuzzer is written in C++.
    debian::program("g++", "--version")?;
    let host = host()?;
    let folder = target().join("fuzz");
    let mut command = cargo_command(&["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"]);
    command.args(["--target", &host]).arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS);
    process::run(&mut command)?;
    Ok(folder.join(host).join("release"))
}

/// The triple of this machine.
fn host() -> Result<String, String> {
    let said = output_of(Command::new("rustc").arg("-vV"))?;
    let line = said.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "rustc does not say what its host is".to_owned())
}

/// What runs one target for so many seconds. It ends with an error, and the path of the input, when an input breaks something.
fn command(built: &Path, name: &str, seconds: u32) -> Result<Command, String> {
    let corpus = target().join("fuzz/corpus").join(name);
    let found = target().join("fuzz/found").join(name);
    for folder in [&corpus, &found] {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let mut command = Command::new(built.join(name));
    command.args(BOUNDS).arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-artifact_prefix={}/", found.display()));
    if name.starts_with("http1") {
        command.arg(format!("-dict={}", root().join("fuzz/http1.dict").display()));
    }
    command.arg(&corpus).args(seeds(name));
    Ok(command)
}

/// Folders with inputs to begin with. None of them is written to.
fn seeds(name: &str) -> Vec<PathBuf> {
    let more =
        MORE_SEEDS.iter().filter(|(target, _folder)| *target == name).map(|(_target, folder)| root().join(folder));
    std::iter::once(root().join("fuzz/seeds").join(name)).chain(more).filter(|folder| folder.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds() {
        let targets = targets().unwrap();
        assert!(targets.len() >= 6);
        for name in targets {
            assert!(!seeds(&name).is_empty(), "{name}");
        }
    }

    #[test]
    fn a_target_that_is_none_is_named() {
        let error = run(&["nonsense".to_owned()]).unwrap_err();
        assert!(error.contains("nonsense") && error.contains("http1_request"), "{error}");
    }
}
