//! One question to one resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hms_dns::Query;
use hms_dns::forward::{Forwarded, Heard};
use rustls::crypto::SecureRandom;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

/// Datagrams that may come before the right one. Somebody who guesses has no more tries than these.
const MOST_FOREIGN: usize = 16;
/// The longest datagram that is read: more than a resolver sends that was told 1232.
const MOST_BYTES: usize = 4096;

/// Asks one resolver: by datagram; what does not fit into one, over TCP; without EDNS if it does not know that. Takes as long as the
/// resolver does.
pub(super) async fn ask(server: SocketAddr, query: &Query, random: &dyn SecureRandom) -> io::Result<Forwarded> {
    let mut with_edns = true;
    loop {
        let heard = match by_datagram(server, query, with_edns, random).await? {
            Heard::Truncated => over_tcp(server, query, with_edns, random).await?,
            heard => heard,
        };
        match heard {
            Heard::Answer(answer) => return Ok(answer),
            Heard::Plain if with_edns => with_edns = false,
            Heard::Plain | Heard::Truncated | Heard::Foreign | Heard::Failed => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "an answer that is none"));
            }
        }
    }
}

/// From a port and with an id that nobody else knows: the kernel takes only what comes from this server to this port.
async fn by_datagram(
    server: SocketAddr,
    query: &Query,
    with_edns: bool,
    random: &dyn SecureRandom,
) -> io::Result<Heard> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let id = id(random)?;
    socket.send(&query.to_resolver(id, with_edns)).await?;
    let mut message = vec![0; MOST_BYTES];
    for _ in 0..MOST_FOREIGN {
        let length = socket.recv(&mut message).await?;
        match query.hear(id, message.get(..length).unwrap_or_default()) {
            Heard::Foreign => {}
            heard => return Ok(heard),
        }
    }
    Ok(Heard::Failed)
}

async fn over_tcp(server: SocketAddr, query: &Query, with_edns: bool, random: &dyn SecureRandom) -> io::Result<Heard> {
    let mut stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let id = id(random)?;
    let message = query.to_resolver(id, with_edns);
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), &message[..]].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = Vec::new();
    // It grows as octets come, not as they are announced.
    stream.take(length.into()).read_to_end(&mut answer).await?;
    Ok(query.hear(id, &answer))
}

fn id(random: &dyn SecureRandom) -> io::Result<u16> {
    let mut id = [0; 2];
    random.fill(&mut id).map_err(|_failed| io::Error::other("the system gives no randomness"))?;
    Ok(u16::from_be_bytes(id))
}
