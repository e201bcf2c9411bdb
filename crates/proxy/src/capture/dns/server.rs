//! Messages of an application, by datagram and by stream.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_dns::Transport;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Desk;
use crate::tasks;

/// The longest query that is read: a name, EDNS, and padding (RFC 8467 pads queries to 128).
const MOST_BYTES: usize = 4096;
/// Connections of one application.
const CONNECTIONS: usize = 32;
/// How long a connection may take for a whole query, and may stay without one; and how long for taking an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long nothing is read after the socket itself failed.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers datagrams until this process hands over.
pub(super) async fn datagrams(desk: Arc<Desk>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut message = vec![0; MOST_BYTES];
    loop {
        desk.paced().await;
        let received = tokio::select! {
            received = socket.recv_from(&mut message) => received,
            () = desk.shared.drain.handed_over() => return,
        };
        let Ok((length, client)) = received else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let message = message.get(..length).unwrap_or_default();
        match desk.at_once(message, Transport::Udp) {
            Ok(None) => {}
            Ok(Some(reply)) => send(&socket, &reply, client).await,
            Err(query) => {
                let (desk, socket, message) = (Arc::clone(&desk), Arc::clone(&socket), message.to_vec());
                tasks::spawn("dns query", async move {
                    if let Some(reply) = desk.later(&message, query, Transport::Udp).await {
                        send(&socket, &reply, client).await;
                    }
                });
            }
        }
    }
}

/// A client that has gone meanwhile does not need it.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!(%error, %client, "a name's answer was not taken");
    }
}

/// Answers on connections until this process hands over.
pub(super) async fn streams(desk: Arc<Desk>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = desk.shared.drain.handed_over() => return,
        };
        let Ok((stream, _client)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let desk = Arc::clone(&desk);
        tasks::spawn("dns connection", async move {
            let _place = place;
            if let Err(error) = converse(&desk, stream).await {
                tracing::debug!(%error, "a connection that asked for names ended");
            }
        });
    }
}

/// One query after the other, each with its length before it (RFC 7766). What is no query ends the connection.
async fn converse(desk: &Desk, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        desk.paced().await;
        let Some(message) = timeout(PATIENCE, read(&mut stream)).await?? else { return Ok(()) };
        let reply = match desk.at_once(&message, Transport::Tcp) {
            Ok(reply) => reply,
            Err(query) => desk.later(&message, query, Transport::Tcp).await,
        };
        let Some(reply) = reply else { return Ok(()) };
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), &reply[..]].concat();
        timeout(PATIENCE, stream.write_all(&framed)).await??;
    }
}

/// A whole message; `None` when there is none, or none of a length that a query has.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 2];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length == 0 || length > MOST_BYTES {
        return Ok(None);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
