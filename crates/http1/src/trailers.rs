//! Fields after a chunked body (RFC 9112 §7.1.2).

use hms_model::message::Fields;

use crate::head::diagnose_fields;
use crate::{Limits, Reject, Scanner};

/// Bounds of trailers.
const LIMITS: Limits = Limits { head: 8 << 10, target: 0, field: 8 << 10, fields: MAX_LINES };
const MAX_LINES: usize = 32;

/// Fields that mean something else, or too much, after the body (RFC 9110 §6.5.1): framing, routing, authentication, request
/// modifiers, response control. They are dropped.
const FORBIDDEN: [&str; 33] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "location",
    "max-forwards",
    "origin",
    "pragma",
    "range",
    "referer",
    "retry-after",
    "set-cookie",
    "te",
    "traceparent",
    "tracestate",
    "baggage",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
    "x-request-id",
];
/// The same for whole families.
const FORBIDDEN_PREFIXES: [&str; 8] =
    ["access-control-", "content-", "if-", "proxy-", "sec-", "x-envoy-", "x-forwarded-", "x-hms-"];

/// Collects trailers until they are complete.
#[derive(Debug, Clone)]
pub(crate) struct Trailers {
    scanner: Scanner,
    /// What came before the bytes at hand; nothing as long as a read has all of it.
    kept: Vec<u8>,
}

impl Default for Trailers {
    fn default() -> Self {
        Self { scanner: Scanner::trailers(), kept: Vec::new() }
    }
}

impl Trailers {
    /// How many of the bytes belong to the trailers, and the trailers once they are complete.
    #[expect(clippy::type_complexity, reason = "the outer option is completeness, the inner one whether there are any")]
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Option<Fields>>), Reject> {
        if self.kept.is_empty() && bytes.starts_with(b"\r\n") {
            return Ok((2, Some(None)));
        }
        let before = self.kept.len();
        // One byte over the limit is enough to see that it is crossed.
        let room = (LIMITS.head + 1).saturating_sub(before);
        self.kept.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        match self.scanner.find_end(&self.kept, &LIMITS).map_err(too_large)? {
            None => Ok((bytes.len(), None)),
            Some(end) => {
                let fields = parse(self.kept.get(..end).unwrap_or_default())?;
                Ok((end.saturating_sub(before), Some(fields)))
            }
        }
    }
}

fn too_large(fault: Reject) -> Reject {
    match fault {
        Reject::HeadTooLarge | Reject::FieldTooLarge | Reject::TooManyFields => Reject::TrailersTooLarge,
        fault => fault,
    }
}

fn parse(block: &[u8]) -> Result<Option<Fields>, Reject> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_LINES];
    let lines = match httparse::parse_headers(block, &mut headers) {
        Ok(httparse::Status::Complete((_length, lines))) => lines,
        Ok(httparse::Status::Partial) => return Err(Reject::Unfinished),
        Err(error) => return Err(too_large(diagnose_fields(block, error))),
    };
    // Written with `: ` they may be longer than they came; the next hop must not refuse what this one has taken.
    let written: usize = lines.iter().map(|line| line.name.len() + line.value.len() + 4).sum();
    if written + 2 > LIMITS.head {
        return Err(Reject::TrailersTooLarge);
    }
    let mut fields = Fields::with_capacity(lines.len(), block.len());
    for line in lines.iter().filter(|line| !is_forbidden(line.name)) {
        fields.push_line(line.name, line.value);
    }
    Ok((!fields.is_empty()).then_some(fields))
}

fn is_forbidden(name: &str) -> bool {
    FORBIDDEN.iter().any(|known| name.eq_ignore_ascii_case(known))
        || FORBIDDEN_PREFIXES
            .iter()
            .any(|family| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family)))
}
