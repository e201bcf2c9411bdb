//! After a 101: the connection speaks what was offered, and nobody here reads it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use hms_http1::write;
use hms_model::message::ResponseHead;
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::client::Tunnel;
use super::{Connection, Stage};
use crate::body::BodyError;
use crate::drain::Drain;
use crate::opaque::IDLE;
use crate::transport::relay::{Count, Ended, Relay, Side};
use crate::transport::tls_stream::Abort;
use crate::transport::{Delivered, Outcome};

/// Bytes towards the caller.
#[derive(Default)]
struct Sent(Cell<u64>);

impl Count for Sent {
    fn came(&self, from: Side, bytes: usize) {
        if from == Side::Upstream {
            self.0.set(self.0.get().saturating_add(u64::try_from(bytes).unwrap_or_default()));
        }
    }
}

/// Tells the caller that its offer was accepted, then passes bytes on, those that it sent ahead first.
pub(super) async fn run<S>(
    connection: &Rc<RefCell<Connection<S>>>,
    head: &ResponseHead,
    mut tunnel: Box<Tunnel>,
    drain: &Drain,
) -> Delivered
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut relay = begin(connection, head, &mut tunnel);
    let (sent, mut over) = (Sent::default(), pin!(drain.over()));
    let ended = poll_fn(|context| {
        let mut connection = connection.borrow_mut();
        let Connection { out, stream, .. } = &mut *connection;
        if ready!(out.poll_flush(stream, context)).is_err() {
            return Poll::Ready(Ended::Broken(Side::Downstream));
        }
        let polled = relay.poll(stream, tunnel.stream(), &sent, context);
        if polled.is_pending() && over.as_mut().poll(context).is_ready() {
            stream.abort();
            tunnel.stream().abort();
            return Poll::Ready(Ended::Drained);
        }
        polled
    })
    .await;
    let outcome = match ended {
        Ended::Whole => Outcome::Complete,
        Ended::Broken(Side::Downstream) => Outcome::DownstreamGone,
        Ended::Broken(Side::Upstream) => Outcome::UpstreamBroke(BodyError::Broken("the tunnel broke off".to_owned())),
        Ended::Idle => {
            Outcome::UpstreamBroke(BodyError::Broken("nothing came through the tunnel for too long".to_owned()))
        }
        Ended::Drained => Outcome::UpstreamBroke(BodyError::Broken("this process ends".to_owned())),
    };
    if ended != Ended::Whole {
        connection.borrow_mut().answer = Stage::None;
    }
    Delivered { bytes: sent.0.get(), grpc_status: None, outcome }
}

fn begin<S: Abort>(connection: &RefCell<Connection<S>>, head: &ResponseHead, tunnel: &mut Tunnel) -> Relay {
    let mut connection = connection.borrow_mut();
    connection.answer = Stage::Tunnel;
    let text = connection.out.text();
    write::status_line(text, head.status);
    for (name, value) in head.fields.lines() {
        write::line(text, name, value);
    }
    tunnel.accept().write(text);
    write::end(text);
    connection.stream.wait_for_reader();
    tunnel.stream().wait_for_reader();
    Relay::new(std::mem::take(&mut connection.read), tunnel.take_read(), IDLE)
}
