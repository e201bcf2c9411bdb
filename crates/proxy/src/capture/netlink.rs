//! Netlink messages (RFC 3549, netlink(7)): written by hand, because setting up one namespace needs a dozen of them and neither a
//! library nor the `ip` and `nft` programs.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};

/// `NLM_F_REQUEST | NLM_F_ACK`.
pub(super) const REQUEST: u16 = 0x1 | 0x4;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x400;
/// `NLM_F_APPEND`.
pub(super) const APPEND: u16 = 0x800;
/// `NLMSG_ERROR`, which is also the acknowledgement.
const ERROR: u16 = 0x2;
/// Marks an attribute that consists of attributes.
const NESTED: u16 = 0x8000;
/// Length of a message's own header.
const HEADER: usize = 16;

/// A message that grows.
#[derive(Debug)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A message of this kind, with the fixed part that belongs to the kind.
    pub(super) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.splice(4..6, kind.to_ne_bytes());
        bytes.splice(6..8, flags.to_ne_bytes());
        let mut message = Self { bytes };
        message.put(fixed);
        message
    }

    fn put(&mut self, part: &[u8]) {
        self.bytes.extend_from_slice(part);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.put(&[length.to_ne_bytes(), kind.to_ne_bytes()].concat());
        self.put(value);
        self
    }

    /// Adds a text, ended by a NUL.
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds a number in network order, as `nf_tables` wants them.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that consists of attributes.
    pub(super) fn nested(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.put(&[[0; 2], (kind | NESTED).to_ne_bytes()].concat());
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).unwrap_or(u16::MAX);
        filled.bytes.splice(start..start + 2, length.to_ne_bytes());
        filled
    }

    /// The finished message.
    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        self.bytes.splice(0..4, length.to_ne_bytes());
        self.bytes.splice(8..12, sequence.to_ne_bytes());
        self.bytes
    }

    fn wants_answer(&self) -> bool {
        let flags = [self.bytes.get(6), self.bytes.get(7)].map(|byte| byte.copied().unwrap_or_default());
        u16::from_ne_bytes(flags) & REQUEST == REQUEST
    }
}

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// A socket of this protocol, in the network namespace of the calling thread.
    pub(super) fn open(protocol: SockProtocol) -> io::Result<Self> {
        Ok(Self(socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?))
    }

    /// Sends messages as one and waits until the kernel has acknowledged each that asks for it; the first refusal is the error.
    pub(super) fn tell(&self, messages: Vec<Message>) -> io::Result<()> {
        let mut open = messages.iter().filter(|message| message.wants_answer()).count();
        let mut bytes = Vec::new();
        for (message, sequence) in messages.into_iter().zip(1..) {
            bytes.extend(message.finish(sequence));
        }
        sendto(self.0.as_raw_fd(), &bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        while open > 0 {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((answer, more)) = first(rest) {
                rest = more;
                match refusal(answer) {
                    Some(0) => open = open.saturating_sub(1),
                    Some(code) => return Err(io::Error::from_raw_os_error(-code)),
                    None => {}
                }
            }
        }
        Ok(())
    }
}

/// One message, and what follows.
type Split<'a> = (&'a [u8], &'a [u8]);

/// Splits the first message off.
fn first(bytes: &[u8]) -> Option<Split<'_>> {
    let length = usize::try_from(u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?)).ok()?;
    let message = bytes.get(..length.max(HEADER))?;
    Some((message, bytes.get(length.max(HEADER).next_multiple_of(4)..).unwrap_or_default()))
}

/// The code of an answer; 0 is an acknowledgement.
fn refusal(message: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(message.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == ERROR).then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_know_their_length() {
        let message = Message::new(16, REQUEST, &[1, 2, 3, 4])
            .attribute(7, &[9])
            .nested(1, |inner| inner.text(2, "lo"))
            .finish(5);
        let tail: &[u8] = &[1, 2, 3, 4, 5, 0, 7, 0, 9, 0, 0, 0, 12, 0, 1, 0x80, 7, 0, 2, 0, b'l', b'o', 0, 0];
        assert_eq!(message[16..], *tail);
        assert_eq!(message[..16], [40, 0, 0, 0, 16, 0, 5, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn an_acknowledgement_is_told_from_a_refusal() {
        let answer = |code: i32| [&[20, 0, 0, 0, 2, 0][..], &[0; 10], &code.to_ne_bytes()].concat();
        let two = [answer(0), answer(-17)].concat();
        let (one, rest) = first(&two).unwrap();
        assert_eq!(refusal(one), Some(0));
        assert_eq!(refusal(first(rest).unwrap().0), Some(-17));
        assert!(first(&[1, 2]).is_none());
    }
}
