//! `ports:` and `protocol:` of a service: what callers dial, and what is spoken there.

use std::collections::BTreeSet;

use hms_model::finding::Finding;
use hms_model::names::Label;
use hms_model::port::{AppProtocol, MOST_PORTS, Port};

use crate::document::{Value, short};
use crate::read::{Field, Keys, Reader};

const PORT: Keys = Keys::new(&["port", "protocol", "target"]);
const WORDS: [(&str, AppProtocol); 7] = [
    ("http", AppProtocol::Http),
    ("http2", AppProtocol::Http2),
    ("h2c", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
    ("tls", AppProtocol::Tls),
    ("https", AppProtocol::Tls),
];

/// One of the words for a protocol.
pub(crate) fn protocol(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<AppProtocol> {
    reader.word(field, &WORDS)
}

/// `{http: 80, grpc: {port: 50051, target: 5000}}`: each port by its name, which tells its protocol unless something else does.
/// `otherwise` is what the service's own `protocol:` says.
pub(crate) fn read(reader: &mut Reader<'_>, field: &Field<'_>, otherwise: AppProtocol) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return ports };
    if table.fields().len() > MOST_PORTS {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_PORTS} ports", field.path));
        reader.report(field.key, finding.fix("split the service"));
        return ports;
    }
    let mut numbers = BTreeSet::new();
    for field in table.fields() {
        if let Err(error) = Label::new(field.name) {
            let finding = Finding::error(2111, format!("`{}` is no name of a port", short(field.name)));
            reader.report(field.key, finding.because(error.to_string()).fix("write for example grpc: 50051"));
        }
        let Some(port) = port(reader, field, otherwise) else { continue };
        if numbers.insert(port.number) {
            ports.push(port);
        } else {
            let finding = Finding::error(2110, format!("port {} stands twice", port.number));
            reader.report(field.node.span, finding.fix("keep one of the two"));
        }
    }
    ports.sort_unstable();
    ports
}

/// A number, or a table that begins with it.
fn port(reader: &mut Reader<'_>, field: &Field<'_>, otherwise: AppProtocol) -> Option<Port> {
    let by_name = match AppProtocol::of_port_name(field.name) {
        AppProtocol::Detect => otherwise,
        said => said,
    };
    let name = field.name.to_owned();
    if let Value::Scalar(..) = &field.node.value {
        return Some(Port { number: reader.port(field)?, name, protocol: by_name, target: None });
    }
    let table = reader.table(field.node, &field.path, PORT)?;
    let number = reader.need(&table, "port", "grpc: {port: 50051}").cloned();
    let target = table.field("target").and_then(|field| reader.port(field));
    let said = table.field("protocol").and_then(|field| protocol(reader, field));
    Some(Port {
        number: number.and_then(|field| reader.port(&field))?,
        name,
        protocol: said.unwrap_or(by_name),
        target,
    })
}
