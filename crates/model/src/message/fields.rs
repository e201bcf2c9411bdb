//! Header fields in order, behind one lookup, whatever they came by.
//!
//! HTTP/1.1 gives lines of text: they stay one text with ranges into it, names as they were written. HTTP/2 gives `h2`'s map and
//! takes one. Forwarding like to like converts nothing.

use std::cell::RefCell;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

/// Header fields in order. Names compare without regard to case (RFC 9110 §5.1).
#[derive(Debug, Clone)]
pub struct Fields(Backing);

#[derive(Debug, Clone)]
enum Backing {
    Lines(Lines),
    /// Boxed, so that a head of lines does not carry its size about.
    Map(Box<HeaderMap>),
}

/// Lines in one text.
#[derive(Debug, Clone, Default)]
struct Lines {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// Heads whose memory is kept per thread for the next, and how much text one may have to be kept.
const KEPT: usize = 64;
const KEPT_TEXT: usize = 8 * 1024;

thread_local! {
    static FREE: RefCell<Vec<Lines>> = const { RefCell::new(Vec::new()) };
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.text.capacity() == 0 || self.text.capacity() > KEPT_TEXT {
            return;
        }
        // Without the list the thread is ending.
        let _kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                let (mut text, mut lines) = (std::mem::take(&mut self.text), std::mem::take(&mut self.lines));
                text.clear();
                lines.clear();
                free.push(Self { text, lines });
            }
        });
    }
}

/// Where a line's parts are in the text. Heads are bounded far below 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Line {
    name: u32,
    value: u32,
    end: u32,
}

/// Room for what a hop adds to a head, so that it need not grow.
const ROOM: usize = 192;

impl Default for Fields {
    fn default() -> Self {
        Self(Backing::Lines(Lines::default()))
    }
}

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// No fields yet, with room for `lines` of them whose names and values are `bytes` long together, and for a few more.
    pub fn with_capacity(lines: usize, bytes: usize) -> Self {
        let mut own = FREE.with_borrow_mut(Vec::pop).unwrap_or_default();
        own.text.reserve(bytes.saturating_add(ROOM));
        own.lines.reserve(lines.saturating_add(4));
        Self(Backing::Lines(own))
    }

    /// Adds a line as a parser found it. The parser has made sure that the name is a token (RFC 9110 §5.6.2) and that the value has
    /// no control byte (§5.5); what is neither is left out.
    pub fn push_line(&mut self, name: &str, value: &[u8]) {
        match &mut self.0 {
            Backing::Lines(lines) => lines.push(name.as_bytes(), value),
            Backing::Map(map) => {
                if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                    map.append(name, value);
                }
            }
        }
    }

    /// The first value of a field.
    pub fn first(&self, name: &HeaderName) -> Option<&[u8]> {
        match &self.0 {
            Backing::Lines(lines) => lines.first(name.as_str()),
            Backing::Map(map) => map.get(name).map(HeaderValue::as_bytes),
        }
    }

    /// Whether there is a field of that name, in any spelling.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.lines().any(|(own, _)| own.eq_ignore_ascii_case(name))
    }

    /// The first value of a field if it is visible ASCII.
    pub fn text(&self, name: &HeaderName) -> Option<&str> {
        let value = self.first(name)?;
        let visible = value.iter().all(|byte| matches!(byte, b'\t' | 0x20..=0x7e));
        visible.then(|| std::str::from_utf8(value).ok()).flatten()
    }

    /// Every value of a field, in order.
    pub fn all<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let (lines, map) = self.backings();
        let of_lines = lines.into_iter().flat_map(move |lines| lines.values(name.as_str()));
        of_lines.chain(map.into_iter().flat_map(move |map| map.get_all(name).iter().map(HeaderValue::as_bytes)))
    }

    /// How many values a field has.
    pub fn count(&self, name: &HeaderName) -> usize {
        self.all(name).count()
    }

    /// Replaces every value of a field by one.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        match &mut self.0 {
            Backing::Lines(lines) => {
                lines.remove(name.as_str());
                lines.push(name.as_str().as_bytes(), value.as_bytes());
            }
            Backing::Map(map) => {
                map.insert(name, value);
            }
        }
    }

    /// Replaces every value of a field by one line; see [`Self::push_line`].
    pub fn set_line(&mut self, name: &HeaderName, value: &[u8]) {
        self.remove(name);
        self.push_line(name.as_str(), value);
    }

    /// Adds a value after those that are there.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        match &mut self.0 {
            Backing::Lines(lines) => lines.push(name.as_str().as_bytes(), value.as_bytes()),
            Backing::Map(map) => {
                map.append(name, value);
            }
        }
    }

    /// Drops every value of a field.
    pub fn remove(&mut self, name: &HeaderName) {
        match &mut self.0 {
            Backing::Lines(lines) => lines.remove(name.as_str()),
            Backing::Map(map) => {
                map.remove(name);
            }
        }
    }

    /// All names with their values; a repeated name appears once per value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let (lines, map) = self.backings();
        let of_lines = lines.into_iter().flat_map(Lines::iter);
        of_lines
            .chain(map.into_iter().flat_map(|map| map.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))))
    }

    /// The same as [`Self::iter`] for those who only pass the bytes on.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let (lines, map) = self.backings();
        let of_lines = lines.into_iter().flat_map(Lines::raw);
        let of_map = map.into_iter().flat_map(HeaderMap::iter);
        of_lines.chain(of_map.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
    }

    /// How many values there are in all.
    pub fn len(&self) -> usize {
        match &self.0 {
            Backing::Lines(lines) => lines.lines.len(),
            Backing::Map(map) => map.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn backings(&self) -> (Option<&Lines>, Option<&HeaderMap>) {
        match &self.0 {
            Backing::Lines(lines) => (Some(lines), None),
            Backing::Map(map) => (None, Some(map)),
        }
    }
}

impl Lines {
    fn push(&mut self, name: &[u8], value: &[u8]) {
        let at = |text: &Vec<u8>| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let start = at(&self.text);
        self.text.extend_from_slice(name);
        let middle = at(&self.text);
        self.text.extend_from_slice(value);
        self.lines.push(Line { name: start, value: middle, end: at(&self.text) });
    }

    fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.lines.retain(|line| !line.is_called(text, name));
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        let line = self.lines.iter().find(|line| line.is_called(&self.text, name))?;
        Some(slice(&self.text, line.value..line.end))
    }

    fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let called = self.lines.iter().filter(move |line| line.is_called(&self.text, name));
        called.map(|line| slice(&self.text, line.value..line.end))
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let parts = |line: &Line| (slice(&self.text, line.name..line.value), slice(&self.text, line.value..line.end));
        self.lines.iter().map(parts)
    }
}

impl Line {
    fn is_called(&self, text: &[u8], name: &str) -> bool {
        let own = slice(text, self.name..self.value);
        own.len() == name.len() && own.eq_ignore_ascii_case(name.as_bytes())
    }
}

fn slice(text: &[u8], range: Range<u32>) -> &[u8] {
    // A usize has at least 32 bits wherever the mesh runs.
    text.get(range.start as usize..range.end as usize).unwrap_or_default()
}

impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        Self(Backing::Map(Box::new(map)))
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let lines = match fields.0 {
            Backing::Map(map) => return *map,
            Backing::Lines(lines) => lines,
        };
        let mut map = Self::with_capacity(lines.lines.len() + 4);
        for (name, value) in lines.iter() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT, COOKIE, HOST};
    use proptest::prelude::*;

    use super::*;

    fn both(lines: &[(&str, &str)]) -> [Fields; 2] {
        let mut text = Fields::with_capacity(lines.len(), 0);
        let mut map = Fields::from(HeaderMap::new());
        for (name, value) in lines {
            text.push_line(name, value.as_bytes());
            map.push_line(name, value.as_bytes());
        }
        [text, map]
    }

    #[test]
    fn both_backings_answer_alike() {
        for mut fields in both(&[("Accept", "a"), ("cookie", "1"), ("COOKIE", "2")]) {
            assert_eq!(fields.first(&ACCEPT), Some(b"a".as_slice()));
            assert_eq!(fields.text(&COOKIE), Some("1"));
            assert_eq!(fields.count(&COOKIE), 2);
            assert_eq!(fields.first(&HOST), None);
            fields.set(COOKIE, HeaderValue::from_static("3"));
            assert_eq!(fields.all(&COOKIE).collect::<Vec<_>>(), [b"3"]);
            fields.append(ACCEPT, HeaderValue::from_static("b"));
            assert_eq!(fields.len(), 3);
            fields.remove(&ACCEPT);
            let left: Vec<_> = fields.iter().collect();
            assert_eq!(left, [("cookie", b"3".as_slice())]);
        }
    }

    #[test]
    fn a_value_that_is_no_visible_ascii_is_no_text() {
        for fields in both(&[("accept", "ä")]) {
            assert_eq!(fields.text(&ACCEPT), None);
        }
    }

    #[test]
    fn lines_keep_the_spelling_they_came_with() {
        let [fields, _] = both(&[("X-Request-ID", "1")]);
        assert_eq!(fields.iter().next(), Some(("X-Request-ID", b"1".as_slice())));
    }

    proptest! {
        #[test]
        fn lines_become_the_map_they_say(lines in prop::collection::vec(("[a-zA-Z-]{1,12}", "[ -~]{0,20}"), 0..20)) {
            let pairs: Vec<(&str, &str)> = lines.iter().map(|(n, v)| (n.as_str(), v.trim())).collect();
            let [text, map] = both(&pairs);
            prop_assert_eq!(HeaderMap::from(text), HeaderMap::from(map));
        }
    }
}
