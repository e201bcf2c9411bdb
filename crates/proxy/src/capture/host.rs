//! Ports of the laptop's own loopback that an application in a network of its own may use (`host_ports`), and its raw port on the
//! laptop (`publish`). Bytes go through as they are; this is no hop of the mesh.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::tasks;
use crate::worker::Shared;

/// A pause after running out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Relays every connection to the same port of the laptop.
pub async fn serve(listener: TcpListener, port: u16, shared: Arc<Shared>) {
    relay(listener, shared, move |_| async move {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(stream),
            Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_both_refused| error),
        }
    })
    .await;
}

/// Relays every connection to the application itself, around everything the proxy would do.
pub async fn publish(listener: TcpListener, app: SocketAddr, shared: Arc<Shared>) {
    relay(listener, shared, move |shared: Arc<Shared>| async move { shared.captured.dial(app).await }).await;
}

async fn relay<Dial, Dialling>(listener: TcpListener, shared: Arc<Shared>, dial: Dial)
where
    Dial: Fn(Arc<Shared>) -> Dialling,
    Dialling: Future<Output = io::Result<TcpStream>> + Send + 'static,
{
    loop {
        let reserved = shared.overload.places().reserve().await;
        let (mut near, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    shared.overload.complain("a relayed connection was not accepted", &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = shared.drain.begun() => return,
        };
        let Some(place) = shared.overload.places().take(reserved, peer.ip()) else { continue };
        let (under_way, dialling) = (shared.drain.open(), dial(Arc::clone(&shared)));
        tasks::spawn("relay", async move {
            let _until_the_end = (place, under_way);
            match dialling.await {
                Ok(mut far) => {
                    let _without_delay = near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_ok();
                    let _either_end_broke = copy_bidirectional(&mut near, &mut far).await.is_err();
                }
                // Like the refusal it stands for: the connection ends with a reset.
                Err(_refused) => drop(near.set_zero_linger()),
            }
        });
    }
}
