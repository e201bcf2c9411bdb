//! The story of a connection that nobody reads: its series while it lasts, its log line and tap event at its end.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_model::workload::Transport;
use hms_traffic::clock::Moment;
use hms_wire::proto::hms::v1::TapEvent;

use super::access_log::ConnectionEntry;
use super::metrics::tcp::TcpCell;
use super::metrics::{Labels, Party};
use crate::refusal::Reason;
use crate::runtime::upstream::UpstreamEndpoint;
use crate::transport::relay::{Count, Ended, Side};
use crate::worker::Worker;

/// What is known of a connection so far.
pub struct Flow {
    worker: Rc<Worker>,
    begun: Moment,
    time: SystemTime,
    direction: Direction,
    source: Arc<Party>,
    /// Who was called in the end.
    pub(crate) destination: Option<Arc<Party>>,
    /// The service asked for: `db.mesh`.
    pub(crate) service: Option<Arc<str>>,
    /// Its port; 0 when it was not said.
    pub(crate) port: u16,
    /// Address of the other end.
    pub(crate) peer: SocketAddr,
    /// Whether the mesh side was mutually authenticated.
    pub(crate) mutual_tls: bool,
    /// Endpoints tried.
    pub(crate) attempts: u32,
    /// The host that the caller's TLS names.
    pub(crate) server_name: Option<String>,
    /// Why the mesh refused it, if it did.
    pub(crate) reason: Option<Reason>,
    ended: Option<Ended>,
    cell: Option<Arc<TcpCell>>,
    sent: Cell<u64>,
    received: Cell<u64>,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").field("service", &self.service).field("port", &self.port).finish_non_exhaustive()
    }
}

impl Count for Flow {
    fn came(&self, from: Side, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or_default();
        let own = if from == Side::Downstream { &self.received } else { &self.sent };
        own.set(own.get().saturating_add(bytes));
        match (&self.cell, from) {
            (None, _) => {}
            (Some(cell), Side::Downstream) => cell.received(bytes),
            (Some(cell), Side::Upstream) => cell.sent(bytes),
        }
    }
}

impl Flow {
    /// Begins with what the connection tells.
    pub fn begin(worker: &Rc<Worker>, direction: Direction, source: Arc<Party>, peer: SocketAddr) -> Self {
        Self {
            worker: Rc::clone(worker),
            begun: worker.now(),
            time: worker.shared.now(),
            direction,
            source,
            destination: None,
            service: None,
            port: 0,
            peer,
            mutual_tls: false,
            attempts: 0,
            server_name: None,
            reason: None,
            ended: None,
            cell: None,
            sent: Cell::new(0),
            received: Cell::new(0),
        }
    }

    /// Counts it from now on: its destination is known.
    pub fn opened(&mut self) {
        let cell = self.worker.shared.registry.tcp(self.labels("-"));
        cell.opened();
        self.cell = Some(cell);
    }

    /// Notes where it leads.
    pub fn on(&mut self, endpoint: &UpstreamEndpoint) {
        self.destination = Some(Arc::clone(&endpoint.party));
        self.mutual_tls = matches!(endpoint.endpoint.transport, Transport::Mesh(_));
        self.peer = endpoint.address;
    }

    /// Notes how it ended; the story is told when this is dropped.
    pub fn ended(mut self, ended: Ended) {
        self.ended = Some(ended);
    }

    /// Notes that it is refused.
    pub fn refused(mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// Notes bytes that passed before it was counted.
    pub fn passed_before(&self, from: Side, bytes: usize) {
        self.came(from, bytes);
    }

    fn labels(&self, flag: &'static str) -> Labels {
        Labels {
            direction: self.direction,
            source: Arc::clone(&self.source),
            destination: self.destination.as_ref().map_or_else(|| Arc::new(Party::unknown()), Arc::clone),
            service: self.service.as_ref().map_or_else(|| "unknown".into(), Arc::clone),
            status: 0,
            flag,
            protocol: "tcp",
            grpc_status: None,
            mutual_tls: self.mutual_tls,
        }
    }

    /// Envoy's flag for how it ended.
    fn flag(&self) -> &'static str {
        match (self.reason, self.ended) {
            (Some(reason), _) => reason.flag(),
            (None, Some(Ended::Whole)) => "-",
            (None, Some(Ended::Broken(Side::Upstream))) => "UC",
            (None, Some(Ended::Broken(Side::Downstream)) | None) => "DC",
            (None, Some(Ended::Idle)) => "SI",
            (None, Some(Ended::Drained)) => "LR",
        }
    }

    fn destination_name(&self) -> &str {
        let service = self.service.as_deref().unwrap_or("unknown");
        service.strip_suffix(".mesh").unwrap_or(service)
    }

    fn direction_word(&self) -> &'static str {
        match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }

    fn log(&self, duration: Duration, flags: &'static str) {
        self.worker.log.connection(&ConnectionEntry {
            time: self.time,
            direction: self.direction_word(),
            source: &self.source.workload,
            destination: self.destination_name(),
            port: self.port,
            server_name: self.server_name.as_deref(),
            duration,
            sent: self.sent.get(),
            received: self.received.get(),
            attempts: self.attempts,
            mtls: self.mutual_tls,
            code: self.reason.map(Reason::code),
            flags,
        });
    }

    fn show(&self, duration: Duration) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let since_epoch = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let authority = match &self.server_name {
            Some(name) => name.clone(),
            None => format!("{}:{}", self.destination_name(), self.port),
        };
        self.worker.shared.tap.send(TapEvent {
            time_us: i64::try_from(micros(since_epoch)).unwrap_or(i64::MAX),
            direction: self.direction_word().to_owned(),
            source: self.source.workload.clone(),
            destination: self.destination_name().to_owned(),
            source_identity: self.source.principal.clone(),
            destination_identity: self
                .destination
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), |d| d.principal.clone()),
            method: "TCP".to_owned(),
            authority,
            duration_us: micros(duration),
            mtls: self.mutual_tls,
            attempt: self.attempts,
            code: self.reason.map(|reason| reason.code().to_string()).unwrap_or_default(),
            peer: self.peer.to_string(),
            bytes_sent: self.sent.get(),
            bytes_received: self.received.get(),
            ..TapEvent::default()
        });
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        let flag = self.flag();
        let duration = self.worker.now().saturating_since(self.begun);
        let passed = self.sent.get() + self.received.get() > 0;
        if self.cell.is_none() {
            self.opened();
        }
        self.worker.shared.registry.tcp(self.labels(flag)).closed();
        if self.worker.shared.access_log.is_on() {
            self.log(duration, flag);
        }
        // A caller's proxy that dialled before it knew what its application would say leaves without a word: nobody's connection.
        let unused = self.direction == Direction::Inbound && self.reason.is_none() && !passed;
        if self.worker.shared.tap.is_watched() && !unused {
            self.show(duration);
        }
    }
}
