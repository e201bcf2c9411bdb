//! `ports` and `expose` of a Compose file: where a container listens.

use std::collections::BTreeSet;

use crate::compose::cannot;
use crate::document::{Node, Value};
use crate::read::{Field, Reader, Span, Table};

/// The TCP ports that a service names.
#[derive(Debug, Default)]
pub(super) struct Ports {
    /// Those of `ports`, inside the container, and where each stands.
    pub(super) published: Vec<(u16, Span)>,
    /// Those of `expose`.
    exposed: Vec<u16>,
    /// Whether there are others that could not be read; the finding is made.
    unknown: bool,
}

/// Where a service is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listens {
    /// At this port of its container.
    At(u16),
    /// It only calls.
    Nowhere,
}

impl Listens {
    /// Its port.
    pub(super) fn port(self) -> Option<u16> {
        match self {
            Self::At(port) => Some(port),
            Self::Nowhere => None,
        }
    }
}

/// What one line says.
enum Said {
    Tcp(u16),
    /// Another protocol, which the mesh does not carry.
    Other,
    Unreadable(&'static str),
}

impl Ports {
    /// Reads both keys.
    pub(super) fn read(reader: &mut Reader<'_>, service: &Table<'_>) -> Self {
        let mut ports = Self::default();
        for key in ["ports", "expose"] {
            let Some(field) = service.field(key) else { continue };
            let items = reader.list(field, "a list such as [\"8000:8000\"]").unwrap_or_default();
            for item in items {
                match said(item.node) {
                    Said::Tcp(port) if key == "ports" => ports.published.push((port, item.node.span)),
                    Said::Tcp(port) => ports.exposed.push(port),
                    Said::Other => {}
                    Said::Unreadable(why) => {
                        ports.unknown = true;
                        let name = service.path.rsplit('.').next().unwrap_or_default();
                        let fix = "write one line per port, the container's as a number: \"8000:8000\"";
                        cannot(reader, &item, name, why, fix);
                    }
                }
            }
        }
        ports
    }

    /// The port of the service: what `x-hms` says, else `mesh.yaml`, else the only one there is. `None` after a finding.
    pub(super) fn of_service(
        &self,
        reader: &mut Reader<'_>,
        service: &Field<'_>,
        table: &Table<'_>,
        beside: Option<u16>,
    ) -> Option<Listens> {
        let ours = table.field(super::OURS).filter(|field| matches!(field.node.value, Value::Map(_)));
        let ours = ours.and_then(|field| reader.open_table(field.node, &field.path));
        if let Some(field) = ours.as_ref().and_then(|ours| ours.field("port")) {
            return match &field.node.value {
                Value::Scalar(text, _) if text == "none" => Some(Listens::Nowhere),
                _ => reader.port(field).map(Listens::At),
            };
        }
        if let Some(port) = beside {
            return Some(Listens::At(port));
        }
        let all: BTreeSet<u16> = self.published.iter().map(|(port, _)| *port).chain(self.exposed.clone()).collect();
        match (all.len(), all.first()) {
            (1, Some(only)) => Some(Listens::At(*only)),
            (0, _) if self.unknown => None,
            (0, _) => {
                let fix = "write x-hms: {port: 8000}; {port: none} if it only calls; x-hms: false to leave it out";
                cannot(reader, service, service.name, "nothing says where it listens", fix);
                None
            }
            (_, first) => {
                let list: Vec<String> = all.iter().map(u16::to_string).collect();
                let why = format!("it has the ports {}, and nothing says which is the service's", list.join(", "));
                let fix = format!("write x-hms: {{port: {}}}", first.copied().unwrap_or_default());
                cannot(reader, service, service.name, &why, &fix);
                None
            }
        }
    }
}

fn said(item: &Node) -> Said {
    match &item.value {
        Value::Scalar(text, _) => short_syntax(text),
        Value::Map(entries) => {
            let text = |key: &str| {
                entries.iter().find(|entry| entry.key == key).and_then(|entry| match &entry.value.value {
                    Value::Scalar(text, _) => Some(text.as_str()),
                    _ => None,
                })
            };
            match text("protocol") {
                None | Some("tcp") => number(text("target").unwrap_or_default()),
                Some(_) => Said::Other,
            }
        }
        _ => Said::Unreadable("one of its ports is neither a text nor keys with values"),
    }
}

/// `[[IP:]HOST:]CONTAINER[/PROTOCOL]`.
fn short_syntax(text: &str) -> Said {
    let (address, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    if protocol.contains('}') {
        return Said::Unreadable("a variable stands in the container's port, and only Compose knows its value");
    }
    if protocol != "tcp" {
        return Said::Other;
    }
    number(address.rsplit(':').next().unwrap_or_default())
}

fn number(text: &str) -> Said {
    match text.parse() {
        Ok(port) if port != 0 => Said::Tcp(port),
        _ if text.contains(['$', '{', '}']) => {
            Said::Unreadable("a variable stands in the container's port, and only Compose knows its value")
        }
        _ if text.contains('-') => {
            Said::Unreadable("it has a range of ports, and a service of the mesh has single ones")
        }
        _ => Said::Unreadable("one of its ports is no number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Option<u16> {
        match short_syntax(text) {
            Said::Tcp(port) => Some(port),
            Said::Other | Said::Unreadable(_) => None,
        }
    }

    #[test]
    fn the_side_of_the_container_counts() {
        for text in ["8000", "80:8000", "127.0.0.1:80:8000", "[::1]:80:8000/tcp", "${PORT:-80}:8000", "8000-8009:8000"]
        {
            assert_eq!(tcp(text), Some(8000), "{text}");
        }
    }

    #[test]
    fn what_is_no_single_port_of_tcp_is_none() {
        for text in ["8000-8001", "80:${PORT:-8000}", "53:53/udp", "0", "70000", "", "http"] {
            assert_eq!(tcp(text), None, "{text}");
        }
    }
}
