//! The commands of a README and what it says they print. The page is the expected value, so the two cannot drift apart.

use std::sync::LazyLock;

use regex::Regex;

/// One command with what it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// The line behind `$ `.
    pub line: String,
    /// What stands below it.
    pub output: String,
}

/// A block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The heading it stands under.
    pub section: String,
    /// Whether the sentence before it ends with "in another terminal:".
    pub elsewhere: bool,
    /// Its commands.
    pub commands: Vec<Typed>,
}

/// Every `console` block of a page, in its order.
pub fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let (mut section, mut before) = (String::new(), String::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        } else if line == "```console" {
            let inside: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let elsewhere = before.to_lowercase().ends_with("in another terminal:");
            found.push(Block { section: section.clone(), elsewhere, commands: commands(&inside) });
        } else if !line.trim().is_empty() {
            line.trim_end().clone_into(&mut before);
        }
    }
    found
}

fn commands(lines: &[&str]) -> Vec<Typed> {
    let mut found: Vec<Typed> = Vec::new();
    for line in lines {
        match (line.strip_prefix("$ "), found.last_mut()) {
            (Some(command), _) => found.push(Typed { line: command.to_owned(), output: String::new() }),
            (None, Some(last)) if last.line.ends_with('\\') => {
                last.line.push('\n');
                last.line.push_str(line);
            }
            (None, Some(last)) => {
                last.output.push_str(line);
                last.output.push('\n');
            }
            (None, None) => panic!("a block begins with output: {line}"),
        }
    }
    found
}

/// What differs from run to run, with what stands for it.
static MASKS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\b\d\d:\d\d:\d\d\.\d{3}\b", "<clock>"),
        (r"\b\d+(\.\d+)?(µs|ms|s)\b", "<time>"),
        (r#"(trace |"x-trace-id":\s?")[0-9a-f]{6}\b"#, "$1<trace>"),
        (r"127\.0\.0\.1:\d+", "<address>"),
        (r"\(here :\d+\)", "(here :<port>)"),
        (r"CA created \([^)]*\)", "CA created (<folder>)"),
        (r"\b[a-z]+-[0-9a-f]{8} is down", "<project> is down"),
        (r"spiffe://[0-9a-f]{12}\.hms/", "spiffe://<domain>/"),
        (r" {2,}", "  "),
        (r"(?m) +$", ""),
    ]
    .map(|(pattern, instead)| (Regex::new(pattern).unwrap(), instead))
    .into()
});

/// The text without what differs from run to run: times, addresses, traces, and how wide a column is.
pub fn masked(text: &str) -> String {
    MASKS
        .iter()
        .fold(text.trim_end().to_owned(), |text, (mask, instead)| mask.replace_all(&text, *instead).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_its_reader_types_it() {
        let page = "# x\n\n## Start\n\n```console\n$ a \\\n    b\none\ntwo\n$ c\n```\n\nNow, in another terminal:\n\n\
                    ```console\n$ d\n```\n\n```yaml\ne: f\n```\n";
        let found = blocks(page);
        let typed = |line: &str, output: &str| Typed { line: line.to_owned(), output: output.to_owned() };
        assert_eq!(found[0].commands, [typed("a \\\n    b", "one\ntwo\n"), typed("c", "")]);
        assert_eq!((found[0].elsewhere, found[0].section.as_str()), (false, "Start"));
        assert_eq!((found[1].elsewhere, found[1].commands[0].line.as_str(), found.len()), (true, "d", 2));
    }

    #[test]
    fn only_what_differs_from_run_to_run_is_masked() {
        let shown = "08:29:36.942 a→b POST /pay 200 5.2ms mTLS try1 trace 030990\n√ calc-svc ready 1.3s\n{\"x-trace-id\":\"66d366\"}";
        let wanted = "<clock> a→b POST /pay 200 <time> mTLS try1 trace <trace>\n√ calc-svc ready <time>\n{\"x-trace-id\":\"<trace>\"}";
        assert_eq!(masked(shown), wanted);
        assert_ne!(masked("POST /pay 200 5.2ms plain try1"), masked("POST /pay 200 5.2ms mTLS try1"));
        assert_eq!(masked("a 127.0.0.1:36285   latest  \n"), "a <address>  latest");
    }
}
