//! One connection's bytes read as the driver reads them, and what must hold of whatever comes out. The fuzz targets use it too.

use hms_http1::{Decoder, Framing, Limits, Reject, Request, Scanner, Step, request, write};
use hms_model::message::Fields;

/// A request with its body.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) request: Request,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<Fields>,
    pub(crate) complete: bool,
}

/// What became of a connection.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) messages: Vec<Message>,
    pub(crate) fault: Option<Reject>,
    /// Bytes that nothing was made of yet.
    pub(crate) rest: Vec<u8>,
}

/// Reads requests from bytes that come in pieces.
#[derive(Debug)]
pub(crate) struct Reader {
    limits: Limits,
    scanner: Scanner,
    body: Option<Decoder>,
    outcome: Outcome,
}

impl Reader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, scanner: Scanner::default(), body: None, outcome: Outcome::default() }
    }

    pub(crate) fn feed(&mut self, piece: &[u8]) {
        self.outcome.rest.extend_from_slice(piece);
        while self.outcome.fault.is_none() {
            let progress = if self.body.is_some() { self.read_body() } else { self.read_head() };
            match progress {
                Ok(true) => {}
                Ok(false) => break,
                Err(fault) => self.outcome.fault = Some(fault),
            }
        }
    }

    pub(crate) fn finish(self) -> Outcome {
        self.outcome
    }

    fn read_head(&mut self) -> Result<bool, Reject> {
        let rest = &mut self.outcome.rest;
        let Some(end) = self.scanner.find_end(rest, &self.limits)? else { return Ok(false) };
        assert!(end <= rest.len(), "a head of {end} bytes in {}", rest.len());
        let request = request(&rest[..end], &self.limits)?;
        rest.drain(..end);
        self.body = Some(Decoder::new(request.framing));
        self.outcome.messages.push(Message { request, body: Vec::new(), trailers: None, complete: false });
        Ok(true)
    }

    fn read_body(&mut self) -> Result<bool, Reject> {
        let rest = &mut self.outcome.rest;
        let (Some(decoder), Some(message)) = (&mut self.body, self.outcome.messages.last_mut()) else {
            return Ok(false);
        };
        match decoder.next(rest)? {
            Step::Data { skip, data } => {
                assert!(data > 0 && skip + data <= rest.len());
                message.body.extend_from_slice(&rest[skip..skip + data]);
                rest.drain(..skip + data);
            }
            Step::More { skip } => {
                assert_eq!(skip, rest.len(), "all that is there is framing");
                rest.clear();
                return Ok(false);
            }
            Step::End { skip, trailers } => {
                assert!(decoder.is_end() && skip <= rest.len());
                rest.drain(..skip);
                message.trailers = trailers;
                message.complete = true;
                self.body = None;
            }
        }
        Ok(true)
    }
}

/// Reads it in one piece.
pub(crate) fn read(bytes: &[u8], limits: Limits) -> Outcome {
    let mut reader = Reader::new(limits);
    reader.feed(bytes);
    reader.finish()
}

/// Reads it in pieces that end where `cuts` says, counted from the end of the piece before; then byte by byte if `cuts` is empty.
pub(crate) fn read_in_pieces(bytes: &[u8], cuts: &[usize], limits: Limits) -> Outcome {
    let mut reader = Reader::new(limits);
    let mut rest = bytes;
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts.next().unwrap_or(1).clamp(1, rest.len()));
        reader.feed(piece);
        rest = after;
    }
    reader.finish()
}

/// Everything of an outcome that must not depend on how the bytes were cut.
pub(crate) fn describe(outcome: &Outcome) -> String {
    let incomplete = outcome.messages.last().is_some_and(|message| !message.complete);
    let messages: Vec<String> = outcome.messages.iter().map(|message| format!("{message:?}")).collect();
    // Inside a refused body or head, how much was taken before is of no consequence.
    let rest = if outcome.fault.is_some() || incomplete { &[] } else { outcome.rest.as_slice() };
    format!("{}\n{:?}\n{rest:?}", messages.join("\n"), outcome.fault)
}

/// What is sent on for a request: everything from its parts, nothing copied from what came.
pub(crate) fn rewrite(message: &Message) -> Vec<u8> {
    let head = &message.request.head;
    let mut out = Vec::new();
    write::request_line(&mut out, &head.method, head.path.as_str(), head.query.as_deref());
    write::field(&mut out, "host", head.authority.to_string().as_bytes());
    for (name, value) in head.fields.iter() {
        write::field(&mut out, name, value);
    }
    if let Some(offer) = &message.request.upgrade {
        offer.write(&mut out);
    }
    write::framing(&mut out, &message.request.framing);
    write::end(&mut out);
    if message.request.framing == Framing::Chunked {
        // In more than one chunk, so that something is left to put together.
        for chunk in message.body.chunks(7) {
            write::chunk_head(&mut out, chunk.len());
            out.extend_from_slice(chunk);
            out.extend_from_slice(write::CHUNK_TAIL);
        }
        write::last_chunk(&mut out, message.trailers.as_ref());
    } else {
        out.extend_from_slice(&message.body);
    }
    out
}

/// What is sent on must be exactly that one request, to us and to a lenient parser.
pub(crate) fn check_rewritten(message: &Message) {
    let sent = rewrite(message);
    let head = &message.request.head;
    // Ours grows by what canonical writing adds at most; the limits are not what is checked here.
    let limits = Limits { head: 1 << 20, target: 1 << 20, field: 1 << 20, fields: 128 };
    let again = read(&sent, limits);
    assert_eq!(again.fault, None, "{}", sent.escape_ascii());
    assert!(again.rest.is_empty() && again.messages.len() == 1, "{}", sent.escape_ascii());
    let read = &again.messages[0];
    let other = &read.request.head;
    assert_eq!((&other.method, &other.authority, &other.path), (&head.method, &head.authority, &head.path));
    assert_eq!(other.query, head.query);
    assert_eq!(read.request.framing, message.request.framing);
    assert_eq!(read.request.upgrade, message.request.upgrade);
    assert_eq!((&read.body, read.complete), (&message.body, true));
    assert_eq!(pairs(&other.fields), pairs(&head.fields));
    assert_eq!(read.trailers.as_ref().map(pairs), message.trailers.as_ref().map(pairs));

    let mut headers = [httparse::EMPTY_HEADER; 140];
    let mut lenient = httparse::Request::new(&mut headers);
    let end = lenient.parse(&sent).unwrap().unwrap();
    assert_eq!(lenient.method, Some(head.method.as_str()));
    let target = lenient.path.unwrap_or_default();
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    assert_eq!((path, query), (head.path.as_str(), head.query.as_deref()));
    let count = |name: &str| lenient.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count();
    assert_eq!(count("host"), 1);
    let framed = match message.request.framing {
        Framing::None => (0, 0),
        Framing::Chunked => (0, 1),
        Framing::Length(_) | Framing::UntilClose => (1, 0),
    };
    assert_eq!((count("content-length"), count("transfer-encoding")), framed, "{}", sent.escape_ascii());
    let upgrade = usize::from(message.request.upgrade.is_some());
    assert_eq!((count("connection"), count("upgrade"), count("keep-alive")), (upgrade, upgrade, 0));
    if matches!(message.request.framing, Framing::None | Framing::Length(_)) {
        assert_eq!(&sent[end..], message.body);
    }
}

/// Names and values as one can compare them.
pub(crate) fn pairs(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec())).collect()
}
