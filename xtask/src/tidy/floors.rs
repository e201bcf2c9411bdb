//! The walls of the house: which crate may depend on which (ARCHITECTURE.md, "Floors").

use super::tree::Tree;

/// A crate's folder with the folders it may depend on. `cargo deny` holds the foreign crates; this holds our own, in every
/// kind of dependency.
const MAY: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("http1", &["model"]),
    ("dns", &["model"]),
    ("traffic", &["model"]),
    ("identity", &["model"]),
    ("wire", &["model"]),
    ("formats", &["model"]),
    ("proxy", &["model", "http1", "dns", "traffic", "identity", "wire"]),
    ("control", &["model", "traffic", "identity", "wire", "formats"]),
    ("hms", &["model", "traffic", "wire", "formats", "control"]),
    ("testkit", &["model", "http1", "dns", "traffic", "identity", "wire", "formats", "proxy", "control"]),
];

/// Arrows that no floor allows, and crates that no floor knows.
pub(super) fn arrows(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in manifests(tree) {
        let name = folder(path);
        let Some((_, may)) = MAY.iter().find(|(known, _)| *known == name) else {
            complaints.push(format!("{path}: the crate stands on no floor; add it to xtask/src/tidy/floors.rs"));
            continue;
        };
        let forbidden = dependencies(text).filter(|other| !may.contains(other));
        complaints.extend(forbidden.map(|other| format!("{path}: {name} may not depend on {other}")));
    }
    complaints
}

/// Crates that ARCHITECTURE.md does not mention by their folder.
pub(super) fn described(tree: &Tree) -> Vec<String> {
    let page = tree.text("ARCHITECTURE.md");
    let missing =
        manifests(tree).map(|(path, _)| folder(path)).filter(|name| !page.contains(&format!("`crates/{name}`")));
    missing.map(|name| format!("ARCHITECTURE.md: says nothing of `crates/{name}`")).collect()
}

fn manifests(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.ending("/Cargo.toml").filter(|(path, _)| path.starts_with("crates/") && path.matches('/').count() == 2)
}

fn folder(manifest: &str) -> &str {
    manifest.split('/').nth(1).unwrap_or_default()
}

/// Our crates among the keys of every table of dependencies.
fn dependencies(manifest: &str) -> impl Iterator<Item = &str> {
    let mut within = false;
    manifest.lines().filter_map(move |line| {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            within = header.trim_end_matches(']').ends_with("dependencies");
            return None;
        }
        let key = line.split(['.', '=', ' ']).next().filter(|_| within)?;
        key.strip_prefix("hms-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arrow_upwards_or_sideways_is_refused() {
        let manifest = "[package]\nname = \"hms-wire\"\n[dependencies]\nhms-model.workspace = true\n\
                        [dev-dependencies]\nhms-control = { workspace = true }\n[lints]\nworkspace = true\n";
        let tree = Tree::of(&[("crates/wire/Cargo.toml", manifest)]);
        assert_eq!(arrows(&tree), ["crates/wire/Cargo.toml: wire may not depend on control"]);
    }

    #[test]
    fn a_new_crate_needs_a_floor_and_a_description() {
        let tree = Tree::of(&[("crates/util/Cargo.toml", ""), ("ARCHITECTURE.md", "`crates/model`")]);
        assert_eq!(arrows(&tree).len(), 1);
        assert_eq!(described(&tree), ["ARCHITECTURE.md: says nothing of `crates/util`"]);
    }
}
