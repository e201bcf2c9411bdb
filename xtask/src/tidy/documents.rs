//! What people read.

use super::tree::Tree;

const DECISIONS: &str = "docs/decisions/";

/// `docs/decisions/NNNN-title.md`: from 0001, without gaps, each headed by its own number.
pub(super) fn decisions(tree: &Tree) -> Vec<String> {
    let files = tree.ending(".md").filter(|(path, _)| path.starts_with(DECISIONS));
    let mut complaints = Vec::new();
    for (index, (path, text)) in files.enumerate() {
        let wanted = format!("{:04}", index + 1);
        let name = path.strip_prefix(DECISIONS).unwrap_or_default();
        if !name.starts_with(&format!("{wanted}-")) {
            complaints.push(format!("{path}: decision {wanted} comes next"));
        } else if !text.starts_with(&format!("# {wanted} ")) {
            complaints.push(format!("{path}: its first line begins `# {wanted} `"));
        }
    }
    complaints
}

/// Links to files that are not there.
pub(super) fn links(tree: &Tree) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in tree.ending(".md") {
        for target in targets(text) {
            let (folder, target) = match target.strip_prefix('/') {
                Some(rest) => ("", rest),
                None => (path.rsplit_once('/').map_or("", |(folder, _)| folder), target),
            };
            if resolve(folder, target).is_none_or(|file| !tree.contains(&file)) {
                complaints.push(format!("{path}: the link to `{target}` leads nowhere"));
            }
        }
    }
    complaints
}

/// `[text](target)`, without those that lead outside, and without their fragment.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("](")
        .filter_map(|(at, _)| text.get(at + 2..)?.split_once(')').map(|(target, _)| target))
        .filter(|target| {
            !target.contains("://") && !target.starts_with("mailto:") && !target.contains(char::is_whitespace)
        })
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
}

/// A relative path from a folder; `None` if it leaves the repository.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The workspace's version has a section.
pub(super) fn changelog(tree: &Tree) -> Vec<String> {
    let manifest = tree.text("Cargo.toml");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or_default().trim_matches('"');
    let known = tree.text("CHANGELOG.md").lines().any(|line| line.starts_with(&format!("## {version}")));
    if known && !version.is_empty() { Vec::new() } else { vec![format!("CHANGELOG.md: no section `## {version}`")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_or_a_wrong_heading_is_found() {
        let good = [("docs/decisions/0001-a.md", "# 0001 A\n"), ("docs/decisions/0002-b.md", "# 0002 B\n")];
        assert!(decisions(&Tree::of(&good)).is_empty());
        let gap = [good[0], ("docs/decisions/0003-c.md", "# 0003 C\n")];
        assert_eq!(decisions(&Tree::of(&gap)).len(), 1);
        assert_eq!(decisions(&Tree::of(&[("docs/decisions/0001-a.md", "# A\n")])).len(), 1);
    }

    #[test]
    fn links_are_followed_from_where_they_stand() {
        let text =
            "[a](../reference/x.md#y) [b](/README.md) [c](https://a.b/c) [d](gone.md) [e](../../../x) [f](#here)";
        let tree = Tree::of(&[("docs/guide/a.md", text), ("docs/reference/x.md", ""), ("README.md", "")]);
        let complaints = links(&tree);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].contains("gone.md") && complaints[1].contains("../../../x"));
    }

    #[test]
    fn the_version_needs_a_section() {
        let files =
            |log: &'static str| Tree::of(&[("Cargo.toml", "[x]\nversion = \"0.1.0\"\n"), ("CHANGELOG.md", log)]);
        assert!(changelog(&files("# Changes\n\n## 0.1.0\n")).is_empty());
        assert_eq!(changelog(&files("# Changes\n")).len(), 1);
    }
}
