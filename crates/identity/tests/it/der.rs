//! A DER writer that will write anything, wrong things included.

/// One element: tag, shortest length, content.
pub(crate) fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let length = content.len();
    if length < 128 {
        out.push(u8::try_from(length).unwrap());
    } else {
        let bytes = length.to_be_bytes();
        let start = bytes.iter().position(|byte| *byte != 0).unwrap();
        out.push(0x80 | u8::try_from(bytes.len() - start).unwrap());
        out.extend_from_slice(&bytes[start..]);
    }
    out.extend_from_slice(content);
    out
}

/// A SEQUENCE of ready elements.
pub(crate) fn seq(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

/// An OBJECT IDENTIFIER.
pub(crate) fn oid(parts: &[u64]) -> Vec<u8> {
    let mut content = vec![u8::try_from(parts[0] * 40 + parts[1]).unwrap()];
    for part in &parts[2..] {
        let mut groups = vec![u8::try_from(part & 127).unwrap()];
        let mut rest = part >> 7;
        while rest > 0 {
            groups.push(u8::try_from(rest & 127).unwrap() | 128);
            rest >>= 7;
        }
        groups.reverse();
        content.extend_from_slice(&groups);
    }
    tlv(6, &content)
}

/// An INTEGER with this content, canonical or not.
pub(crate) fn integer(content: &[u8]) -> Vec<u8> {
    tlv(2, content)
}

/// A BIT STRING without unused bits.
pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content].concat())
}

/// NULL.
pub(crate) fn null() -> Vec<u8> {
    vec![5, 0]
}

/// A name of one common name.
pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let attribute = seq(&[&oid(&[2, 5, 4, 3]), &tlv(12, common_name.as_bytes())]);
    tlv(0x30, &tlv(0x31, &attribute))
}

/// A `UTCTime` from Unix seconds.
pub(crate) fn utc_time(seconds: i64) -> Vec<u8> {
    let t = time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        t.year() % 100,
        u8::from(t.month()),
        t.day(),
        t.hour(),
        t.minute(),
        t.second()
    );
    tlv(0x17, text.as_bytes())
}
