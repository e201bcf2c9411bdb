//! `Destination`: a service, a subset of it and a port.

use hms_model::finding::Finding;
use hms_model::split::Share;

use super::{Subsets, service};
use crate::document::short;
use crate::objects::object::Object;
use crate::read::{Field, Keys, Reader};

const DESTINATION: Keys = Keys::new(&["host", "subset", "port"]);
const PORT: Keys = Keys::new(&["number"]);

/// Whom it means, and the port.
pub(super) fn read(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    field: &Field<'_>,
    subsets: &Subsets,
) -> Option<(Share, Option<u16>)> {
    let table = reader.table(field.node, &field.path, DESTINATION)?;
    let host = reader.need(&table, "host", "host: reviews").cloned();
    let service = host.and_then(|field| service(reader, object, &field));
    let port = table.field("port").cloned().and_then(|field| reader.table(field.node, &field.path, PORT));
    let port = port.and_then(|table| table.field("number").cloned()).and_then(|field| reader.port(&field));
    let subset = table.field("subset").cloned();
    let subset = subset.and_then(|field| Some((reader.line(&field, "the name of a subset", 63)?, field.node.span)));
    let service = service?;
    let version = match subset {
        None => String::new(),
        Some((name, at)) => subsets.get(&(service.clone(), name.to_owned())).cloned().unwrap_or_else(|| {
            let message = format!("no DestinationRule among these files says what the subset `{}` is", short(name));
            let why = format!("the version `{}` is meant", short(name));
            reader.report(at, Finding::warning(2171, message).because(why));
            name.to_owned()
        }),
    };
    Some((Share { service, version, weight: 1 }, port))
}
