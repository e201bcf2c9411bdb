//! Listening sockets from one process to another over a Unix socket (`SCM_RIGHTS`, unix(7)).
//!
//! One message per socket: a byte with the length of its name, the name, and the socket beside it. A message without a name and
//! without a socket ends the list. The kernel never returns two messages with sockets from one read.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd as _;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use tokio::io::{AsyncWriteExt as _, Interest};
use tokio::net::UnixStream;

use crate::listen::bind::Sockets;

/// A name is at most this long: `upstream:` with the longest service name.
const NAME: usize = 255;
/// Sockets one proxy has at most.
const MOST: usize = 4096;

/// Sends every socket, then the end.
pub(super) async fn send(stream: &mut UnixStream, sockets: &Sockets) -> io::Result<()> {
    for (name, socket) in sockets {
        let length = u8::try_from(name.len()).map_err(io::Error::other)?;
        let message = [&[length], name.as_bytes()].concat();
        let from = &*stream;
        let sent = from.async_io(Interest::WRITABLE, || send_one(from, &message, socket)).await?;
        stream.write_all(message.get(sent..).unwrap_or_default()).await?;
    }
    stream.write_all(&[0]).await
}

fn send_one(stream: &UnixStream, message: &[u8], socket: &TcpListener) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    if !beside.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::Error::other("no room for one socket"));
    }
    Ok(sendmsg(stream, &[IoSlice::new(message)], &mut beside, SendFlags::NOSIGNAL)?)
}

/// Receives every socket until the end.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<Sockets> {
    let mut sockets = Sockets::new();
    while sockets.len() < MOST {
        let mut message = [0; 1 + NAME];
        let (length, socket) = stream.async_io(Interest::READABLE, || receive_one(stream, &mut message)).await?;
        let received = message.get(..length).unwrap_or_default();
        match (received.split_first(), socket) {
            (Some((0, [])), None) => return Ok(sockets),
            (Some((length, name)), Some(socket)) if usize::from(*length) == name.len() => {
                sockets.insert(String::from_utf8_lossy(name).into_owned(), socket);
            }
            (None, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "a socket without its name")),
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "more sockets than any proxy has"))
}

fn receive_one(stream: &UnixStream, message: &mut [u8]) -> io::Result<(usize, Option<TcpListener>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(message)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    let mut socket = None;
    for part in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(sockets) = part {
            socket = sockets.map(TcpListener::from).last();
        }
    }
    Ok((received.bytes, socket))
}
