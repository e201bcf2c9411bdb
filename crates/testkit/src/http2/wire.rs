//! Frames and header blocks byte by byte, so that a test can send what no library would (RFC 9113, RFC 7541).

/// `DATA`.
pub const DATA: u8 = 0x0;
/// `HEADERS`.
pub const HEADERS: u8 = 0x1;
/// `PRIORITY`.
pub const PRIORITY: u8 = 0x2;
/// `RST_STREAM`.
pub const RST_STREAM: u8 = 0x3;
/// `SETTINGS`.
pub const SETTINGS: u8 = 0x4;
/// `PING`.
pub const PING: u8 = 0x6;
/// `GOAWAY`.
pub const GOAWAY: u8 = 0x7;
/// `WINDOW_UPDATE`.
pub const WINDOW_UPDATE: u8 = 0x8;
/// `CONTINUATION`.
pub const CONTINUATION: u8 = 0x9;

/// `END_STREAM`; `ACK` of `SETTINGS` and `PING`.
pub const END_STREAM: u8 = 0x1;
/// `END_HEADERS`.
pub const END_HEADERS: u8 = 0x4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const INITIAL_WINDOW_SIZE: u16 = 0x4;

/// Error code of a connection that costs too much.
pub const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What every client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// `SETTINGS` with these parameters.
pub fn settings(parameters: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<u8> =
        parameters.iter().flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// `RST_STREAM` with `CANCEL`.
pub fn cancel(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A whole header block in one `HEADERS`.
pub fn headers(stream: u32, ends: bool, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | if ends { END_STREAM } else { 0 }, stream, block)
}

/// Fields as literals that leave no trace in the table (RFC 7541 §6.2.2), whatever their bytes are.
pub fn literals<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0x00, name.as_ref(), value.as_ref())).collect()
}

/// A field that enters the dynamic table (RFC 7541 §6.2.1), as its newest entry: [`indexed`] 62.
pub fn remembered(name: &[u8], value: &[u8]) -> Vec<u8> {
    literal(0x40, name, value)
}

/// A field of the tables (RFC 7541 §6.1).
pub fn indexed(index: u8) -> u8 {
    0x80 | index
}

fn literal(pattern: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[pattern][..], &string(name), &string(value)].concat()
}

/// A string that is not Huffman-coded (RFC 7541 §5.2).
fn string(bytes: &[u8]) -> Vec<u8> {
    let mut coded = Vec::with_capacity(bytes.len() + 3);
    if bytes.len() < 127 {
        coded.push(u8::try_from(bytes.len()).unwrap());
    } else {
        coded.push(127);
        let mut rest = bytes.len() - 127;
        while rest >= 128 {
            coded.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        coded.push(u8::try_from(rest).unwrap());
    }
    coded.extend(bytes);
    coded
}

/// The status of a connection's first response, whose block begins with it. `None` if the block begins otherwise.
pub fn status(block: &[u8]) -> Option<u16> {
    match *block {
        // Table size updates come first.
        [0x20..=0x3f, ref rest @ ..] => status(rest),
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500].get(usize::from(index - 0x88)).copied(),
        [0x08 | 0x18 | 0x48, length, ref rest @ ..] => {
            let coded = rest.get(..usize::from(length & 0x7f))?;
            let digits = if length & 0x80 == 0 { Some(coded.to_vec()) } else { digits(coded) };
            std::str::from_utf8(&digits?).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// Huffman-coded digits (RFC 7541 appendix B): 0 to 2 have five bits, 3 to 9 six.
fn digits(coded: &[u8]) -> Option<Vec<u8>> {
    let bits: Vec<u8> = coded.iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1)).collect();
    let mut rest = bits.as_slice();
    let mut digits = Vec::new();
    while rest.len() >= 5 {
        let value = |count: usize| rest.iter().take(count).fold(0, |sum, bit| sum << 1 | bit);
        let (digit, length) = match (value(5), value(6)) {
            (short @ 0..=2, _) => (short, 5),
            (_, long @ 0x19..=0x1f) if rest.len() >= 6 => (long - 0x19 + 3, 6),
            _ => return None,
        };
        digits.push(b'0' + digit);
        rest = &rest[length..];
        // What is left of the last byte is ones.
        if rest.len() < 8 && rest.iter().all(|bit| *bit == 1) {
            return Some(digits);
        }
    }
    Some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_longer_than_a_byte_can_say_have_a_longer_length() {
        assert_eq!(string(&[b'x'; 126])[..1], [126]);
        assert_eq!(string(&[b'x'; 127])[..2], [127, 0]);
        assert_eq!(string(&[b'x'; 127 + 128])[..3], [127, 128, 1]);
    }

    #[test]
    fn a_status_is_read_in_every_form() {
        assert_eq!(status(&[0x88]), Some(200));
        assert_eq!(status(&[0x48, 3, b'4', b'3', b'1']), Some(431));
        // "302" and "401" as RFC 7541 C.6.1 and its code table have them.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x82, 0x68, 0x01]), Some(401));
        assert_eq!(status(&[0x48, 0x83, 0x68, 0xce, 0x3f]), None);
        assert_eq!(status(&[0x00]), None);
    }
}
