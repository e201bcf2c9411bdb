//! A YAML document as a tree that remembers where everything stands.
//!
//! Scalars stay the text that was written: what `no`, `012` or `1e3` means depends on what the key wants, and only the typed
//! reader knows that. JSON is read by the same parser, being YAML.

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use serde_saphyr::granit_parser::{self, ErrorKind, Event, Parser, ScalarStyle, ScanError, StructureStyle};

use crate::read::{Reader, Span};

/// Deepest nesting, anchors resolved.
const MAX_DEPTH: usize = 64;
/// Most values in a file, anchors resolved: a chain of anchors multiplies.
const MAX_NODES: usize = 100_000;
/// Most documents in a file that may have several.
const MAX_DOCUMENTS: usize = 1000;
/// Most text in a file, anchors and variables resolved, in bytes.
pub(crate) const MAX_EXPANDED: usize = 4 * 1024 * 1024;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// Could not be had; the finding is made, and no other is to follow from it.
    Unknown,
    /// A scalar as written.
    Scalar(String, Form),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order written; no key stands twice.
    Map(Vec<Entry>),
}

/// How a scalar was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Without quotes: may be a number or a truth value.
    Plain,
    /// With quotes, or as a block: a text.
    Quoted,
    /// From a variable: whatever is wanted, and not to be repeated to anybody.
    Expanded,
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) span: Span,
    pub(crate) value: Node,
}

/// The one document of a file. `None` when it cannot be read as a whole; then there is a finding, and others that would only
/// follow from it are not made.
pub(crate) fn parse(reader: &mut Reader<'_>, file: u16) -> Option<Node> {
    let mut builder = Builder::new(reader, file);
    builder.document().ok().flatten()
}

/// Every document of a file, those without anything left out. `None` as for [`parse`].
pub(crate) fn parse_all(reader: &mut Reader<'_>, file: u16) -> Option<Vec<Node>> {
    Builder::new(reader, file).documents().ok()
}

/// The same for JSON proper (RFC 8259): what only YAML allows is refused first.
pub(crate) fn parse_json(reader: &mut Reader<'_>, file: u16) -> Option<Node> {
    let (text, name) = (reader.body(file), reader.file_name(file));
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let start = line + error.column().saturating_sub(1);
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        let finding = Finding::error(2101, format!("this is not JSON: {message}"));
        reader.report(
            Span::new(file, start, start + 1),
            finding.fix(format!("a JSON checker shows the same place: jq . {}", short(name))),
        );
        return None;
    }
    parse(reader, file)
}

/// A finding was made that ends the reading of this file.
struct Stop;

/// An event and where it stands.
type Step<'a> = (Event<'a>, Span);

/// An anchored value, how deep it is, and what it weighs.
struct Anchored {
    node: Node,
    height: usize,
    nodes: usize,
    bytes: usize,
}

struct Builder<'r, 'a> {
    reader: &'r mut Reader<'a>,
    file: u16,
    events: Parser<'a, granit_parser::StrInput<'a>>,
    anchors: BTreeMap<usize, Anchored>,
    nodes: usize,
    bytes: usize,
}

impl<'r, 'a> Builder<'r, 'a> {
    fn new(reader: &'r mut Reader<'a>, file: u16) -> Self {
        let mut options = granit_parser::options! {
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        let events = Parser::new_from_str_with_options(reader.body(file), options);
        Self { reader, file, events, anchors: BTreeMap::new(), nodes: 0, bytes: 0 }
    }

    fn document(&mut self) -> Result<Option<Node>, Stop> {
        let mut root = None;
        let mut documents = 0;
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        let finding = Finding::error(2101, "a second document begins here").because("a file holds one");
                        return self.stop(span, finding.fix("move what follows --- into a file of its own"));
                    }
                }
                Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                event => root = Some(self.node(event, span, 0)?.0),
            }
        }
        let nothing = Node { span: Span::new(self.file, 0, 0), value: Value::Null };
        Ok(Some(root.unwrap_or(nothing)))
    }

    fn documents(&mut self) -> Result<Vec<Node>, Stop> {
        let mut roots = Vec::new();
        while let Some((event, span)) = self.next()? {
            match event {
                Event::DocumentStart(..) | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
                _ if roots.len() >= MAX_DOCUMENTS => {
                    let finding = Finding::error(2112, format!("more than {MAX_DOCUMENTS} documents in one file"));
                    return self.stop(span, finding.fix("split the file"));
                }
                event => roots.push(self.node(event, span, 0)?.0),
            }
        }
        roots.retain(|root| !matches!(root.value, Value::Null));
        Ok(roots)
    }

    fn next(&mut self) -> Result<Option<Step<'a>>, Stop> {
        match self.events.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => {
                let range = span.byte_range().unwrap_or_default();
                Ok(Some((event, Span::new(self.file, range.start, range.end))))
            }
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or_default();
                let span = Span::new(self.file, at, at + 1);
                let finding = explain(&error, self.reader.body(self.file), at);
                self.stop(span, finding)
            }
        }
    }

    /// The next event, which must be there.
    fn inside(&mut self, from: Span) -> Result<Step<'a>, Stop> {
        match self.next()? {
            Some(next) => Ok(next),
            None => self.stop(from, Finding::error(2101, "the file ends in the middle")),
        }
    }

    fn stop<T>(&mut self, span: Span, finding: Finding) -> Result<T, Stop> {
        self.reader.report(span, finding);
        Err(Stop)
    }

    /// Builds the value that begins with `event`; also tells how deep it is.
    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<(Node, usize), Stop> {
        let (nodes, bytes) = (self.nodes, self.bytes);
        self.charge(span, 1, 0)?;
        self.check_depth(span, depth)?;
        let (node, height, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(span, tag.is_some());
                self.charge(span, 0, text.len())?;
                (Node { span, value: scalar(&text, style) }, 0, anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.refuse_tag(span, tag.is_some());
                let (node, height) = self.list(span, style, depth)?;
                (node, height, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.refuse_tag(span, tag.is_some());
                let (node, height) = self.map(span, style, depth)?;
                (node, height, anchor)
            }
            Event::Alias(id) => return self.alias(span, id, depth),
            Event::UnresolvedAlias(name) => {
                let finding = Finding::error(2101, format!("no anchor `&{}` stands before this", short(&name)));
                self.reader.report(span, finding.fix("define the anchor first, or quote a value that begins with *"));
                (Node { span, value: Value::Unknown }, 0, 0)
            }
            _ => return self.stop(span, Finding::error(2101, "this cannot stand here")),
        };
        if anchor > 0 {
            let held = (self.nodes - nodes, self.bytes - bytes);
            // The kept copy counts as well: anchors within anchors are copied once per level.
            self.charge(span, held.0, held.1)?;
            self.anchors.insert(anchor, Anchored { node: node.clone(), height, nodes: held.0, bytes: held.1 });
        }
        Ok((node, height))
    }

    fn list(&mut self, from: Span, style: StructureStyle, depth: usize) -> Result<(Node, usize), Stop> {
        let mut items = Vec::new();
        let mut height = 0;
        loop {
            let (event, span) = self.inside(from)?;
            if event == Event::SequenceEnd {
                return Ok((Node { span: extent(from, span, style), value: Value::List(items) }, height));
            }
            let (item, below) = self.node(event, span, depth + 1)?;
            height = height.max(below + 1);
            items.push(item);
        }
    }

    fn map(&mut self, from: Span, style: StructureStyle, depth: usize) -> Result<(Node, usize), Stop> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen: BTreeMap<String, Span> = BTreeMap::new();
        let mut height = 0;
        loop {
            let (event, span) = self.inside(from)?;
            if event == Event::MappingEnd {
                return Ok((Node { span: extent(from, span, style), value: Value::Map(entries) }, height));
            }
            let (key, _) = self.node(event, span, depth + 1)?;
            let (event, at) = self.inside(from)?;
            let (value, below) = self.node(event, at, depth + 1)?;
            height = height.max(below + 1);
            let Value::Scalar(name, _) = key.value else {
                let finding = Finding::error(2101, "a key is a word");
                self.reader.report(key.span, finding.fix("quote it if it is meant as text"));
                continue;
            };
            if let Some(first) = seen.get(&name) {
                let first = self.reader.place(*first);
                let finding = Finding::error(2110, format!("the key `{}` stands twice", short(&name)))
                    .because(format!("first at {first}"))
                    .fix("keep one of the two");
                self.reader.report(key.span, finding);
                continue;
            }
            seen.insert(name.clone(), key.span);
            entries.push(Entry { key: name, span: key.span, value });
        }
    }

    fn alias(&mut self, span: Span, id: usize, depth: usize) -> Result<(Node, usize), Stop> {
        let Some(anchored) = self.anchors.get(&id) else {
            let finding = Finding::error(2101, "an anchor is used inside itself").because("this would never end");
            return self.stop(span, finding.fix("write the value out"));
        };
        let (node, height, nodes, bytes) = (anchored.node.clone(), anchored.height, anchored.nodes, anchored.bytes);
        self.check_depth(span, depth + height)?;
        self.charge(span, nodes, bytes)?;
        Ok((node, height))
    }

    fn check_depth(&mut self, span: Span, depth: usize) -> Result<(), Stop> {
        if depth <= MAX_DEPTH { Ok(()) } else { self.stop(span, too_deep()) }
    }

    fn charge(&mut self, span: Span, nodes: usize, bytes: usize) -> Result<(), Stop> {
        self.nodes += nodes;
        self.bytes += bytes;
        if self.nodes <= MAX_NODES && self.bytes <= MAX_EXPANDED {
            return Ok(());
        }
        let finding = Finding::error(2112, "the file grows too large with its anchors resolved")
            .because(format!("at most {MAX_NODES} values and {MAX_EXPANDED} bytes are read"));
        self.stop(span, finding.fix("use fewer anchors, or split the file"))
    }

    fn refuse_tag(&mut self, span: Span, tagged: bool) {
        if tagged {
            let finding = Finding::error(2101, "a tag (!…) stands before this value").because("no tag is read");
            self.reader.report(span, finding.fix("leave it out; quotes make a text"));
        }
    }
}

fn too_deep() -> Finding {
    Finding::error(2112, format!("values are nested more than {MAX_DEPTH} deep"))
        .because("no file of the mesh needs more than a handful of levels")
        .fix("write it flatter")
}

/// The core schema's nothings, else the text (YAML 1.2.2 §10.3.2).
fn scalar(text: &str, style: ScalarStyle) -> Value {
    match (style, text) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Value::Null,
        (ScalarStyle::Plain, _) => Value::Scalar(text.to_owned(), Form::Plain),
        _ => Value::Scalar(text.to_owned(), Form::Quoted),
    }
}

/// A collection in brackets is marked whole, one in block style by its first character.
fn extent(from: Span, to: Span, style: StructureStyle) -> Span {
    match style {
        StructureStyle::Flow => Span { end: to.end, ..from },
        StructureStyle::Block => from,
    }
}

/// A word of the author's, short enough for a message.
pub(crate) fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(60).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    crate::source::clean(&shown)
}

/// What the parser objects to, with the remedy for what people commonly do.
fn explain(error: &ScanError, body: &str, at: usize) -> Finding {
    let here = body.get(at..).and_then(|rest| rest.chars().next());
    let finding = |fix: &str| Finding::error(2101, format!("this is not YAML: {}", error.info())).fix(fix);
    match error.kind() {
        ErrorKind::RecursionLimitExceeded => too_deep(),
        ErrorKind::ExpectedFlowSequenceSeparator if here == Some('{') => {
            finding("inside [ ] quote what contains braces: [\"GET /sum/{a}/{b}\"]")
                .because("{ begins a new value inside [ ]")
        }
        ErrorKind::ExpectedFlowMappingSeparator if here == Some('{') => {
            finding("inside { } quote what contains braces: {port: \"${PORT}\"}")
                .because("{ begins a new value inside { }")
        }
        ErrorKind::MappingValueNotAllowed => {
            finding("quote a value that contains `: `, and give keys of one level the same indentation")
        }
        ErrorKind::TabNotAllowed | ErrorKind::TabInBlockIndentation | ErrorKind::TabInIndentation => {
            finding("indent with blanks instead of tabs")
        }
        ErrorKind::UnexpectedCharacter { .. } => finding("quote a value that begins with a special character"),
        ErrorKind::UnclosedQuotedScalar | ErrorKind::InvalidQuotedScalarIndent => finding("close the quotes"),
        ErrorKind::UnclosedFlowCollection { .. } | ErrorKind::MismatchedFlowCollectionEnd { .. } => {
            finding("close every [ and { with its own bracket")
        }
        _ => finding("compare the line, its indentation and its quotes with the lines around it"),
    }
}
