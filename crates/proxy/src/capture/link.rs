//! Messages with sockets in them, between the processes around one application: over `SOCK_SEQPACKET`, so that each arrives whole.
//!
//! ```text
//! inside ──► shepherd ──► proxy     pid N                what the process inside is called outside
//!                                   door, dns-udp,       a socket that listens inside
//!                                   dns-tcp, host PORT
//!                                   minted 4|6           unconnected sockets made inside
//!                                   origin PORT ADDRESS  who connects from PORT dialled ADDRESS (notify)
//!                                   ready                that was everything
//!                                   failed WHY           there will be nothing
//! proxy ──► shepherd ──► inside     mint                 more of those
//! proxy ──► shepherd                leaving              a successor waits at the same place
//! shepherd ──► inside               go                   you are my child now
//! ```

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, recvmsg, sendmsg, socket_with,
    socketpair,
};

use crate::private_socket::{Place, same_user};

/// Sockets in one message, at most; the kernel takes 253.
pub(super) const MOST: usize = 64;
/// The longest text of a message.
const TEXT: usize = 1024;
/// The name of the proxy's socket in its runtime directory.
const NAME: &str = "capture.sock";
/// Applications that wait to be attended to: there is one, and briefly its successor.
const BACKLOG: i32 = 8;

/// What arrived.
#[derive(Debug, Default)]
pub(super) struct Message {
    /// What it says.
    pub(super) text: String,
    /// What came with it.
    pub(super) sockets: Vec<OwnedFd>,
}

impl Message {
    /// The first word, and the rest.
    pub(super) fn words(&self) -> (&str, &str) {
        self.text.split_once(' ').unwrap_or((&self.text, ""))
    }
}

/// Sends one message. A nonblocking socket without room answers `WouldBlock`.
pub(super) fn send(to: impl AsFd, text: &str, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
        return Err(io::Error::other("too many sockets for one message"));
    }
    let text = text.as_bytes().get(..text.len().min(TEXT)).unwrap_or_default();
    sendmsg(to, &[IoSlice::new(text)], &mut beside, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives one message; `None` if the other end is closed. A nonblocking socket without one answers `WouldBlock`.
pub(super) fn receive(from: impl AsFd) -> io::Result<Option<Message>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; TEXT];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for part in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(more) = part {
            sockets.extend(more);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(text.get(..received.bytes).unwrap_or_default()).into_owned();
    Ok(Some(Message { text, sockets }))
}

/// Two ends that belong together.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// The proxy's end: waits for shepherds. A former process's socket of the same name is replaced.
pub(super) fn open(directory: &Path) -> io::Result<OwnedFd> {
    let place = Place::of(directory, NAME)?;
    let _absent_is_fine = std::fs::remove_file(place.path()).is_ok();
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(place.path())?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The shepherd's end.
pub(super) fn reach(directory: &Path) -> io::Result<OwnedFd> {
    let place = Place::of(directory, NAME)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(place.path())?)?;
    same_user(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_keep_their_bounds_and_their_sockets() {
        let (one, other) = pair().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        send(&one, "door", &[listener.as_fd()]).unwrap();
        send(&one, "origin 40001 240.0.0.1:80", &[]).unwrap();
        drop(one);
        let door = receive(&other).unwrap().unwrap();
        assert_eq!(door.words(), ("door", ""));
        let twin = std::net::TcpListener::from(door.sockets.into_iter().next().unwrap());
        assert_eq!(twin.local_addr().unwrap(), listener.local_addr().unwrap());
        let origin = receive(&other).unwrap().unwrap();
        assert_eq!((origin.words(), origin.sockets.len()), (("origin", "40001 240.0.0.1:80"), 0));
        assert!(receive(&other).unwrap().is_none(), "the end is the end");
    }

    #[test]
    fn a_directory_with_a_long_path_is_no_obstacle() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(reach(&deep).is_err(), "nobody waits there");
        let listener = open(&deep).unwrap();
        let shepherd = reach(&deep).unwrap();
        let proxy = rustix::net::accept(&listener).unwrap();
        send(&proxy, "mint", &[]).unwrap();
        assert_eq!(receive(&shepherd).unwrap().unwrap().text, "mint");
        drop(listener);
        let _successor = open(&deep).unwrap();
        reach(&deep).unwrap();
    }
}
