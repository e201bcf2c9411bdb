//! Envoy's vocabulary: which keys of a message are read, and what is said of those that are not.

use hms_model::finding::Finding;

use crate::document::{Node, short};
use crate::read::{Field, Keys, Reader, Span, Table};

/// A setting that the proxy does not have.
pub(super) const NOT_HERE: u16 = 2130;
/// An old form that Envoy itself has given up or deprecates.
pub(super) const OLD_FORM: u16 = 2131;
/// Taken, and it does not mean quite the same.
pub(super) const DIFFERS: u16 = 2132;
/// Reachable from other machines.
pub(super) const OPEN: u16 = 2133;
/// Without it the proxy would be less safe than the file asks for.
pub(super) const UNSAFE: u16 = 2134;

/// What is said of a key that Envoy has and that is not read.
#[derive(Debug, Clone, Copy)]
pub(super) enum Not {
    /// There is nothing like it; the remedy.
    Here(&'static str),
    /// It protects something; the remedy.
    Safe(&'static str),
    /// It is of the v2 API or deprecated; what to write instead.
    New(&'static str),
    /// It changes nothing here, and leaving it out would change nothing either.
    Needed,
}

/// The remedy where there is none but to do without.
pub(super) const LEAVE_OUT: &str = "leave it out, or keep Envoy for this listener";
/// For protections that somebody else has to give.
pub(super) const GUARD: &str = "protect it elsewhere before leaving this out, or keep Envoy for this listener";

/// A message of Envoy's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The keys that are read.
    pub(super) keys: Keys,
    /// What is known of others.
    pub(super) others: &'static [(&'static str, Not)],
}

impl Shape {
    pub(super) const fn new(known: &'static [&'static str], others: &'static [(&'static str, Not)]) -> Self {
        Self { keys: Keys::new(known), others }
    }

    /// A message's mapping. Every key that is not read is a finding, unless it changes nothing.
    pub(super) fn read<'n>(&self, reader: &mut Reader<'_>, node: &'n Node, path: &str) -> Option<Table<'n>> {
        reader.table_where(node, path, self.keys, |reader, field| {
            let known = self.others.iter().find(|(name, _)| *name == field.name);
            known.is_some_and(|(_, not)| {
                not.report(reader, field);
                true
            })
        })
    }
}

impl Not {
    fn report(self, reader: &mut Reader<'_>, field: &Field<'_>) {
        let path = &field.path;
        let finding = match self {
            Self::Needed => return,
            Self::Here(fix) => not_here(&format!("`{path}`")).fix(fix),
            Self::Safe(fix) => unsafe_without(&format!("`{path}`")).fix(fix),
            Self::New(fix) => {
                Finding::error(OLD_FORM, format!("`{path}` is an old form of Envoy's configuration")).fix(fix)
            }
        };
        reader.report(field.key, finding);
    }
}

/// A setting that the proxy does not have.
pub(super) fn not_here(what: &str) -> Finding {
    Finding::error(NOT_HERE, format!("{what} is not supported"))
        .because("it is a setting of Envoy's without an equal here")
}

/// A setting without which the proxy would be less safe than the file asks for.
pub(super) fn unsafe_without(what: &str) -> Finding {
    Finding::error(UNSAFE, format!("{what} is not supported, and it protects something"))
        .because("running without it would be less safe than the file asks for")
}

/// A setting that is taken and does not mean quite the same.
pub(super) fn differs(reader: &mut Reader<'_>, span: Span, what: impl Into<String>, why: &str, fix: &str) {
    reader.report(span, Finding::warning(DIFFERS, what).because(why).fix(fix));
}

/// The message of an extension: what `@type` says it is, or what its name does.
pub(super) struct Typed<'n> {
    /// The mapping itself, with `@type`.
    pub(super) field: Field<'n>,
    /// The message's full name; `None` without `@type`.
    pub(super) message: Option<&'n str>,
}

const GOOGLE: &str = "type.googleapis.com/";

impl<'n> Typed<'n> {
    /// Looks at a `typed_config`.
    pub(super) fn of(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<Self> {
        let table = reader.open_table(field.node, &field.path)?;
        let kind = table.field("@type").cloned();
        let message = match &kind {
            None => None,
            Some(kind) => {
                let text = reader.text(kind, "the name of a message")?;
                let Some(name) = text.strip_prefix(GOOGLE) else {
                    reader.bad(
                        kind,
                        "the name of a message",
                        "it begins with type.googleapis.com/",
                        &format!("write {GOOGLE}…"),
                    );
                    return None;
                };
                if is_old(name) {
                    let finding = Finding::error(OLD_FORM, format!("`{}` is a message of Envoy's v2 API", short(name)));
                    reader.report(
                        kind.node.span,
                        finding
                            .because("Envoy has not read it since 1.18")
                            .fix("write the v3 form, envoy.extensions.…"),
                    );
                    return None;
                }
                Some(name)
            }
        };
        Some(Self { field: field.clone(), message })
    }
}

/// Whether a message belongs to the v2 API.
fn is_old(message: &str) -> bool {
    message.starts_with("envoy.api.v2") || message.split('.').any(|part| matches!(part, "v2" | "v2alpha" | "v1alpha1"))
}
