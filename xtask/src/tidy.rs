//! `cargo xtask tidy`: our own rules over the tree, which no ready-made tool knows.

mod codes;
mod documents;
mod floors;
mod sources;
mod tree;

use tree::Tree;

use crate::Outcome;
use crate::process::say;
use crate::settings::root;

/// One rule: the complaints it has, each beginning with a file.
type Rule = fn(&Tree) -> Vec<String>;

const RULES: &[(&str, Rule)] = &[
    ("every crate is described in ARCHITECTURE.md", floors::described),
    ("no arrow between crates that the floors forbid", floors::arrows),
    ("files a person can read", sources::length),
    ("nothing left over", sources::markers),
    ("tests wait on states, never on time", sources::sleeps),
    ("one way to lay out modules", sources::module_files),
    ("every code is documented", codes::documented),
    ("decisions are numbered without gaps", documents::decisions),
    ("links within the repository lead somewhere", documents::links),
    ("the changelog knows the version", documents::changelog),
];

/// Applies every rule and shows every complaint.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask tidy".to_owned());
    }
    let tree = Tree::read(root())?;
    let mut count = 0;
    for (name, rule) in RULES {
        let complaints = rule(&tree);
        count += complaints.len();
        for complaint in complaints {
            say(&format!("{complaint}   [{name}]"));
        }
    }
    if count > 0 {
        return Err(format!("tidy: {count} complaints"));
    }
    say(&format!("tidy: {} files, {} rules, no complaint", tree.len(), RULES.len()));
    Ok(())
}
