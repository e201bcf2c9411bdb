//! An application on HTTP/2 whose connections take so many streams and then say `GOAWAY`, as gRPC servers do that spread load.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::wire::{self, END_HEADERS, END_STREAM, frame, headers, literals};
use crate::tasks;

/// What it counted.
#[derive(Debug, Default)]
pub struct Counted {
    answered: AtomicU64,
    left: AtomicU64,
}

impl Counted {
    /// Requests answered.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Connections left.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }
}

/// Starts it. Every connection answers `streams` calls of gRPC, names the last of them in its `GOAWAY`, looks at nothing that
/// comes after, and closes.
pub async fn start(streams: u32) -> (SocketAddr, Arc<Counted>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counted = Arc::<Counted>::default();
    let shared = Arc::clone(&counted);
    let _until_the_end = tasks::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counted = Arc::clone(&shared);
            let _until_left = tasks::spawn(async move {
                // A connection that is only a probe ends at once.
                let _broken = serve(stream, streams, &counted).await.is_err();
            });
        }
    });
    (address, counted)
}

async fn serve(mut stream: TcpStream, most: u32, counted: &Counted) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.read_exact(&mut [0; 24]).await?;
    stream.write_all(&wire::settings(&[])).await?;
    let mut open = BTreeSet::new();
    let (mut begun, mut unread) = (0, 0_u32);
    let mut head = [0; 9];
    while begun < most || !open.is_empty() {
        stream.read_exact(&mut head).await?;
        let [_, middle, low, kind, flags, a, b, c, d] = head;
        let id = u32::from_be_bytes([a, b, c, d]);
        let mut payload = vec![0; usize::from(u16::from_be_bytes([middle, low]))];
        stream.read_exact(&mut payload).await?;
        match kind {
            wire::SETTINGS if flags == 0 => stream.write_all(&frame(wire::SETTINGS, 1, 0, &[])).await?,
            wire::HEADERS if begun < most => {
                begun += 1;
                open.insert(id);
                if begun == most {
                    let payload = [id.to_be_bytes(), 0_u32.to_be_bytes()].concat();
                    stream.write_all(&frame(wire::GOAWAY, 0, 0, &payload)).await?;
                }
            }
            wire::RST_STREAM => drop(open.take(&id)),
            // Windows are opened again before they are closed.
            wire::DATA if flags & END_STREAM == 0 => {
                unread += u32::from(u16::from_be_bytes([middle, low]));
                if unread > 16_384 {
                    let more = unread.to_be_bytes();
                    let updates = [frame(wire::WINDOW_UPDATE, 0, 0, &more), frame(wire::WINDOW_UPDATE, 0, id, &more)];
                    stream.write_all(&updates.concat()).await?;
                    unread = 0;
                }
            }
            _ => {}
        }
        let ends = matches!(kind, wire::HEADERS | wire::DATA) && flags & END_STREAM != 0;
        if ends && open.remove(&id) {
            stream.write_all(&answer(id)).await?;
            counted.answered.fetch_add(1, Relaxed);
        }
    }
    counted.left.fetch_add(1, Relaxed);
    stream.shutdown().await?;
    // What was sent after the last stream is read and thrown away, so that our last frames arrive.
    while stream.read(&mut [0; 1024]).await? > 0 {}
    Ok(())
}

/// An empty answer of gRPC: `:status 200`, one message, `grpc-status: 0`.
fn answer(stream: u32) -> Vec<u8> {
    let head = [&[wire::indexed(8)][..], &literals(&[("content-type", "application/grpc")])].concat();
    let trailers = frame(wire::HEADERS, END_HEADERS | END_STREAM, stream, &literals(&[("grpc-status", "0")]));
    [headers(stream, false, &head), frame(wire::DATA, 0, stream, &[0; 5]), trailers].concat()
}
