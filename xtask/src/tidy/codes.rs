//! Every code that can reach a person has an entry in the reference.

use std::collections::BTreeMap;

use super::tree::Tree;

const PAGE: &str = "docs/reference/errors.md";
/// What stands before a code that is written as a number. After `Failure::new` comes the exit code first.
const HEADS: [&str; 7] =
    ["Finding::error(", "Finding::warning(", "Finding::info(", "Failure::new(", "entry(", " => (", "Code("];

/// Codes without an entry, and entries twice.
pub(super) fn documented(tree: &Tree) -> Vec<String> {
    let page = tree.text(PAGE);
    let mut complaints: Vec<String> = used(tree)
        .into_iter()
        .filter(|(code, _)| !page.contains(&format!("\n## HMS-{code:04}\n")))
        .map(|(code, path)| {
            format!("{path}: HMS-{code:04} has no entry in {PAGE}; add it to crates/hms/src/catalogue.rs")
        })
        .collect();
    let mut headings: Vec<&str> = page.lines().filter(|line| line.starts_with("## HMS-")).collect();
    headings.sort_unstable();
    let twice = headings.windows(2).filter(|pair| pair.first() == pair.last()).filter_map(|pair| pair.first());
    complaints.extend(twice.map(|heading| format!("{PAGE}: `{heading}` stands twice")));
    complaints
}

/// Every code in the crates' sources, with one file that uses it. Tests may invent codes.
fn used(tree: &Tree) -> BTreeMap<u16, &str> {
    let mut codes = BTreeMap::new();
    let sources = tree.ending(".rs").filter(|(path, _)| {
        path.starts_with("crates/")
            && path.contains("/src/")
            && !path.contains("/testkit/")
            && !path.ends_with("/tests.rs")
            && !path.contains("/tests/")
    });
    for (path, text) in sources {
        let own = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (at, _) in own.match_indices("HMS-") {
            codes.extend(number(own.get(at + 4..).unwrap_or_default()).map(|code| (code, path)));
        }
        for head in HEADS {
            for (at, _) in own.match_indices(head) {
                codes.extend(after(head, own.get(at + head.len()..).unwrap_or_default()).map(|code| (code, path)));
            }
        }
    }
    codes
}

fn after(head: &str, rest: &str) -> Option<u16> {
    let rest = if head == "Failure::new(" { rest.split_once(',')?.1 } else { rest };
    number(rest.trim_start())
}

/// Exactly four digits, the first from 1 to 4: the ranges there are.
fn number(text: &str) -> Option<u16> {
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    if digits.len() == 4 { digits.parse().ok().filter(|code| (1000..5000).contains(code)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_they_are_written() {
        let text = "Finding::error(\n    2105, x)\nFailure::new(Exit::Failed, 1005, y)\nentry(3001, z); // HMS-4201\n\
                    Self::A => (2201, b),\nlet x = (9000, 1); Finding::error(21050)\n#[cfg(test)]\nHMS-1999\n";
        let tree = Tree::of(&[("crates/a/src/b.rs", text)]);
        assert_eq!(used(&tree).into_keys().collect::<Vec<_>>(), [1005, 2105, 2201, 3001, 4201]);
    }

    #[test]
    fn an_undocumented_code_names_its_file() {
        let page = "# x\n\n## HMS-2105\n\n## HMS-2106\n\n## HMS-2106\n";
        let tree = Tree::of(&[("crates/a/src/b.rs", "Finding::error(2105,) Finding::error(2107,)"), (PAGE, page)]);
        let complaints = documented(&tree);
        assert_eq!(complaints.len(), 2, "{complaints:?}");
        assert!(complaints[0].starts_with("crates/a/src/b.rs: HMS-2107"));
        assert!(complaints[1].contains("HMS-2106"));
    }
}
