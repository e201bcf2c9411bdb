//! TLS of the application's own passes unread, led by the name in its first message.

use std::sync::Arc;
use std::time::Duration;

use hms_testkit::client::trusting;
use hms_testkit::http1::End;
use hms_testkit::scenario;
use hms_testkit::tcp::{Manner, tls_for};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::stack::Stack;

#[test]
fn tls_passes_end_to_end_and_its_name_stands_in_the_log() {
    scenario(Duration::from_mins(2), async {
        let (config, root) = tls_for("orders.example");
        let stack = Stack::start("{protocol: tls}", Manner::Tls(config)).await;
        let connector = TlsConnector::from(Arc::new(trusting(&root, &[])));
        let name = ServerName::try_from("orders.example").unwrap();
        let plain = TcpStream::connect(stack.pinned).await.unwrap();
        let mut tls = Box::pin(connector.connect(name, plain)).await.unwrap();
        tls.write_all(b"secret").await.unwrap();
        let mut echoed = [0; 6];
        tls.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"secret");
        tls.shutdown().await.unwrap();
        assert_eq!(tls.read(&mut echoed).await.unwrap(), 0);
        stack.until_counted("istio_tcp_connections_closed_total", &["response_flags=\"-\""], 1.0).await;
        hms_testkit::wait::until("the log has the name", Duration::from_secs(5), || async {
            let log = stack.client.process.output();
            if log.contains("\"server_name\":\"orders.example\"") { Ok(()) } else { Err(log) }
        })
        .await;
    });
}

#[test]
fn a_first_message_that_comes_byte_by_byte_is_waited_for_and_something_else_refused() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{protocol: tls}", Manner::Echo).await;
        let before = stack.app.bytes();
        let mut caller = stack.connect().await;
        assert!(caller.send(b"SSH-2.0-x\r\n").await);
        assert_eq!(caller.rest().await, (Vec::new(), End::Broken));
        assert_eq!(stack.app.bytes(), before);
        // A ClientHello of 47 bytes without extensions, in records of one byte.
        let body = [&[3_u8, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
        let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat();
        let mut caller = stack.connect().await;
        for byte in &message {
            assert!(caller.send(&[22, 3, 1, 0, 1, *byte]).await);
            tokio::task::yield_now().await;
        }
        let echoed = caller.read(message.len() * 6).await.unwrap();
        assert_eq!(echoed.iter().skip(5).step_by(6).copied().collect::<Vec<_>>(), message);
    });
}
