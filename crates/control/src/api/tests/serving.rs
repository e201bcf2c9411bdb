use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

async fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_api_is_served_over_a_socket_until_it_is_told_to_end() {
    let world = World::new().await;
    world.context.set_ready(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving =
        crate::tasks::spawn("test", serve(listener, world.context.clone(), async move { drop(stopped.await) }));

    let head = "GET /healthz/ready HTTP/1.1\r\nConnection: close\r\n";
    let answer = exchange(address, &format!("{head}Host: {address}\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("SERVING"), "{answer}");
    let foreign = exchange(address, &format!("{head}Host: evil.com\r\n\r\n")).await;
    assert!(foreign.starts_with("HTTP/1.1 403"), "{foreign}");
    let nobody = exchange(address, &format!("{head}\r\n")).await;
    assert!(nobody.starts_with("HTTP/1.1 4"), "{nobody}");
    let garbage = exchange(address, "\x16\x03\x01\r\n\r\n").await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    let upgrade = format!("{head}Host: {address}\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n");
    assert!(!exchange(address, &upgrade).await.starts_with("HTTP/1.1 101"));

    // An idle connection does not keep the control plane from ending.
    let idle = TcpStream::connect(address).await.unwrap();
    stop.send(()).unwrap();
    assert_eq!(serving.await.unwrap(), Some(()));
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}
