//! Which server a TLS client means, from its first message and without taking part in the handshake.
//!
//! A `ClientHello` (RFC 8446 §4.1.2) may come in any number of TCP segments and TLS records: with post-quantum key shares it is
//! larger than a segment as a rule. Everything that is read here has a bound, and what is broken is refused with the byte that is.

use std::borrow::Cow;
use std::fmt;

/// Largest `ClientHello`, in bytes.
pub const MOST_HELLO: usize = 16 * 1024;
/// Most bytes it may take on the wire, with the headers of its records.
pub const MOST_WIRE: usize = 2 * MOST_HELLO;

/// Longest fragment of one record (RFC 8446 §5.1).
const MOST_RECORD: usize = 1 << 14;
/// Longest host name (RFC 1035 §2.3.4).
const MOST_NAME: usize = 253;
/// The `server_name` extension (RFC 6066 §3).
const SERVER_NAME: u16 = 0;

/// What a client said first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The host it means, in lower case; `None` if it names none.
    pub server_name: Option<String>,
}

/// What came is no `ClientHello`, or one that nobody should act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClientHello {
    /// No TLS record with a handshake.
    Record,
    /// Another handshake message.
    Message,
    /// Longer than [`MOST_HELLO`] or [`MOST_WIRE`].
    TooLong,
    /// A length within it is wrong.
    Length,
    /// More than one name, or one that is no host name.
    Name,
}

impl fmt::Display for NotClientHello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "it does not begin with a TLS handshake",
            Self::Message => "its first message is no ClientHello",
            Self::TooLong => "its ClientHello is too long",
            Self::Length => "its ClientHello is malformed",
            Self::Name => "its server name is none",
        })
    }
}

impl std::error::Error for NotClientHello {}

/// Reads a `ClientHello` from the front of what has arrived so far; `None` until it is complete. What follows it is not looked at.
pub fn read(arrived: &[u8]) -> Result<Option<ClientHello>, NotClientHello> {
    let message = match message(arrived)? {
        Some(message) => message,
        None if arrived.len() >= MOST_WIRE => return Err(NotClientHello::TooLong),
        None => return Ok(None),
    };
    let server_name = server_name(Reader(&message))?;
    Ok(Some(ClientHello { server_name }))
}

/// A piece of a message, and what follows it.
type Fragment<'a> = (&'a [u8], &'a [u8]);
/// What is found once enough is here.
type Found<T> = Result<Option<T>, NotClientHello>;

/// The body of the first handshake message, once all of it is here.
fn message(arrived: &[u8]) -> Found<Cow<'_, [u8]>> {
    let mut rest = arrived;
    let mut message: Cow<'_, [u8]> = Cow::Borrowed(&[]);
    loop {
        let Some((fragment, after)) = record(rest)? else { return whole(&message).map(|_unfinished| None) };
        if message.is_empty() {
            message = Cow::Borrowed(fragment);
        } else {
            message.to_mut().extend_from_slice(fragment);
        }
        if let Some(length) = whole(&message)? {
            return Ok(Some(match message {
                Cow::Borrowed(bytes) => Cow::Borrowed(bytes.get(4..length).unwrap_or_default()),
                Cow::Owned(bytes) => Cow::Owned(bytes.get(4..length).unwrap_or_default().to_vec()),
            }));
        }
        rest = after;
    }
}

/// The first record's fragment, as much of it as is here, and what follows the record. `None` while its header is incomplete.
fn record(bytes: &[u8]) -> Found<Fragment<'_>> {
    let sound = [22, 3].iter().zip(bytes).all(|(wanted, byte)| wanted == byte);
    if !sound {
        return Err(NotClientHello::Record);
    }
    let Some((&[_, _, _, high, low], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > MOST_RECORD {
        return Err(NotClientHello::Record);
    }
    Ok(Some(rest.split_at_checked(length).unwrap_or((rest, &[]))))
}

/// The length of the handshake message at the front, its header included, if all of it is here.
fn whole(bytes: &[u8]) -> Result<Option<usize>, NotClientHello> {
    if bytes.first().is_some_and(|kind| *kind != 1) {
        return Err(NotClientHello::Message);
    }
    let Some(&[_, high, middle, low]) = bytes.first_chunk() else { return Ok(None) };
    let length = usize::try_from(u32::from_be_bytes([0, high, middle, low])).unwrap_or(usize::MAX);
    if length > MOST_HELLO {
        return Err(NotClientHello::TooLong);
    }
    Ok((bytes.len() - 4 >= length).then_some(4 + length))
}

/// Bytes that are read from the front.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], NotClientHello> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(NotClientHello::Length)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, NotClientHello> {
        self.take(1).map(|byte| byte.first().copied().unwrap_or_default())
    }

    fn number(&mut self) -> Result<u16, NotClientHello> {
        Ok(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    /// What stands behind one byte of length.
    fn short(&mut self) -> Result<Self, NotClientHello> {
        let length = usize::from(self.byte()?);
        self.take(length).map(Self)
    }

    /// What stands behind two bytes of length.
    fn long(&mut self) -> Result<Self, NotClientHello> {
        let length = usize::from(self.number()?);
        self.take(length).map(Self)
    }
}

fn server_name(mut hello: Reader<'_>) -> Result<Option<String>, NotClientHello> {
    hello.take(2 + 32)?;
    hello.short()?;
    hello.long()?;
    hello.short()?;
    if hello.0.is_empty() {
        // Without extensions, as before TLS 1.2.
        return Ok(None);
    }
    let mut extensions = hello.long()?;
    if !hello.0.is_empty() {
        return Err(NotClientHello::Length);
    }
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.long()?;
        if kind == SERVER_NAME && found.replace(one_name(data)?).is_some() {
            return Err(NotClientHello::Name);
        }
    }
    Ok(found)
}

/// The one host name of a `server_name` extension.
fn one_name(mut data: Reader<'_>) -> Result<String, NotClientHello> {
    let mut names = data.long()?;
    let kind = names.byte()?;
    let name = names.long()?.0;
    if kind != 0 || !names.0.is_empty() || !data.0.is_empty() {
        return Err(NotClientHello::Name);
    }
    let sound = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let dotted = name.starts_with(b".") || name.windows(2).any(|pair| pair == b"..");
    if name.is_empty() || name.len() > MOST_NAME || dotted || !name.iter().all(sound) {
        return Err(NotClientHello::Name);
    }
    let text = String::from_utf8_lossy(name).to_ascii_lowercase();
    let text = text.strip_suffix('.').unwrap_or(&text).to_owned();
    if text.is_empty() || text.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err(NotClientHello::Name);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use rustls_pki_types::ServerName;

    use super::*;

    /// What a real client sends first.
    fn hello(host: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// The same message in records that end where `ends` says.
    fn in_records(whole: &[u8], ends: &[usize]) -> Vec<u8> {
        let message = &whole[5..];
        let mut bytes = Vec::new();
        let mut from = 0;
        for to in ends.iter().copied().chain([message.len()]) {
            if to > from && to <= message.len() {
                bytes.extend([22, 3, 1]);
                bytes.extend(u16::try_from(to - from).unwrap().to_be_bytes());
                bytes.extend(&message[from..to]);
                from = to;
            }
        }
        bytes
    }

    fn meant(host: &str) -> ClientHello {
        ClientHello { server_name: Some(host.to_owned()) }
    }

    #[test]
    fn a_real_client_is_understood_with_its_last_byte_and_not_before() {
        let bytes = hello("Orders.Example.ORG");
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {}", bytes.len());
        }
        assert_eq!(read(&bytes), Ok(Some(meant("orders.example.org"))));
        let more = [bytes.as_slice(), b"\x17\x03\x03 what follows"].concat();
        assert_eq!(read(&more), Ok(Some(meant("orders.example.org"))));
    }

    #[test]
    fn a_client_that_names_an_address_names_no_host() {
        assert_eq!(read(&hello("127.0.0.1")), Ok(Some(ClientHello { server_name: None })));
    }

    #[test]
    fn what_is_no_client_hello_is_refused_with_the_byte_that_shows_it() {
        for (bytes, why) in [
            (b"G".as_slice(), NotClientHello::Record),
            (&[22, 2], NotClientHello::Record),
            (&[23], NotClientHello::Record),
            (&[22, 3, 1, 0, 0], NotClientHello::Record),
            (&[22, 3, 1, 0x40, 1], NotClientHello::Record),
            (&[22, 3, 1, 0, 9, 2], NotClientHello::Message),
            (&[22, 3, 1, 0, 9, 1, 0, 0x40, 1], NotClientHello::TooLong),
        ] {
            assert_eq!(read(bytes), Err(why), "{bytes:?}");
            assert_eq!(read(&bytes[..bytes.len() - 1]), Ok(None), "{bytes:?}");
        }
    }

    #[test]
    fn two_names_or_a_name_that_is_none_are_refused() {
        let name = |name: &[u8]| {
            let length = u16::try_from(name.len()).unwrap();
            let list = [&[0][..], &length.to_be_bytes(), name].concat();
            let data = [&(length + 3).to_be_bytes()[..], &list].concat();
            [&[0, 0][..], &(length + 5).to_be_bytes(), &data].concat()
        };
        let with = |extensions: &[u8]| {
            let extensions = [&u16::try_from(extensions.len()).unwrap().to_be_bytes()[..], extensions].concat();
            let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0], &extensions].concat();
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            let message = [&[1][..], &length[1..], &body].concat();
            read(&[&[22, 3, 1][..], &u16::try_from(message.len()).unwrap().to_be_bytes(), &message].concat())
        };
        assert_eq!(with(&name(b"a.example.")), Ok(Some(meant("a.example"))));
        assert_eq!(with(&[name(b"a"), name(b"b")].concat()), Err(NotClientHello::Name));
        for bad in [b"".as_slice(), b"a\0b", b"a..b", b".a", b".", b"10.0.0.1", b"a/b", "ä".as_bytes(), &[b'a'; 254]] {
            assert_eq!(with(&name(bad)), Err(NotClientHello::Name), "{}", bad.escape_ascii());
        }
        assert_eq!(with(&[0, 1, 0, 9]), Err(NotClientHello::Length));
    }

    proptest! {
        #[test]
        fn how_it_is_cut_into_records_does_not_matter(mut ends in prop::collection::vec(1..2000_usize, 0..40)) {
            ends.sort_unstable();
            let bytes = in_records(&hello("orders.example.org"), &ends);
            prop_assert_eq!(read(&bytes), Ok(Some(meant("orders.example.org"))));
            for end in (0..bytes.len()).step_by(97) {
                prop_assert_eq!(read(&bytes[..end]), Ok(None));
            }
        }

        #[test]
        fn nothing_makes_it_fall_over_or_wait_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0..1200_usize, flip in any::<u8>()) {
            let _any = read(&bytes);
            let mut real = hello("orders.example.org");
            if let Some(byte) = real.get_mut(at) {
                *byte ^= flip;
            }
            let _any = read(&real);
            let endless = [22, 3, 1, 0, 1, 1].iter().copied().chain([22, 3, 1, 0, 1, 0].into_iter().cycle()).take(MOST_WIRE);
            prop_assert!(read(&endless.collect::<Vec<_>>()).is_err());
        }
    }
}
