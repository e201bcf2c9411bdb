//! The texts of the repository, read once. Rules are functions of this, so they are tested without a disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", ".git", ".venv", "__pycache__", "node_modules"];
/// Kinds of file that rules look at.
const KINDS: [&str; 6] = ["rs", "md", "toml", "py", "yaml", "proto"];

/// Every text by its path from the root, `/` between folders.
#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads the repository.
    pub(super) fn read(root: &Path) -> Result<Self, String> {
        let mut tree = Self::default();
        tree.add(root, "")?;
        Ok(tree)
    }

    fn add(&mut self, root: &Path, folder: &str) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{folder}: {error}");
        for entry in fs::read_dir(root.join(folder)).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            if entry.file_type().map_err(failed)?.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    self.add(root, &path)?;
                }
            } else if KINDS.iter().any(|kind| name.ends_with(&format!(".{kind}")))
                || folder.is_empty()
                || folder == "api"
            {
                // Test data may be anything; what is no text is nothing to read.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    self.0.insert(path, text);
                }
            }
        }
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// One text; empty if there is none.
    pub(super) fn text(&self, path: &str) -> &str {
        self.0.get(path).map_or("", String::as_str)
    }

    /// Whether a file or a folder is there.
    pub(super) fn contains(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.0.contains_key(path)
            || self.0.range(folder.clone()..).next().is_some_and(|(key, _)| key.starts_with(&folder))
    }

    /// Every file whose path ends so.
    pub(super) fn ending<'t>(&'t self, end: &'t str) -> impl Iterator<Item = (&'t str, &'t str)> {
        self.0.iter().filter(move |(path, _)| path.ends_with(end)).map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// A tree for tests.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_found_by_what_is_in_them() {
        let tree = Tree::of(&[("docs/guide/laptop.md", ""), ("docs/guides.md", "")]);
        assert!(tree.contains("docs/guide") && tree.contains("docs/guide/") && tree.contains("docs/guides.md"));
        assert!(!tree.contains("docs/gui") && !tree.contains("docs/other.md"));
    }
}
