//! What a Rust file may look like.

use super::tree::Tree;

/// Lines after which a reader tires.
const MOST_LINES: usize = 600;
/// What must not stay behind, each with the reason. Written in two halves, so that this file is not a finding of its own.
const LEFT_OVER: [(&str, &str); 3] = [
    (concat!("to", "do!("), "write it, or open an issue"),
    (concat!("unimple", "mented!("), "write it, or open an issue"),
    (concat!("#[ig", "nore"), "a test that does not run proves nothing"),
];
const SLEEPS: [&str; 2] = [concat!("thread::", "sleep("), concat!("time::", "sleep(")];

fn generated(path: &str) -> bool {
    path.contains("/gen/")
}

/// Files that are too long.
pub(super) fn length(tree: &Tree) -> Vec<String> {
    let long = tree.ending(".rs").filter(|(path, _)| !generated(path)).map(|(path, text)| (path, text.lines().count()));
    long.filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines, at most {MOST_LINES}; split it by meaning"))
        .collect()
}

/// Unfinished work.
pub(super) fn markers(tree: &Tree) -> Vec<String> {
    let found = |words: &'static [(&str, &str)]| {
        lines(tree).filter_map(move |(path, number, line)| {
            let (word, why) = words.iter().find(|(word, _)| line.contains(word))?;
            Some(format!("{path}:{number}: `{word}`: {why}"))
        })
    };
    found(&LEFT_OVER).collect()
}

/// Tests that hope for time to be enough.
pub(super) fn sleeps(tree: &Tree) -> Vec<String> {
    lines(tree)
        .filter(|(path, _, line)| path.contains("/tests/") && SLEEPS.iter().any(|sleep| line.contains(sleep)))
        .map(|(path, number, _)| format!("{path}:{number}: wait on a state instead of sleeping"))
        .collect()
}

/// `foo/mod.rs` beside `foo.rs`: every editor tab has the same name.
pub(super) fn module_files(tree: &Tree) -> Vec<String> {
    tree.ending("/mod.rs").map(|(path, _)| format!("{path}: use the file beside the folder instead")).collect()
}

fn lines(tree: &Tree) -> impl Iterator<Item = (&str, usize, &str)> {
    let files = tree.ending(".rs").filter(|(path, _)| !generated(path));
    files.flat_map(|(path, text)| text.lines().enumerate().map(move |(index, line)| (path, index + 1, line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_written_files_are_measured() {
        let long = "\n".repeat(MOST_LINES + 1);
        let tree = Tree::of(&[("a/src/x.rs", &long), ("a/src/gen/y.rs", &long), ("a/z.rs", "\n")]);
        assert_eq!(length(&tree).len(), 1);
    }

    #[test]
    fn left_over_markers_are_found_with_their_line() {
        let text = format!("fn f() {{\n    {})\n}}\n", LEFT_OVER[0].0);
        let complaints = markers(&Tree::of(&[("a/b.rs", &text)]));
        assert!(complaints.len() == 1 && complaints[0].starts_with("a/b.rs:2:"), "{complaints:?}");
    }

    #[test]
    fn only_tests_may_not_sleep() {
        let text = format!("tokio::{}d)\n", SLEEPS[1]);
        let tree = Tree::of(&[("crates/a/tests/t.rs", &text), ("crates/a/src/b.rs", &text), ("a/mod.rs", "")]);
        assert_eq!(sleeps(&tree), ["crates/a/tests/t.rs:1: wait on a state instead of sleeping"]);
        assert_eq!(module_files(&tree).len(), 1);
    }
}
