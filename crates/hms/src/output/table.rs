//! Tables without borders: columns two spaces apart, headings in capitals, colour on words that have a tone.

use comfy_table::{Cell as Plain, CellAlignment, ContentArrangement};

use super::{Look, Tone, clean, tint};

/// One cell.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    /// Text at the left edge.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), tone: Tone::Plain, right: false }
    }

    /// A number at the right edge.
    pub(crate) fn number(text: impl AsRef<str>) -> Self {
        Self { right: true, ..Self::text(text) }
    }

    /// The same cell in a tone.
    #[must_use]
    pub(crate) fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::text(text)
    }
}

/// A table.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Whether it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text, ending in a line feed.
    pub(crate) fn render(&self, Look { colour, unicode }: Look) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.headings.iter().map(Plain::new));
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| {
                let alignment = if cell.right { CellAlignment::Right } else { CellAlignment::Left };
                Plain::new(&cell.text).set_alignment(alignment)
            }));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let rendered = table.to_string();
        let mut text = String::new();
        let mut rows = self.rows.iter();
        for (index, line) in rendered.lines().enumerate() {
            let line = line.trim_end();
            let line = if index == 0 { tint(colour, Tone::Dim, line) } else { paint(line, rows.next(), colour) };
            text.push_str(&if unicode {
                line
            } else {
                line.replace('·', "|").replace('→', "->").replace('–', "-")
            });
            text.push('\n');
        }
        text
    }
}

/// Colours the words of one rendered row. They are sought from left to right, so equal words do not mix up.
fn paint(line: &str, row: Option<&Vec<Cell>>, colour: bool) -> String {
    let mut painted = String::new();
    let mut rest = line;
    for cell in row.into_iter().flatten().filter(|cell| !cell.text.is_empty()) {
        let Some((before, after)) = rest.split_once(cell.text.as_str()) else { continue };
        painted.push_str(before);
        painted.push_str(&tint(colour, cell.tone, &cell.text));
        rest = after;
    }
    painted.push_str(rest);
    painted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["SERVICE", "STATE", "RPS"]);
        table.row(vec!["hello-svc".into(), Cell::text("healthy").tone(Tone::Good), Cell::number("2.1")]);
        table.row(vec!["calc\u{1b}-svc".into(), Cell::text("unhealthy").tone(Tone::Bad), Cell::number("18.0")]);
        table
    }

    #[test]
    fn columns_align_and_nothing_frames_them() {
        insta::assert_snapshot!(sample().render(Look::PLAIN), @r"
        SERVICE         STATE      RPS
        hello-svc       healthy     2.1
        calc\u{1b}-svc  unhealthy  18.0
        ");
    }

    #[test]
    fn colour_changes_no_text() {
        let coloured = sample().render(Look { colour: true, ..Look::PLAIN });
        assert!(coloured.contains("\u{1b}[31munhealthy\u{1b}[0m"), "{coloured:?}");
        let mut plain = coloured;
        for code in ["\u{1b}[31m", "\u{1b}[32m", "\u{1b}[2m", "\u{1b}[0m"] {
            plain = plain.replace(code, "");
        }
        assert_eq!(plain, sample().render(Look::PLAIN));
    }
}
