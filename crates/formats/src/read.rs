//! Typed reading of a document that does not stop at the first mistake.

pub(crate) mod scalar;
pub(crate) mod spelling;

use hms_model::finding::{Finding, Place, did_you_mean};

use crate::document::{Entry, Form, Node, Value, short};
use crate::source::{Source, Text, whole_file};

/// Most findings of one translation. Beyond that nobody reads on, and a hostile file could make millions.
const MAX_FINDINGS: usize = 200;
/// Most files of one translation.
const MAX_FILES: u16 = 1000;

/// What was meant by a word: the same letters in another order, or nearly the same. Short words are near to everything.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if !(3..=64).contains(&word.len()) {
        return None;
    }
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    let letters = sorted(word);
    let same = known.iter().copied().find(|candidate| *candidate != word && sorted(candidate) == letters);
    same.or_else(|| did_you_mean(word, known.iter().copied()))
}

/// A range of bytes in one of the files being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span {
    pub(crate) file: u16,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(file: u16, start: usize, end: usize) -> Self {
        // Files are bounded far below 4 GiB.
        let fit = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self { file, start: fit(start), end: fit(end) }
    }
}

/// The keys of a table: those it takes, and those of a later release.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    pub(crate) known: &'static [&'static str],
    pub(crate) later: &'static [&'static str],
}

impl Keys {
    pub(crate) const fn new(known: &'static [&'static str]) -> Self {
        Self { known, later: &[] }
    }
}

/// A key of a table with its value.
#[derive(Debug, Clone)]
pub(crate) struct Field<'n> {
    /// `services.calc-svc.port`: what messages call it.
    pub(crate) path: String,
    /// The key alone; empty for an item of a list.
    pub(crate) name: &'n str,
    /// Where the key stands; the value's own place for an item of a list.
    pub(crate) key: Span,
    /// The value.
    pub(crate) node: &'n Node,
}

/// A mapping whose keys have been checked.
#[derive(Debug, Clone)]
pub(crate) struct Table<'n> {
    pub(crate) path: String,
    pub(crate) span: Span,
    fields: Vec<Field<'n>>,
    /// Keys that it does not take: the first few, for telling a misspelt key from a missing one.
    strangers: Vec<&'n str>,
}

impl<'n> Table<'n> {
    pub(crate) fn field(&self, name: &str) -> Option<&Field<'n>> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub(crate) fn fields(&self) -> &[Field<'n>] {
        &self.fields
    }
}

/// The files of one translation, and what was found in them.
#[derive(Debug, Default)]
pub(crate) struct Reader<'a> {
    texts: Vec<Text<'a>>,
    findings: Vec<(Span, Finding)>,
    left_out: usize,
    left_out_error: bool,
}

impl<'a> Reader<'a> {
    /// Takes a file in. `None` when it is not readable at all; the finding is made here.
    pub(crate) fn add(&mut self, source: &'a Source) -> Option<u16> {
        let file = u16::try_from(self.texts.len()).ok().filter(|file| *file < MAX_FILES);
        let Some(file) = file else {
            let finding = Finding::error(2112, format!("more than {MAX_FILES} files at once"));
            self.push(Span::new(MAX_FILES, 0, 0), finding.fix("register them in several calls"));
            return None;
        };
        let (text, finding) = Text::new(source);
        self.texts.push(text);
        let readable = finding.is_none();
        if let Some(finding) = finding {
            self.push(Span::new(file, 0, 0), finding);
        }
        readable.then_some(file)
    }

    pub(crate) fn body(&self, file: u16) -> &'a str {
        self.texts.get(usize::from(file)).map_or("", Text::body)
    }

    pub(crate) fn file_name(&self, file: u16) -> &'a str {
        self.texts.get(usize::from(file)).map_or("", Text::name)
    }

    pub(crate) fn place(&self, span: Span) -> Place {
        let (start, end) = (usize::try_from(span.start).unwrap_or(0), usize::try_from(span.end).unwrap_or(0));
        self.texts.get(usize::from(span.file)).map_or_else(|| whole_file(""), |text| text.place(start, end))
    }

    /// `file:line`, as explanations name a rule.
    pub(crate) fn origin(&self, span: Span) -> String {
        let place = self.place(span);
        format!("{}:{}", place.file, place.line)
    }

    /// What was written there.
    pub(crate) fn written(&self, span: Span) -> &'a str {
        let (start, end) = (usize::try_from(span.start).unwrap_or(0), usize::try_from(span.end).unwrap_or(0));
        self.body(span.file).get(start..end).unwrap_or_default()
    }

    /// Keeps a finding at a place.
    pub(crate) fn report(&mut self, span: Span, finding: Finding) {
        if self.is_full() {
            self.push(span, finding);
        } else {
            let place = self.place(span);
            self.push(span, finding.at(place));
        }
    }

    /// Whether further findings are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.findings.len() >= MAX_FINDINGS
    }

    fn push(&mut self, span: Span, finding: Finding) {
        if self.is_full() {
            self.left_out += 1;
            self.left_out_error |= finding.is_error();
        } else {
            self.findings.push((span, finding));
        }
    }

    /// Whether anything in this file is an error.
    pub(crate) fn has_errors(&self, file: u16) -> bool {
        self.left_out_error || self.findings.iter().any(|(span, finding)| span.file == file && finding.is_error())
    }

    /// Everything found, in the order of the files and of their lines.
    pub(crate) fn into_findings(mut self) -> Vec<Finding> {
        self.findings.sort_by_key(|(span, finding)| (*span, finding.code));
        let mut findings: Vec<Finding> = self.findings.into_iter().map(|(_, finding)| finding).collect();
        // An anchor that is used twice is read twice.
        findings.dedup();
        if self.left_out > 0 {
            let message = format!("{} further findings are not shown", self.left_out);
            let finding =
                if self.left_out_error { Finding::error(2112, message) } else { Finding::warning(2112, message) };
            findings.push(finding.fix("mend the first ones and try again"));
        }
        findings
    }

    /// A mapping with only these keys; every other key is a finding.
    pub(crate) fn table<'n>(&mut self, node: &'n Node, path: &str, keys: Keys) -> Option<Table<'n>> {
        self.table_where(node, path, keys, |_reader, _stranger| false)
    }

    /// A mapping with whatever keys it has; for want of one the finding names the first of `keys`.
    fn table_of<'n>(&mut self, node: &'n Node, path: &str, keys: Keys) -> Option<Table<'n>> {
        if !matches!(node.value, Value::Map(_)) {
            let first = keys.known.first().copied().unwrap_or_default();
            self.mismatch(node, path, &format!("keys such as `{first}:`"));
            return None;
        }
        self.open_table(node, path)
    }

    /// The same, where `knows` may speak of a key that is not taken: it makes the finding and answers true.
    pub(crate) fn table_where<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        keys: Keys,
        mut knows: impl FnMut(&mut Self, &Field<'n>) -> bool,
    ) -> Option<Table<'n>> {
        let mut table = self.table_of(node, path, keys)?;
        let known = |field: &Field<'_>| keys.known.contains(&field.name);
        let (fields, strange): (Vec<_>, Vec<_>) = table.fields.into_iter().partition(known);
        let mut strangers = Vec::new();
        for field in &strange {
            if !knows(self, field) {
                self.unknown(field, keys);
                strangers.push(field.name);
            }
        }
        strangers.truncate(MAX_FINDINGS);
        table.fields = fields;
        table.strangers = strangers;
        Some(table)
    }

    /// A mapping with any keys.
    pub(crate) fn open_table<'n>(&mut self, node: &'n Node, path: &str) -> Option<Table<'n>> {
        let Value::Map(entries) = &node.value else {
            self.mismatch(node, path, "keys with values");
            return None;
        };
        let field = |entry: &'n Entry| Field {
            path: if path.is_empty() { short(&entry.key) } else { format!("{path}.{}", short(&entry.key)) },
            name: &entry.key,
            key: entry.span,
            node: &entry.value,
        };
        let fields = entries.iter().map(field).collect();
        Some(Table { path: path.to_owned(), span: node.span, fields, strangers: Vec::new() })
    }

    fn unknown(&mut self, field: &Field<'_>, keys: Keys) {
        if self.is_full() {
            return self.report(field.key, Finding::error(2103, "unknown key"));
        }
        if keys.later.contains(&field.name) {
            let finding = Finding::error(2120, format!("`{}` is not available in this release", field.path));
            return self.report(field.key, finding.because("it would have no effect").fix("leave it out for now"));
        }
        let near = nearest(field.name, keys.known);
        let why = format!("known here: {}", keys.known.join(", "));
        let key = short(field.name);
        let finding = match near {
            Some(near) => Finding::error(2103, format!("unknown key `{key}`; did you mean `{near}`?"))
                .because(why)
                .fix(format!("write `{near}`")),
            None if field.name == "<<" => {
                Finding::error(2103, "merge keys (<<) are not read").because(why).fix("write the merged keys out")
            }
            None => Finding::error(2103, format!("unknown key `{key}`")).because(why).fix("remove it or correct it"),
        };
        self.report(field.key, finding);
    }

    /// The keys of two tables as one; a key in both is a finding that names both places.
    pub(crate) fn merge<'n>(&mut self, first: Option<Table<'n>>, second: Option<Table<'n>>) -> Option<Table<'n>> {
        let (mut merged, second) = match (first, second) {
            (Some(first), Some(second)) => (first, second),
            (one, other) => return one.or(other),
        };
        for field in second.fields {
            match merged.field(field.name) {
                Some(before) => {
                    let (here, there) = (self.place(field.key), self.place(before.key));
                    let finding = Finding::error(2110, format!("`{}` is given in two files", before.path))
                        .because(format!("at {there} and at {here}"))
                        .fix("keep one of the two");
                    self.report(field.key, finding);
                }
                None => merged.fields.push(field),
            }
        }
        Some(merged)
    }

    /// A key that must be there.
    pub(crate) fn need<'t, 'n>(&mut self, table: &'t Table<'n>, name: &str, example: &str) -> Option<&'t Field<'n>> {
        let field = table.field(name);
        // A key that was misspelt is complained about already.
        let misspelt = || table.strangers.iter().any(|stranger| nearest(stranger, &[name]).is_some());
        if field.is_none() && (self.is_full() || !misspelt()) {
            let inside = if table.path.is_empty() { String::new() } else { format!(" in `{}`", table.path) };
            let finding = Finding::error(2102, format!("the key `{name}` is missing{inside}"));
            let at = table.fields.first().map_or(table.span, |first| first.key);
            self.report(at, finding.fix(format!("add it: {example}")));
        }
        field
    }

    /// The items of a list.
    pub(crate) fn list<'n>(&mut self, field: &Field<'n>, wants: &str) -> Option<Vec<Field<'n>>> {
        let Value::List(items) = &field.node.value else {
            self.mismatch(field.node, &field.path, wants);
            return None;
        };
        let item = |(index, node): (usize, &'n Node)| Field {
            path: format!("{}[{index}]", field.path),
            name: "",
            key: node.span,
            node,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// The finding that a value is of another kind than the key wants.
    pub(crate) fn mismatch(&mut self, node: &Node, path: &str, wants: &str) {
        self.mismatch_because(node, path, wants, "");
    }

    /// The same with a reason.
    pub(crate) fn mismatch_because(&mut self, node: &Node, path: &str, wants: &str, why: &str) {
        match &node.value {
            Value::Unknown => return,
            _ if self.is_full() => return self.report(node.span, Finding::error(2104, "wrong type")),
            Value::Null if path.is_empty() => {
                let finding = Finding::error(2102, "the file is empty").fix(format!("write {wants}"));
                return self.report(node.span, finding);
            }
            _ => {}
        }
        let what = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
        let message = format!("{what} wants {wants}, not {}", self.shown(node));
        let fix = match &node.value {
            Value::Scalar(_, Form::Quoted) => "remove the quotes if a number or true/false is meant".to_owned(),
            _ => format!("write {wants}"),
        };
        self.report(node.span, Finding::error(2104, message).because(why).fix(fix));
    }

    /// A name that a value holds, as messages repeat it.
    pub(crate) fn named(&self, node: &Node, text: &str) -> String {
        if node.is_expanded() { short(self.written(node.span)) } else { short(text) }
    }

    /// A value as messages name it. What a variable expanded to is not repeated: it may be a secret.
    pub(crate) fn shown(&self, node: &Node) -> String {
        match &node.value {
            Value::Null | Value::Unknown => "nothing".to_owned(),
            Value::Scalar(_, Form::Expanded) => format!("what `{}` expands to", short(self.written(node.span))),
            Value::Scalar(text, Form::Plain) => format!("`{}`", short(text)),
            Value::Scalar(text, Form::Quoted) => format!("the text \"{}\"", short(text)),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "keys with values".to_owned(),
        }
    }
}
