//! `cargo xtask codegen`: the Rust side of `api/proto`, checked in so that a build needs no protobuf compiler.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use protox::prost::Message as _;

use crate::Outcome;

/// The contracts, relative to `api/proto`. Whatever they import is generated as well.
const PROTOS: [&str; 4] = [
    "hms/v1/resource.proto",
    "hms/v1/control.proto",
    "hms/v1/standalone.proto",
    "envoy/service/discovery/v3/discovery.proto",
];

const HEADER: &str = "// Generated from api/proto by `cargo xtask codegen`; edit the contracts and run it again.\n\n";

/// The contracts themselves, for whoever has to show a message whose fields it does not know.
const DESCRIPTORS: &str = "descriptors.bin";

/// Writes the generated files, or with `--check` says which of them differ from what would be written.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let check = match arguments {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => return Err("usage: cargo xtask codegen [--check]".to_owned()),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask stands in no workspace")?;
    let folder = root.join("crates/wire/src/gen");
    let wanted = generate(&root.join("api/proto"))?;
    let present = read_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    if check { compare(&wanted, &present) } else { write(&folder, &wanted, &present) }
}

/// The generated files by name.
fn generate(protos: &Path) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let descriptors = protox::compile(PROTOS.map(|file| protos.join(file)), [protos])
        .map_err(|error| format!("api/proto does not compile: {error}"))?;
    let contracts = descriptors.encode_to_vec();
    let scratch = Scratch::new().map_err(|error| format!("no temporary folder: {error}"))?;
    tonic_prost_build::configure()
        // Ordered, like everything that leaves a process.
        .btree_map(".")
        .bytes(".")
        // Connecting is the callers' business: their channels are unix sockets and mutual TLS.
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .out_dir(&scratch.0)
        .compile_fds(descriptors)
        .map_err(|error| format!("generating failed: {error}"))?;
    let files = read_all(&scratch.0).map_err(|error| format!("reading the generated files failed: {error}"))?;
    let headed = files.into_iter().map(|(name, text)| (name, [HEADER.as_bytes(), &text].concat()));
    Ok(headed.chain([(DESCRIPTORS.to_owned(), contracts)]).collect())
}

fn compare(wanted: &BTreeMap<String, Vec<u8>>, present: &BTreeMap<String, Vec<u8>>) -> Outcome {
    let changed = wanted.iter().filter(|(name, text)| present.get(*name) != Some(text)).map(|(name, _)| name);
    let surplus = present.keys().filter(|name| !wanted.contains_key(*name));
    let stale: Vec<&str> = changed.chain(surplus).map(String::as_str).collect();
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("crates/wire/src/gen does not follow api/proto: {}\nfix: cargo xtask codegen", stale.join(", ")))
}

fn write(folder: &Path, wanted: &BTreeMap<String, Vec<u8>>, present: &BTreeMap<String, Vec<u8>>) -> Outcome {
    let all = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        for (name, text) in wanted.iter().filter(|(name, text)| present.get(*name) != Some(text)) {
            fs::write(folder.join(name), text)?;
        }
        for name in present.keys().filter(|name| !wanted.contains_key(*name)) {
            fs::remove_file(folder.join(name))?;
        }
        Ok(())
    };
    all().map_err(|error| format!("{}: {error}", folder.display()))
}

/// Every generated file of a folder by name; none if there is no such folder yet.
fn read_all(folder: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        other => other?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs" || extension == "bin") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, fs::read(&path)?);
        }
    }
    Ok(files)
}

/// A folder of our own that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("hms-codegen-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder that stays behind in the temporary directory harms nothing.
        let _left_behind = fs::remove_dir_all(&self.0);
    }
}
