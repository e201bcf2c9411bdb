//! `transport_socket`: the proxy speaks to its own callers and to a file's endpoints in the clear, and says so.

use hms_model::finding::Finding;

use super::shape::{LEAVE_OUT, Shape, Typed, UNSAFE, unsafe_without};
use super::words::unknown_name;
use crate::read::{Field, Reader};

const SOCKET: Shape = Shape::new(&["name", "typed_config"], &[]);
const PLAIN: &str = "envoy.transport_sockets.raw_buffer";
const UPSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
const DOWNSTREAM: &str = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";

/// Of a cluster.
pub(super) fn upstream(reader: &mut Reader<'_>, field: &Field<'_>) {
    read(
        reader,
        field,
        UPSTREAM,
        "TLS to endpoints",
        "let the endpoints join the mesh, or keep Envoy for this cluster",
    );
}

/// Of a listener's filter chain.
pub(super) fn downstream(reader: &mut Reader<'_>, field: &Field<'_>) {
    let fix = "end TLS before this proxy, or use the gateway of a mesh";
    read(reader, field, DOWNSTREAM, "TLS from callers", fix);
}

fn read(reader: &mut Reader<'_>, field: &Field<'_>, message: &str, what: &str, fix: &str) {
    let Some(table) = SOCKET.read(reader, field.node, &field.path) else { return };
    let name = table.field("name").cloned().and_then(|name| Some((reader.text(&name, "a name")?, name)));
    let typed = table.field("typed_config").cloned().and_then(|config| Typed::of(reader, &config));
    let kind = typed.as_ref().and_then(|typed| typed.message).or_else(|| name.as_ref().map(|(name, _)| *name));
    match kind {
        Some(PLAIN | "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer") => return,
        Some(kind) if kind == message || kind == "envoy.transport_sockets.tls" => {
            reader.report(field.key, unsafe_without(what).fix(fix));
        }
        Some(other) => {
            reader.report(field.key, unknown_name("the transport socket", other, PLAIN).fix(LEAVE_OUT));
            return;
        }
        None => {
            let finding = Finding::error(2102, format!("the key `name` is missing in `{}`", field.path));
            reader.report(field.key, finding.fix(format!("add it: name: {PLAIN}")));
            return;
        }
    }
    if let Some(typed) = typed
        && !believes_somebody(reader, &typed.field)
    {
        let finding = Finding::warning(UNSAFE, format!("`{}` names nobody to believe", typed.field.path));
        let why = "without a validation_context any certificate would do";
        reader.report(typed.field.key, finding.because(why).fix("add validation_context with trusted_ca"));
    }
}

/// Whether a TLS context says whose certificates it takes.
fn believes_somebody(reader: &mut Reader<'_>, field: &Field<'_>) -> bool {
    const BELIEVED: [&str; 3] =
        ["validation_context", "validation_context_sds_secret_config", "combined_validation_context"];
    let common =
        reader.open_table(field.node, &field.path).and_then(|table| table.field("common_tls_context").cloned());
    let table = common.and_then(|common| reader.open_table(common.node, &common.path));
    table.is_some_and(|table| BELIEVED.iter().any(|name| table.field(name).is_some()))
}
