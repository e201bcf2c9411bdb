//! Keys that are spelt in several ways: `PathExact`, `pathExact` and `path_exact` are one.

use hms_model::finding::Finding;

use super::{Field, Keys, MAX_FINDINGS, Reader, Table, nearest};
use crate::document::{Node, short};

/// What is the same in every spelling.
pub(crate) fn folded(word: &str) -> String {
    word.chars().filter(|c| *c != '_').map(|c| c.to_ascii_lowercase()).collect()
}

/// A key known as `PathExact`, in the spelling of another key.
pub(crate) fn spelt(known: &str, like: &str) -> String {
    if like.starts_with(|c: char| c.is_ascii_uppercase()) {
        return known.to_owned();
    }
    let words = words(known);
    if like.contains('_') {
        return words.join("_").to_lowercase();
    }
    let lower = |(place, word): (usize, &&str)| if place == 0 { word.to_lowercase() } else { (*word).to_owned() };
    words.iter().enumerate().map(lower).collect()
}

/// The words of a key: `RetryOn` has two, and so has `SourceIP`.
fn words(known: &str) -> Vec<&str> {
    let letters = known.as_bytes();
    let upper = |at: usize| letters.get(at).is_some_and(u8::is_ascii_uppercase);
    let (mut words, mut from) = (Vec::new(), 0);
    for at in 1..letters.len() {
        let begins = upper(at) && (!upper(at - 1) || (at + 1 < letters.len() && !upper(at + 1)));
        if begins {
            words.extend(known.get(from..at));
            from = at;
        }
    }
    words.extend(known.get(from..));
    words
}

impl Reader<'_> {
    /// A mapping with only these keys, in any spelling. The fields have the names of `keys`, which are those of `PathExact`'s spelling;
    /// `also` are keys that may be there and say nothing.
    pub(crate) fn table_spelt<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        keys: Keys,
        also: &[&'static str],
    ) -> Option<Table<'n>> {
        let mut table = self.table_of(node, path, keys)?;
        let mut fields: Vec<Field<'n>> = Vec::new();
        for mut field in std::mem::take(&mut table.fields) {
            let word = folded(field.name);
            let same = |known: &&&'static str| folded(known) == word;
            let Some(known) = keys.known.iter().find(same).or_else(|| also.iter().find(same)) else {
                self.unknown_spelt(&field, keys);
                table.strangers.push(field.name);
                continue;
            };
            if let Some(first) = fields.iter().find(|own| own.name == *known) {
                let why = format!("first at {}", self.place(first.key));
                let finding = Finding::error(2110, format!("the key `{}` stands twice", short(field.name)));
                self.report(field.key, finding.because(why).fix("keep one of the two"));
                continue;
            }
            field.name = known;
            fields.push(field);
        }
        table.strangers.truncate(MAX_FINDINGS);
        table.fields = fields;
        Some(table)
    }

    fn unknown_spelt(&mut self, field: &Field<'_>, keys: Keys) {
        if self.is_full() {
            return self.report(field.key, Finding::error(2103, "unknown key"));
        }
        let spelt: Vec<String> = keys.known.iter().map(|known| spelt(known, field.name)).collect();
        let known: Vec<&str> = spelt.iter().map(String::as_str).collect();
        let (key, why) = (short(field.name), format!("known here: {}", known.join(", ")));
        let finding = match nearest(field.name, &known) {
            Some(near) => Finding::error(2103, format!("unknown key `{key}`; did you mean `{near}`?"))
                .because(why)
                .fix(format!("write `{near}`")),
            None => Finding::error(2103, format!("unknown key `{key}`")).because(why).fix("remove it or correct it"),
        };
        self.report(field.key, finding);
    }

    /// A key that must be there, by its name in `PathExact`'s spelling.
    pub(crate) fn need_spelt<'n>(&mut self, table: &Table<'n>, name: &str, value: &str) -> Option<Field<'n>> {
        if let Some(field) = table.field(name) {
            return Some(field.clone());
        }
        let written = |field: &Field<'_>| field.path.rsplit('.').next().unwrap_or_default().to_owned();
        let like = table.fields.first().map(written);
        let word = spelt(name, like.as_deref().unwrap_or("A"));
        let misspelt = table.strangers.iter().any(|stranger| nearest(stranger, &[&word]).is_some());
        if self.is_full() || !misspelt {
            let inside = if table.path.is_empty() { String::new() } else { format!(" in `{}`", table.path) };
            let at = table.fields.first().map_or(table.span, |first| first.key);
            let finding = Finding::error(2102, format!("the key `{word}` is missing{inside}"));
            self.report(at, finding.fix(format!("add it: {word}: {value}")));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_in_the_spelling_of_its_neighbours() {
        for (known, camel, snake) in [
            ("PathExact", "pathExact", "path_exact"),
            ("HTTP", "http", "http"),
            ("SourceIP", "sourceIP", "source_ip"),
            ("RetryOnStatusCodes", "retryOnStatusCodes", "retry_on_status_codes"),
            ("ExternalSNI", "externalSNI", "external_sni"),
            ("MutualTLSMode", "mutualTLSMode", "mutual_tls_mode"),
            ("JWT", "jwt", "jwt"),
            ("Name", "name", "name"),
        ] {
            assert_eq!(spelt(known, "X"), known);
            assert_eq!((spelt(known, "x").as_str(), spelt(known, "x_y").as_str()), (camel, snake));
            assert_eq!((folded(known), folded(camel)), (folded(camel), folded(snake)));
        }
    }
}
