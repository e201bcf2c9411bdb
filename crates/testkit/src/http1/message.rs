//! A lenient reader: what it cannot make sense of is a message that never becomes whole.

/// What a message is the answer to, if it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request.
    Request,
    /// An answer to `HEAD`.
    AnswerToHead,
    /// An answer to anything else.
    Answer,
}

/// A message, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The request line or status line.
    pub first: String,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The lines behind the last chunk.
    pub trailers: Vec<(String, String)>,
    /// How many bytes it takes up; `None` while it is not here as a whole.
    pub length: Option<usize>,
    /// Whether only the end of the connection ends it.
    pub until_close: bool,
}

impl Message {
    /// The status of an answer.
    pub fn status(&self) -> u16 {
        let word = self.first.split(' ').nth(1).unwrap_or_default();
        word.parse().unwrap_or_else(|_| panic!("no status in {:?}", self.first))
    }

    /// A field; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.iter().find(|(own, _)| own == name).map_or("", |(_, value)| value)
    }

    /// Whether there is a field.
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|(own, _)| own == name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether all of it is here.
    pub fn is_whole(&self) -> bool {
        self.length.is_some()
    }
}

/// The message at the beginning of `bytes`; `None` until its head is here.
pub fn first(bytes: &[u8], kind: Kind) -> Option<Message> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let (first, lines) = head.split_once("\r\n").unwrap_or((&head, ""));
    let mut message = Message {
        first: first.to_owned(),
        fields: lines.split("\r\n").filter(|line| !line.is_empty()).map(field).collect(),
        body: Vec::new(),
        trailers: Vec::new(),
        length: None,
        until_close: false,
    };
    let rest = &bytes[end + 4..];
    let bodiless = kind == Kind::AnswerToHead
        || kind == Kind::Answer && matches!(message.status(), 100..=199 | 204 | 304)
        || kind == Kind::Request && !message.has("content-length") && !message.has("transfer-encoding");
    if bodiless {
        message.length = Some(end + 4);
    } else if message.field("transfer-encoding").to_ascii_lowercase().ends_with("chunked") {
        message.length = chunks(rest, &mut message).map(|length| end + 4 + length);
    } else if message.has("content-length") {
        let length = message.field("content-length").parse().unwrap_or(usize::MAX);
        message.body = rest[..length.min(rest.len())].to_vec();
        message.length = (rest.len() >= length).then_some(end + 4 + length);
    } else {
        message.body = rest.to_vec();
        message.until_close = true;
    }
    Some(message)
}

/// Every message in `bytes`; the last one may be incomplete.
pub fn all(mut bytes: &[u8], kind: Kind) -> Vec<Message> {
    let mut found = Vec::new();
    while let Some(message) = first(bytes, kind) {
        let length = message.length;
        found.push(message);
        match length {
            Some(length) => bytes = &bytes[length..],
            None => break,
        }
    }
    found
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_ascii_lowercase(), value.trim().to_owned())
}

/// Decodes chunks; the length of all of them and of what ends them.
fn chunks(bytes: &[u8], message: &mut Message) -> Option<usize> {
    let mut at = 0;
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        let size = usize::from_str_radix(str::from_utf8(line).ok()?, 16).ok().filter(|size| *size < 1 << 30)?;
        if size == 0 {
            break;
        }
        let data = &bytes[at.min(bytes.len())..(at + size).min(bytes.len())];
        message.body.extend_from_slice(data);
        at += size;
        if !line_at(bytes, at)?.is_empty() {
            return None;
        }
        at += 2;
    }
    loop {
        let line = line_at(bytes, at)?;
        at += line.len() + 2;
        if line.is_empty() {
            return Some(at);
        }
        message.trailers.push(field(&String::from_utf8_lossy(line)));
    }
}

fn line_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    rest.windows(2).position(|window| window == b"\r\n").map(|end| &rest[..end])
}
