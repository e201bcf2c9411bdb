//! The WebSocket handshake (RFC 6455 §4), the only upgrade that is passed on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use crate::head::Lines;
use crate::{Reject, Response, write};

/// What is appended to the key before it is hashed (RFC 6455 §1.3).
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client offers: version 13 with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    key: [u8; 24],
}

/// The proof that a server has read the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept([u8; 28]);

impl Offer {
    /// Checks what a client sent besides method, `Upgrade` and `Connection` (RFC 6455 §4.2.1).
    pub(crate) fn read(lines: &Lines<'_>) -> Result<Self, Reject> {
        if lines.version.only() != Some(b"13") {
            return Err(Reject::WebSocket);
        }
        let key = lines.key.only().ok_or(Reject::WebSocket)?;
        let key: [u8; 24] = key.try_into().map_err(|_length| Reject::WebSocket)?;
        let mut nonce = [0; 18];
        match STANDARD.decode_slice(key, &mut nonce) {
            Ok(16) => Ok(Self { key }),
            _ => Err(Reject::WebSocket),
        }
    }

    /// The key as the client spelt it.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// What the server must answer (RFC 6455 §4.2.2).
    pub fn accept(&self) -> Accept {
        let digest = Sha1::new().chain_update(self.key).chain_update(SUFFIX).finalize();
        let mut text = [0; 28];
        // 20 bytes are 28 characters.
        let _length = STANDARD.encode_slice(digest, &mut text).ok();
        Accept(text)
    }

    /// Writes the fields that ask the upstream. `Sec-WebSocket-Protocol` and `-Extensions` are among the request's own.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::field(out, "connection", b"Upgrade");
        write::field(out, "upgrade", b"websocket");
        write::field(out, "sec-websocket-version", b"13");
        write::field(out, "sec-websocket-key", &self.key);
    }

    /// Whether a 101 answers this offer. The tunnel opens only then (RFC 6455 §4.1).
    pub fn check(&self, response: &Response) -> Result<(), Reject> {
        match response.upgrade_accept {
            Some(accept) if accept == self.accept() => Ok(()),
            _ => Err(Reject::Handshake),
        }
    }
}

impl Accept {
    /// Checks a 101 as far as it goes without the offer (RFC 6455 §4.1).
    pub(crate) fn read(lines: &Lines<'_>) -> Result<Self, Reject> {
        if !lines.websocket || !lines.options.upgrade {
            return Err(Reject::Handshake);
        }
        let value = lines.accept.only().ok_or(Reject::Handshake)?;
        value.try_into().map(Self).map_err(|_length| Reject::Handshake)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Writes the fields that tell the client.
    pub fn write(&self, out: &mut Vec<u8>) {
        write::field(out, "connection", b"Upgrade");
        write::field(out, "upgrade", b"websocket");
        write::field(out, "sec-websocket-accept", &self.0);
    }
}
