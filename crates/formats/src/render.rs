//! Findings as people read them in a terminal.

use std::fmt::{self, Write as _};

use hms_model::finding::{Finding, Severity};

use crate::source::clean;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// Writes findings one below the other, each with the line it speaks of, a caret, why, fix and where to read on:
///
/// ```text
/// error[HMS-2103]: unknown key `rate_limits`; did you mean `rate_limit`?
///   --> calc_svc/route.yaml:4:1
///   |
/// 4 | rate_limits: "20 req/min"
///   | ^^^^^^^^^^^
///   fix: write `rate_limit`
///   docs: hms explain HMS-2103
/// ```
///
/// Whatever came from a file is stripped of control characters, so no file can command the terminal.
pub fn render(findings: &[Finding], colour: bool) -> String {
    let mut out = String::new();
    for (index, finding) in findings.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let written = write_finding(&mut out, finding, colour);
        // Writing into a `String` cannot fail.
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    out
}

fn write_finding(out: &mut String, finding: &Finding, colour: bool) -> fmt::Result {
    let paint = |style: &'static str| if colour { style } else { "" };
    let (strong, end) = match finding.severity {
        Severity::Error => (paint(RED), paint(PLAIN)),
        Severity::Warning => (paint(YELLOW), paint(PLAIN)),
        Severity::Info => (paint(BLUE), paint(PLAIN)),
    };
    let (bold, blue) = (paint(BOLD), paint(BLUE));
    let word = finding.severity.as_str();
    writeln!(out, "{strong}{word}[{}]{end}{bold}: {}{end}", finding.code, clean(&finding.message))?;
    if let Some(place) = &finding.place {
        writeln!(out, "  {blue}-->{end} {}", clean(&place.to_string()))?;
        if place.line > 0 && !place.source.is_empty() {
            let line = place.line.to_string();
            let margin = " ".repeat(line.len());
            // A tab becomes one blank, so the caret below stands where it should.
            let source = clean(&place.source.replace('\t', " "));
            let indent = " ".repeat(usize::try_from(place.column).unwrap_or(1).saturating_sub(1));
            let room = source.chars().count().saturating_sub(indent.len()).max(1);
            let carets = "^".repeat(usize::try_from(place.length).unwrap_or(1).clamp(1, room));
            writeln!(out, "{margin} {blue}|{end}")?;
            writeln!(out, "{blue}{line} |{end} {source}")?;
            writeln!(out, "{margin} {blue}|{end} {indent}{strong}{carets}{end}")?;
        }
    }
    for (word, text) in [("why", &finding.why), ("fix", &finding.fix)] {
        if !text.is_empty() {
            writeln!(out, "  {bold}{word}:{end} {}", clean(text))?;
        }
    }
    writeln!(out, "  {bold}docs:{end} hms explain {}", finding.code)
}

#[cfg(test)]
mod tests {
    use hms_model::finding::Place;

    use super::*;

    fn typo() -> Finding {
        let place = Place {
            file: "calc_svc/route.yaml".to_owned(),
            line: 4,
            column: 1,
            length: 11,
            source: "rate_limits: \"20 req/min\"".to_owned(),
        };
        Finding::error(2103, "unknown key `rate_limits`; did you mean `rate_limit`?")
            .at(place)
            .fix("write `rate_limit`")
    }

    #[test]
    fn a_finding_shows_its_line_a_caret_and_the_way_out() {
        let expected = "\
error[HMS-2103]: unknown key `rate_limits`; did you mean `rate_limit`?
  --> calc_svc/route.yaml:4:1
  |
4 | rate_limits: \"20 req/min\"
  | ^^^^^^^^^^^
  fix: write `rate_limit`
  docs: hms explain HMS-2103
";
        assert_eq!(render(&[typo()], false), expected);
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let mut coloured = render(&[typo()], true);
        assert!(coloured.contains(RED));
        for style in [RED, YELLOW, BLUE, BOLD, PLAIN] {
            coloured = coloured.replace(style, "");
        }
        assert_eq!(coloured, render(&[typo()], false));
    }

    #[test]
    fn a_file_cannot_command_the_terminal() {
        let mut finding = typo();
        if let Some(place) = &mut finding.place {
            place.source = "\x1b]0;owned\x07".to_owned();
            place.file = "a\x1b[2J".to_owned();
        }
        finding.message = "bad \x1b[31m".to_owned();
        assert!(!render(&[finding], false).contains(['\x1b', '\x07']));
    }
}
