//! What requests and responses have in common: field lines, and what some of them say about the message.

use hms_model::message::Fields;
use httparse::Header;

use crate::limits::MOST_FIELDS;
use crate::{Limits, Reject, framing};

/// The most options that `Connection` may have.
const MOST_OPTIONS: usize = 32;

/// Fields that `Connection` may not nominate away: dropping them would change what a message means or who sent it.
const PROTECTED: [&str; 12] = [
    "host",
    "authorization",
    "cache-control",
    "cookie",
    "expect",
    "forwarded",
    "set-cookie",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "via",
];
/// The same for whole families.
const PROTECTED_PREFIXES: [&str; 4] = ["content-", "sec-websocket-", "x-forwarded-", "x-hms-"];

/// Whether a byte may stand in a token (RFC 9110 §5.6.2).
pub(crate) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether this is a token (RFC 9110 §5.6.2).
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().copied().all(is_tchar)
}

/// The elements of a comma-separated list; empty ones are none (RFC 9110 §5.6.1).
pub(crate) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// What a field means for framing and forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: it is passed on.
    Ordinary,
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
    WebSocketKey,
    WebSocketVersion,
    WebSocketAccept,
    /// Another field for one hop only.
    Hop,
}

impl Kind {
    fn of(name: &str) -> Self {
        let is = |known: &str, kind: Self| if name.eq_ignore_ascii_case(known) { kind } else { Self::Ordinary };
        match name.len() {
            2 => is("te", Self::Te),
            4 => is("host", Self::Host),
            6 => is("expect", Self::Expect),
            7 => is("upgrade", Self::Upgrade),
            10 => match is("connection", Self::Connection) {
                Self::Ordinary => is("keep-alive", Self::Hop),
                kind => kind,
            },
            14 => match is("content-length", Self::ContentLength) {
                Self::Ordinary => is("http2-settings", Self::Hop),
                kind => kind,
            },
            16 => is("proxy-connection", Self::Hop),
            17 => match is("transfer-encoding", Self::TransferEncoding) {
                Self::Ordinary => is("sec-websocket-key", Self::WebSocketKey),
                kind => kind,
            },
            18 => is("proxy-authenticate", Self::Hop),
            19 => is("proxy-authorization", Self::Hop),
            20 => is("sec-websocket-accept", Self::WebSocketAccept),
            21 => is("sec-websocket-version", Self::WebSocketVersion),
            _ => Self::Ordinary,
        }
    }
}

/// Whose head it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

/// A field that a message may have once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Once<'h> {
    /// Its first value.
    pub(crate) value: Option<&'h [u8]>,
    /// There was another.
    pub(crate) again: bool,
}

impl<'h> Once<'h> {
    fn see(&mut self, value: &'h [u8]) {
        self.again = self.value.is_some();
        self.value = self.value.or(Some(value));
    }

    /// The value, if there was exactly one.
    pub(crate) fn only(self) -> Option<&'h [u8]> {
        self.value.filter(|_one| !self.again)
    }
}

/// The options of `Connection` that matter here (RFC 9110 §7.6.1).
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a set of options, each there or not")]
pub(crate) struct Options {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    /// There are options that nominate other fields.
    others: bool,
    count: usize,
}

/// A set of a head's lines, by their places.
#[derive(Debug, Clone, Copy, Default)]
struct Places(u128);

// Every line has a bit.
const _: () = assert!(MOST_FIELDS <= 128);

impl Places {
    fn add(&mut self, line: u32) {
        self.0 |= 1_u128.checked_shl(line).unwrap_or_default();
    }

    fn has(self, line: u32) -> bool {
        self.0.checked_shr(line).unwrap_or_default() & 1 == 1
    }
}

/// The parsed lines of a head.
#[derive(Default)]
pub(crate) struct Lines<'h> {
    headers: &'h [Header<'h>],
    /// Bytes of all names and values.
    bytes: usize,
    /// Lines that are not passed on.
    own: Places,
    /// Lines of a WebSocket handshake.
    handshake: Places,
    /// `Connection` lines.
    connection: Places,
    pub(crate) host: Once<'h>,
    pub(crate) length: Once<'h>,
    pub(crate) coding: Once<'h>,
    pub(crate) expect: Once<'h>,
    pub(crate) key: Once<'h>,
    pub(crate) version: Once<'h>,
    pub(crate) accept: Once<'h>,
    te: Once<'h>,
    pub(crate) options: Options,
    /// `Upgrade` names `websocket`.
    pub(crate) websocket: bool,
}

impl<'h> Lines<'h> {
    /// Reads what `httparse` found in `head`, and checks what it does not: that each line ends in CR LF.
    pub(crate) fn read(head: &[u8], headers: &'h [Header<'h>], limits: &Limits) -> Result<Self, Reject> {
        let mut lines = Self { headers, ..Self::default() };
        if headers.len() > limits.fields {
            return Err(Reject::TooManyFields);
        }
        for (header, place) in headers.iter().zip(0..) {
            let (name, value) = (header.name, header.value);
            if !follows_crlf(head, name.as_bytes()) {
                return Err(Reject::BareLf);
            }
            if name.len() + value.len() >= limits.field {
                return Err(Reject::FieldTooLarge);
            }
            lines.bytes += name.len() + value.len();
            lines.see(place, Kind::of(name), value);
        }
        if lines.options.count > MOST_OPTIONS {
            return Err(Reject::Connection);
        }
        Ok(lines)
    }

    fn see(&mut self, place: u32, kind: Kind, value: &'h [u8]) {
        match kind {
            Kind::Ordinary => return,
            Kind::Hop => {}
            Kind::Host => self.host.see(value),
            Kind::ContentLength => self.length.see(value),
            Kind::TransferEncoding => self.coding.see(value),
            Kind::Expect => self.expect.see(value),
            Kind::Te => self.te.see(value),
            Kind::WebSocketKey => return self.see_handshake(place, value, |lines| &mut lines.key),
            Kind::WebSocketVersion => return self.see_handshake(place, value, |lines| &mut lines.version),
            Kind::WebSocketAccept => return self.see_handshake(place, value, |lines| &mut lines.accept),
            Kind::Upgrade => {
                self.websocket |= elements(value).any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
            }
            Kind::Connection => {
                self.connection.add(place);
                self.options.read(value);
            }
        }
        self.own.add(place);
    }

    fn see_handshake(&mut self, place: u32, value: &'h [u8], field: fn(&mut Self) -> &mut Once<'h>) {
        self.handshake.add(place);
        field(self).see(value);
    }

    /// Checks what `Content-Length` and `Transfer-Encoding` say by themselves (RFC 9112 §6.3): the length, and whether the
    /// message is chunked.
    pub(crate) fn framing(&self, http10: bool) -> Result<(Option<u64>, bool), Reject> {
        if self.length.again {
            return Err(Reject::ManyLengths);
        }
        if self.coding.again {
            return Err(Reject::ManyCodings);
        }
        match (self.length.value, self.coding.value) {
            (None, None) => Ok((None, false)),
            (Some(_), Some(_)) => Err(Reject::LengthAndCoding),
            (Some(length), None) => Ok((Some(framing::length(length)?), false)),
            (None, Some(_)) if http10 => Err(Reject::CodingInHttp10),
            (None, Some(coding)) => framing::coding(coding).map(|()| (None, true)),
        }
    }

    /// Whether the connection outlives the message (RFC 9112 §9.3).
    pub(crate) fn persistent(&self, http10: bool) -> bool {
        !self.options.close && (!http10 || self.options.keep_alive)
    }

    /// Refuses a `Connection` that is no list of tokens or nominates a protected field.
    pub(crate) fn check_nominations(&self) -> Result<(), Reject> {
        if !self.options.others {
            return Ok(());
        }
        for option in self.nominated() {
            if !is_token(option) {
                return Err(Reject::Connection);
            }
            if is_protected(option) {
                return Err(Reject::Nominated);
            }
        }
        Ok(())
    }

    /// The fields that are passed on, in their order and spelling. Those of the WebSocket handshake are not if this is one; of `TE`,
    /// a request keeps `trailers` if it says nothing else (RFC 9110 §10.1.4).
    pub(crate) fn fields(&self, side: Side, handshake: bool) -> Fields {
        let mut fields = Fields::with_capacity(self.headers.len(), self.bytes);
        let own = if handshake { Places(self.own.0 | self.handshake.0) } else { self.own };
        for (header, place) in self.headers.iter().zip(0..) {
            if !own.has(place) && !self.is_nominated(header.name) {
                fields.push_line(header.name, header.value);
            }
        }
        let te = self.te.only().is_some_and(|value| value.eq_ignore_ascii_case(b"trailers"));
        if te && side == Side::Request {
            fields.push_line("te", b"trailers");
        }
        fields
    }

    /// What `Connection` lists.
    fn nominated(&self) -> impl Iterator<Item = &'h [u8]> {
        let lines = self.headers.iter().zip(0..).filter(|(_header, place)| self.connection.has(*place));
        lines.flat_map(|(header, _place)| elements(header.value))
    }

    /// A response's nominations of protected fields have no effect, instead of making it useless.
    fn is_nominated(&self, name: &str) -> bool {
        self.options.others
            && self.nominated().any(|option| option.eq_ignore_ascii_case(name.as_bytes()))
            && !is_protected(name.as_bytes())
    }
}

impl Options {
    fn read(&mut self, value: &[u8]) {
        for option in elements(value) {
            self.count += 1;
            let is = |known: &[u8]| option.eq_ignore_ascii_case(known);
            match option.len() {
                5 if is(b"close") => self.close = true,
                10 if is(b"keep-alive") => self.keep_alive = true,
                7 if is(b"upgrade") => self.upgrade = true,
                // Gone in any case; `Connection: te` is what RFC 9110 §10.1.4 asks of everyone who sends TE.
                2 if is(b"te") => {}
                _ => self.others = true,
            }
        }
    }
}

fn is_protected(name: &[u8]) -> bool {
    PROTECTED.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        || PROTECTED_PREFIXES
            .iter()
            .any(|family| name.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family.as_bytes())))
}

/// Whether `part` of `head` stands right after a CR LF. What `httparse` skips between lines is nothing but line ends.
fn follows_crlf(head: &[u8], part: &[u8]) -> bool {
    let at = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    at.checked_sub(2).and_then(|start| head.get(start..at)).is_some_and(|before| before == b"\r\n")
}

/// Refuses what is too large or ends in something else than CR LF CR LF, before anything is parsed.
pub(crate) fn check_shape(head: &[u8], limits: &Limits) -> Result<(), Reject> {
    if head.len() > limits.head {
        return Err(Reject::HeadTooLarge);
    }
    if !head.ends_with(b"\r\n\r\n") {
        return Err(if head.ends_with(b"\n\n") || head.ends_with(b"\n\r\n") {
            Reject::BareLf
        } else {
            Reject::Unfinished
        });
    }
    Ok(())
}

/// What is wrong with field lines that `httparse` refused, in words of our own. Their line ends are sound.
pub(crate) fn diagnose_fields(lines: &[u8], error: httparse::Error) -> Reject {
    if error == httparse::Error::TooManyHeaders {
        return Reject::TooManyFields;
    }
    let lines = lines.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for (at, line) in lines.enumerate() {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return if at == 0 { Reject::LeadingSpace } else { Reject::LineFold };
        }
        if let Some(fault) = diagnose_field(line) {
            return fault;
        }
    }
    Reject::Unfinished
}

fn diagnose_field(line: &[u8]) -> Option<Reject> {
    if line.is_empty() {
        return None;
    }
    let Some(colon) = memchr::memchr(b':', line) else { return Some(Reject::NoColon) };
    let (name, value) = line.split_at(colon);
    if is_token(name) {
        let control = value.iter().any(|byte| matches!(byte, 0x7f | 0..=8 | 10..=31));
        return control.then_some(Reject::FieldValue);
    }
    Some(if is_token(name.trim_ascii_end()) { Reject::SpaceBeforeColon } else { Reject::FieldName })
}

/// What stands after the first line.
pub(crate) fn after_first_line(head: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', head).and_then(|end| head.get(end + 1..)).unwrap_or_default()
}

/// The first line end or NUL that is wrong.
pub(crate) fn diagnose_line_ends(head: &[u8]) -> Option<Reject> {
    let mut before = None;
    for byte in head.iter().copied() {
        match byte {
            0 => return Some(Reject::Nul),
            b'\n' if before != Some(b'\r') => return Some(Reject::BareLf),
            _ if before == Some(b'\r') && byte != b'\n' => return Some(Reject::BareCr),
            _ => before = Some(byte),
        }
    }
    None
}
