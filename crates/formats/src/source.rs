//! Files as they arrive: bounded, decoded, and able to say where in them something stands.

use hms_model::finding::{Finding, Place};

/// Largest file that is read, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Longest line that is shown below a finding, in characters. Machine-made files have everything on one.
const MAX_SHOWN: usize = 500;

/// A file's text under the name its author knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The path as the person named it; relative paths within the file start from its folder.
    pub name: String,
    /// The text. A byte-order mark at the beginning is skipped.
    pub text: String,
}

impl Source {
    /// A text that is already decoded. Size and content are checked when it is translated.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }

    /// A file's bytes: at most [`MAX_BYTES`], UTF-8. The finding says what is wrong, and where.
    pub fn from_bytes(name: impl Into<String>, bytes: &[u8]) -> Result<Self, Box<Finding>> {
        let name = name.into();
        if bytes.len() > MAX_BYTES {
            return Err(Box::new(too_large(&name, bytes.len())));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, text)),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let before = String::from_utf8_lossy(before);
                let starts = line_starts(&before);
                let column = before.get(starts.last().copied().unwrap_or_default()..).unwrap_or_default();
                let place = Place {
                    file: name.clone(),
                    line: number(starts.len()),
                    column: number(column.chars().count() + 1),
                    length: 1,
                    source: String::new(),
                };
                let finding = Finding::error(2101, format!("`{}` is not UTF-8 text", clean(&name))).at(place);
                Err(Box::new(finding.fix(format!("convert it: iconv -f LATIN1 -t UTF-8 {}", clean(&name)))))
            }
        }
    }
}

fn too_large(name: &str, bytes: usize) -> Finding {
    Finding::error(2112, format!("`{}` has {bytes} bytes; at most {MAX_BYTES} are read", clean(name)))
        .at(whole_file(name))
        .fix("split it into several files")
}

/// A text with its lines counted.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    name: &'a str,
    body: &'a str,
    starts: Vec<usize>,
}

impl<'a> Text<'a> {
    /// Checks a source. With a finding the body is empty, so that nothing of it is read.
    pub(crate) fn new(source: &'a Source) -> (Self, Option<Finding>) {
        let body = source.text.strip_prefix('\u{feff}').unwrap_or(&source.text);
        let empty = Self { name: &source.name, body: "", starts: vec![0] };
        if source.text.len() > MAX_BYTES {
            return (empty, Some(too_large(&source.name, source.text.len())));
        }
        let text = Self { name: &source.name, body, starts: line_starts(body) };
        if let Some(at) = body.find('\0') {
            let finding = Finding::error(2101, format!("`{}` contains a NUL byte", clean(&source.name)))
                .at(text.place(at, at + 1))
                .because("a text file has none; this may be a binary file, or UTF-16")
                .fix("save it as UTF-8 text");
            return (empty, Some(finding));
        }
        (text, None)
    }

    pub(crate) fn name(&self) -> &'a str {
        self.name
    }

    pub(crate) fn body(&self) -> &'a str {
        self.body
    }

    /// The place of a range of bytes: as much of it as stands on its first line.
    pub(crate) fn place(&self, start: usize, end: usize) -> Place {
        let line = self.line_index(start);
        let from = self.starts.get(line).copied().unwrap_or_default();
        let source = self.body.get(from..).unwrap_or_default();
        let source = source.split(['\n', '\r']).next().unwrap_or_default();
        let before = source.get(..start.saturating_sub(from)).unwrap_or(source);
        let marked = source.get(before.len()..end.saturating_sub(from).min(source.len())).unwrap_or_default();
        let column = before.chars().count() + 1;
        let shown = if column < MAX_SHOWN { source.chars().take(MAX_SHOWN).collect() } else { String::new() };
        Place {
            file: self.name.to_owned(),
            line: number(line + 1),
            column: number(column),
            length: number(marked.trim_end().chars().count().max(1)),
            source: shown,
        }
    }

    fn line_index(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at).saturating_sub(1)
    }
}

/// The place that means a file as a whole.
pub(crate) fn whole_file(name: &str) -> Place {
    Place { file: name.to_owned(), line: 0, column: 0, length: 1, source: String::new() }
}

/// Where lines begin; they end with LF, CR LF or a lone CR (YAML 1.2.2 §5.4).
fn line_starts(text: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let ends = bytes.iter().enumerate().filter(|(at, byte)| match byte {
        b'\n' => true,
        b'\r' => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    });
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect()
}

/// Counts of a bounded file always fit.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A text made fit for a terminal: control characters, which could command it, become visible.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if is_unfit(c) { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and those that reorder or hide the text around them.
pub(crate) fn is_unfit(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_stops_at_the_line_end() {
        let source = Source::new("a.yaml", "\u{feff}ä: ü\r\nkey: long value\rlast");
        let (text, finding) = Text::new(&source);
        assert_eq!(finding, None);
        let at = |word: &str, length: usize| {
            let start = text.body().find(word).unwrap();
            let place = text.place(start, start + length);
            (place.line, place.column, place.length, place.source)
        };
        assert_eq!(at("ü", 2), (1, 4, 1, "ä: ü".to_owned()));
        assert_eq!(at("long", 500), (2, 6, 10, "key: long value".to_owned()));
        assert_eq!(at("last", 0), (3, 1, 1, "last".to_owned()));
        assert_eq!(text.place(9999, 10000).line, 3);
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_place() {
        let finding = Source::from_bytes("a.yaml", b"a: 1\nb: \xff").unwrap_err();
        assert_eq!(finding.place.as_ref().map(|p| (p.line, p.column)), Some((2, 4)));
        let nul = Source::new("a.yaml", "a: 1\nb: \0");
        let (text, finding) = Text::new(&nul);
        assert_eq!(text.body(), "");
        assert_eq!(finding.unwrap().place.map(|p| p.line), Some(2));
        let large = vec![b' '; MAX_BYTES + 1];
        assert_eq!(Source::from_bytes("a.yaml", &large).unwrap_err().code.0, 2112);
    }

    #[test]
    fn a_line_without_end_is_not_copied_into_every_finding() {
        let source = Source::new("a.json", "x".repeat(10_000));
        let (text, _) = Text::new(&source);
        assert_eq!(text.place(0, 5).source.len(), MAX_SHOWN);
        assert_eq!(text.place(9_000, 9_005).source, "");
    }
}
