//! The only printer. Data goes to stdout, everything else to stderr; foreign text is made harmless before it is shown.

pub(crate) mod progress;
pub(crate) mod table;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use hms_model::finding::Finding;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::settings::Settings;
use table::Table;

/// How a word is meant; colour follows it, and never stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    /// No opinion.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// Look at it.
    Warn,
    /// Broken.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

/// The sign before a line of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Passed.
    Ok,
    /// Worth a look.
    Warning,
    /// Failed.
    Failed,
    /// Not asked, because something before it failed.
    Skipped,
}

/// What stdout can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Colour.
    pub(crate) colour: bool,
    /// More than ASCII.
    pub(crate) unicode: bool,
}

#[cfg(test)]
impl Look {
    /// What tests compare with.
    pub(crate) const PLAIN: Self = Self { colour: false, unicode: true };
}

/// Where and how to print.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    verbose: u8,
    colour: (bool, bool),
    unicode: bool,
    closed: AtomicBool,
}

impl Output {
    /// A printer for these settings.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            format: settings.format,
            quiet: settings.quiet,
            verbose: settings.verbose,
            colour: settings.colour,
            unicode: settings.unicode,
            closed: AtomicBool::new(false),
        }
    }

    /// A printer that only lets errors through: for a step inside another command. Nothing it says is data.
    pub(crate) fn quiet(settings: &Settings) -> Self {
        Self { quiet: true, format: Format::Name, ..Self::new(settings) }
    }

    /// A printer for when even the settings failed.
    pub(crate) fn bare() -> Self {
        Self {
            format: Format::Table,
            quiet: false,
            verbose: 0,
            colour: (false, false),
            unicode: false,
            closed: AtomicBool::new(false),
        }
    }

    /// A printer whose text does not depend on the terminal the tests run in.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        Self { unicode: true, ..Self::bare() }
    }

    /// Whether long forms fit.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// The asked shape.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// Whether people read this, not programs.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// What stdout can show.
    pub(crate) fn look(&self) -> Look {
        Look { colour: self.colour.0, unicode: self.unicode }
    }

    /// Whether stdout takes colour.
    pub(crate) fn has_colour(&self) -> bool {
        self.colour.0
    }

    /// Whether the reader of stdout is gone, as with `| head`: a stream should end.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// One line of data on stdout.
    pub(crate) fn line(&self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Text on stdout, exactly.
    pub(crate) fn write(&self, text: &str) {
        let mut stdout = std::io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.closed.store(true, Ordering::Relaxed);
        }
    }

    /// One line on stderr, unless `-q`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            write_error(text);
        }
    }

    /// One line on stderr with `-v`.
    pub(crate) fn detail(&self, text: &str) {
        if self.verbose > 0 {
            write_error(text);
        }
    }

    /// A document: JSON and YAML carry `apiVersion` and `kind`. Returns `false` if the caller should print for people.
    pub(crate) fn document(&self, kind: &str, value: &Value) -> bool {
        let document = || {
            let mut object = json!({"apiVersion": "hms/v1", "kind": kind});
            match (value, object.as_object_mut()) {
                (Value::Object(fields), Some(object)) => object.extend(fields.clone()),
                (other, Some(object)) => drop(object.insert("value".to_owned(), other.clone())),
                (_, None) => {}
            }
            object
        };
        match self.format {
            Format::Table | Format::Wide => return false,
            Format::Json => self.line(&serde_json::to_string_pretty(&document()).unwrap_or_default()),
            Format::Yaml => self.write(&to_yaml(&document())),
            Format::Name => {
                let items = value.get("items").and_then(Value::as_array);
                for item in items.into_iter().flatten().chain(items.is_none().then_some(value)) {
                    if let Some(name) =
                        ["name", "service", "identity", "id"].iter().find_map(|key| item.get(*key)?.as_str())
                    {
                        self.line(&clean(name));
                    }
                }
            }
        }
        true
    }

    /// One document of a stream on one line.
    pub(crate) fn stream_document(&self, value: &Value) {
        self.line(&value.to_string());
    }

    /// A table on stdout.
    pub(crate) fn table(&self, table: &Table) {
        self.write(&table.render(self.look()));
    }

    /// A word in the colour of its tone, for stdout.
    pub(crate) fn tint(&self, tone: Tone, text: &str) -> String {
        tint(self.colour.0, tone, text)
    }

    /// The sign of a mark, for stdout.
    pub(crate) fn mark(&self, mark: Mark) -> String {
        let (tone, glyph, ascii) = match mark {
            Mark::Ok => (Tone::Good, "√", "+"),
            Mark::Warning => (Tone::Warn, "!", "!"),
            Mark::Failed => (Tone::Bad, "×", "x"),
            Mark::Skipped => (Tone::Dim, "–", "-"),
        };
        self.tint(tone, if self.unicode { glyph } else { ascii })
    }

    /// The separator of facts on one line.
    pub(crate) fn dot(&self) -> &'static str {
        if self.unicode { "·" } else { "|" }
    }

    /// The arrow between two services.
    pub(crate) fn arrow(&self) -> &'static str {
        if self.unicode { "→" } else { "->" }
    }

    /// A bar that is filled by a share of 0 to 1.
    pub(crate) fn bar(&self, share: f64) -> String {
        const CELLS: usize = 20;
        let (full, empty) = if self.unicode { ("█", "·") } else { ("#", ".") };
        // Something is never shown as nothing, nor a part as all.
        let cells = (0..CELLS).filter(|cell| share * 20.0 >= f64::from(u8::try_from(*cell).unwrap_or(u8::MAX)) + 0.5);
        let filled = match cells.count() {
            0 if share > 0.0 => 1,
            CELLS if share < 1.0 => CELLS - 1,
            cells => cells,
        };
        full.repeat(filled) + &empty.repeat(CELLS - filled)
    }

    /// The sign for "so many times".
    pub(crate) fn times(&self) -> &'static str {
        if self.unicode { "×" } else { "x" }
    }

    /// Where to write a one-line state that replaces itself, if stderr is a terminal and people read.
    pub(crate) fn can_animate(&self) -> bool {
        use std::io::IsTerminal as _;
        !self.quiet && self.is_for_people() && std::io::stderr().is_terminal()
    }

    /// A failure on stderr: five parts for people, one object for programs.
    pub(crate) fn failure(&self, failure: &Failure) {
        if matches!(self.format, Format::Json) {
            write_error(&failure.to_json().to_string());
            return;
        }
        write_error(&render_failure(failure, self.colour.1));
    }

    /// A complaint about input on stderr.
    pub(crate) fn finding(&self, finding: &Finding) {
        write_error(render_finding(finding, self.colour.1).trim_end());
    }
}

/// One line on stderr.
fn write_error(text: &str) {
    // Nobody is left to tell when stderr is gone.
    drop(writeln!(std::io::stderr().lock(), "{text}"));
}

/// Asks a question on the terminal. Without a terminal and without `-y` it is an error, never a hang.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<bool, Failure> {
    use std::io::IsTerminal as _;
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, 1006, "this needs an answer, and there is nobody to ask")
            .because(question.to_owned())
            .fix("add -y"));
    }
    let mut stderr = std::io::stderr().lock();
    // If the question cannot be shown, nobody answers it with yes.
    drop(write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer).unwrap_or_default();
    Ok(read > 0 && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A value as YAML, ending in a line feed.
pub(crate) fn to_yaml(value: &Value) -> String {
    let mut text = serde_saphyr::to_string(value).unwrap_or_default();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Text from outside with every control character made visible, so it cannot move the cursor or change colours.
pub(crate) fn clean(text: &str) -> String {
    if !text.chars().any(is_harmful) {
        return text.to_owned();
    }
    text.chars().map(|c| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Several lines from outside, each made harmless.
pub(crate) fn clean_lines(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(clean).collect();
    lines.join("\n") + "\n"
}

/// Control characters (C0, DEL, C1) and the marks that reorder text.
fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
}

/// A word in the colour of its tone (ECMA-48 SGR, the 16-colour set, so every theme stays readable).
pub(crate) fn tint(colour: bool, tone: Tone, text: &str) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Warn => "33",
        Tone::Bad => "31",
        Tone::Dim => "2",
        Tone::Strong => "1",
    };
    if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// The five parts of a failure for people.
fn render_failure(failure: &Failure, colour: bool) -> String {
    let mut lines: Vec<String> = Vec::new();
    if !failure.all_findings().is_empty() {
        lines.push(hms_formats::render(failure.all_findings(), colour));
    }
    let errors = failure.all_findings().iter().filter(|finding| finding.is_error()).count();
    if errors > 0 {
        // Everything was said where it is wrong; what is left to say is that nothing happened.
        let noun = if errors == 1 { "error" } else { "errors" };
        lines.push(format!("{errors} {noun}, nothing was changed"));
        return lines.join("\n");
    }
    let head = tint(colour, Tone::Bad, &format!("error[{}]", failure.code()));
    lines.push(format!("{head}: {}", clean(failure.message())));
    if let Some(location) = failure.location() {
        lines.push(format!("  where: {}", clean(location)));
    }
    if !failure.why().is_empty() {
        lines.push(format!("  why: {}", clean(failure.why())));
    }
    if !failure.log_lines().is_empty() {
        lines.push(format!("  log: last {} lines", failure.log_lines().len()));
        let bar = tint(colour, Tone::Dim, "|");
        lines.extend(failure.log_lines().iter().map(|line| format!("  {bar} {}", clean(line))));
    }
    lines.extend(failure.fixes().iter().map(|fix| format!("  fix: {}", clean(fix))));
    lines.push(format!("  docs: hms explain {}", failure.code()));
    lines.join("\n")
}

/// A finding with its line and caret.
fn render_finding(finding: &Finding, colour: bool) -> String {
    hms_formats::render(std::slice::from_ref(finding), colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_five_parts() {
        let failure = Failure::new(Exit::Conflict, 1101, "gateway cannot listen on 8443")
            .at("--https 8443")
            .because("held by pid 812 (node dev.js)")
            .log(vec!["a \u{1b}[2J b".to_owned()])
            .fix("hms up --https 8444");
        insta::assert_snapshot!(render_failure(&failure, false), @r"
        error[HMS-1101]: gateway cannot listen on 8443
          where: --https 8443
          why: held by pid 812 (node dev.js)
          log: last 1 lines
          | a \u{1b}[2J b
          fix: hms up --https 8444
          docs: hms explain HMS-1101
        ");
    }

    #[test]
    fn a_bar_shows_a_little_and_nearly_all_as_what_they_are() {
        let filled = |share: f64| Output::for_tests().bar(share).matches('█').count();
        assert_eq!([0.0, 0.001, 0.1, 0.5, 0.999, 1.0].map(filled), [0, 1, 2, 10, 19, 20]);
        assert_eq!(Output::bare().bar(0.5), "##########..........");
    }

    #[test]
    fn findings_are_said_once_and_counted() {
        let finding = |message: &str| Finding::error(2103, message);
        let failure =
            Failure::new(Exit::Failed, 2212, "the input is refused").findings(vec![finding("one"), finding("two")]);
        let said = render_failure(&failure, false);
        assert!(said.ends_with("2 errors, nothing was changed"), "{said}");
        assert_eq!(said.matches("one").count(), 1, "{said}");
    }

    #[test]
    fn foreign_text_cannot_command_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(clean("größe → ok"), "größe → ok");
    }
}
