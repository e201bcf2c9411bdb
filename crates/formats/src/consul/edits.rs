//! `HTTPHeaderModifiers`: header fields to be changed.

use hms_model::http_route::HeaderEdits;

use crate::gateway_api::editable;
use crate::objects::object::items;
use crate::objects::words::pairs;
use crate::read::{Field, Keys, Reader, Table};

const EDITS: Keys = Keys::new(&["Add", "Set", "Remove"]);
/// Names of one list.
const ENTRIES: usize = 64;

/// `RequestHeaders` and `ResponseHeaders`.
pub(super) fn both(reader: &mut Reader<'_>, table: &Table<'_>) -> (HeaderEdits, HeaderEdits) {
    let mut side = |key: &str| table.field(key).cloned().map(|field| edits(reader, &field)).unwrap_or_default();
    (side("RequestHeaders"), side("ResponseHeaders"))
}

fn edits(reader: &mut Reader<'_>, field: &Field<'_>) -> HeaderEdits {
    let Some(table) = reader.table_spelt(field.node, &field.path, EDITS, &[]) else { return HeaderEdits::default() };
    let remove = items(reader, &table, "Remove", ENTRIES, "a list of names of header fields");
    HeaderEdits {
        set: pairs(reader, &table, "Set"),
        add: pairs(reader, &table, "Add"),
        remove: remove.iter().filter_map(|item| editable(reader, item)).collect(),
    }
}
