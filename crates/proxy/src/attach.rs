//! The control stream: it registers our workload for as long as it is open, and carries what people ask of a live proxy.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::workload::Health;
use hms_traffic::backoff::Backoff;
use hms_traffic::dice::Dice;
use hms_wire::proto::hms::v1::control_client::ControlClient;
use hms_wire::proto::hms::v1::{
    BreakerState, ControlMessage, Hello, Outside, OutsideHost, ProxyMessage, Recalled, Rotate, Rotated, TapEvents,
    Traffic, WorkloadState, control_message, proxy_message,
};
use hms_wire::{LEVEL, MESSAGE_BYTES, Wire as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::certificate::{RotateNow, State};
use crate::control_channel;
use crate::egress;
use crate::report::{self, Flows};
use crate::tasks;
use crate::telemetry::tap::TapReceiver;
use crate::worker::Shared;

/// Messages on their way to the control plane.
const QUEUE: usize = 256;
/// How often counters are reported, if anything was counted.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Most requests of one trace that are told.
const RECALLED: usize = 64;
/// Most tap events of one message.
const TAP_BATCH: usize = 64;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Everything the stream listens to.
#[derive(Debug)]
pub struct Attachment {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Finished requests, while somebody watches.
    pub tap: TapReceiver,
    /// Services whose breaker may have changed.
    pub breakers: mpsc::Receiver<ServiceName>,
    /// Whether the application listens.
    pub app: watch::Receiver<bool>,
    /// When the certificate is renewed.
    pub certificate: Arc<State>,
    /// Wishes for a new certificate.
    pub rotate: mpsc::Sender<RotateNow>,
    /// Where the inbound listener is, once it is.
    pub inbound: SocketAddr,
    /// Where health and metrics are.
    pub admin: SocketAddr,
    /// Randomness.
    pub dice: Dice,
}

/// What is reported on one stream.
struct Reporting {
    to_control: mpsc::Sender<ProxyMessage>,
    taps: BTreeMap<u64, u32>,
    flows: Flows,
    sent: BTreeMap<ServiceName, BreakerState>,
    outside: Vec<OutsideHost>,
    /// Words about our workload that the control plane has not answered.
    unanswered: u32,
}

impl Attachment {
    /// Stays attached until the process drains; the last word is that the workload leaves.
    pub async fn run(mut self) {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut failures = 0;
        let mut flows = Flows::default();
        while !self.shared.drain.is_leaving() {
            let mut certificates = self.shared.holder.watch();
            tokio::select! {
                Ok(_) = certificates.wait_for(|generation| *generation > 0) => {}
                () = self.shared.drain.leaving() => return,
            }
            let begun = self.shared.clock.now();
            let (outcome, counted) = self.stream(flows).await;
            flows = counted;
            self.tap.watched_by(0);
            let lasted = self.shared.clock.now().saturating_since(begun);
            failures = if outcome.is_ok() || lasted > REPORT_EVERY { 1 } else { failures + 1 };
            if let Err(error) = outcome {
                tracing::debug!(%error, failures, "not attached");
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.full(failures.max(1), &mut self.dice).max(Duration::from_millis(20))) => {}
                () = self.shared.drain.leaving() => return,
            }
        }
    }

    async fn stream(&mut self, flows: Flows) -> (Result<(), Failure>, Flows) {
        let (to_control, outgoing) = mpsc::channel(QUEUE);
        let mut reporting = Reporting {
            to_control,
            taps: BTreeMap::new(),
            flows,
            sent: BTreeMap::new(),
            outside: Vec::new(),
            unanswered: 0,
        };
        let outcome = self.attached(&mut reporting, outgoing).await;
        (outcome, reporting.flows)
    }

    async fn attached(
        &mut self,
        reporting: &mut Reporting,
        outgoing: mpsc::Receiver<ProxyMessage>,
    ) -> Result<(), Failure> {
        let channel = control_channel::open(&self.shared).await?;
        let mut client = ControlClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        reporting.send(proxy_message::Kind::Hello(self.hello())).await?;
        self.tell_workload(reporting).await?;
        self.tell_certificate(reporting).await?;
        let mut incoming = client.attach(ReceiverStream::new(outgoing)).await?.into_inner();
        let mut swaps = self.shared.current.watch();
        let mut tick = tokio::time::interval(REPORT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                message = incoming.message() => match message? {
                    None => return Ok(()),
                    Some(message) => self.asked(message, reporting).await?,
                },
                Ok(()) = self.app.changed() => self.tell_workload(reporting).await?,
                Ok(()) = swaps.changed() => self.tell_breakers(reporting).await?,
                Some(name) = self.breakers.recv() => self.tell_breaker(&name, reporting).await?,
                () = self.certificate.changed.notified() => self.tell_certificate(reporting).await?,
                Some(event) = self.tap.next() => {
                    let mut events = vec![event];
                    while events.len() < TAP_BATCH && let Some(event) = self.tap.try_next() {
                        events.push(event);
                    }
                    let dropped = self.tap.take_dropped();
                    reporting.send(proxy_message::Kind::Tap(TapEvents { events, dropped })).await?;
                }
                _ = tick.tick() => self.report(reporting).await?,
                () = self.shared.drain.leaving() => return self.leave(reporting, &mut incoming).await,
            }
        }
    }

    fn hello(&self) -> Hello {
        let settings = &self.shared.settings;
        Hello {
            proxy_id: format!("{}/{}", settings.service, settings.workload_id),
            role: settings.role.to_string(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            level: LEVEL,
            admin_address: self.admin.to_string(),
            process_id: std::process::id(),
        }
    }

    /// A pure client serves nothing. A gateway serves its door, so that workloads can dial it by name. A workload is there from the moment its application
    /// first listens.
    async fn tell_workload(&self, reporting: &mut Reporting) -> Result<(), Failure> {
        let health = if self.shared.app.is_listening() { Health::Healthy } else { Health::Unhealthy };
        self.tell_health(reporting, health).await?;
        Ok(())
    }

    /// Whether there was a workload to tell of.
    async fn tell_health(&self, reporting: &mut Reporting, health: Health) -> Result<bool, Failure> {
        let settings = &self.shared.settings;
        let serves =
            matches!(settings.role, Role::Sidecar | Role::Gateway | Role::Egress) && self.shared.app.is_known();
        let Some(app) = settings.app.filter(|_| serves) else { return Ok(false) };
        let state = WorkloadState {
            service: Some(settings.service.to_wire()),
            id: settings.workload_id.clone(),
            ip: self.inbound.ip().to_string(),
            port: u32::from(self.inbound.port()),
            app_port: u32::from(app.port()),
            version: settings.version.clone(),
            zone: settings.zone.clone(),
            health: health.to_wire(),
        };
        reporting.send(proxy_message::Kind::Workload(state)).await?;
        reporting.unanswered += 1;
        Ok(true)
    }

    async fn tell_certificate(&self, reporting: &Reporting) -> Result<(), Failure> {
        let plan = *self.certificate.plan.lock();
        match report::certificate(&self.shared, plan) {
            None => Ok(()),
            Some(state) => reporting.send(proxy_message::Kind::Certificate(state)).await,
        }
    }

    async fn tell_breaker(&self, name: &ServiceName, reporting: &mut Reporting) -> Result<(), Failure> {
        let runtime = self.shared.current.load();
        let Some(upstream) = runtime.upstreams.get(name) else { return Ok(()) };
        let state = report::breaker(upstream, self.shared.clock.now());
        if reporting.sent.get(name).is_some_and(|sent| is_same(sent, &state)) {
            return Ok(());
        }
        reporting.sent.insert(name.clone(), state.clone());
        reporting.send(proxy_message::Kind::Breaker(state)).await
    }

    async fn report(&self, reporting: &mut Reporting) -> Result<(), Failure> {
        let flows = reporting.flows.since(&self.shared);
        if !flows.is_empty() {
            reporting.send(proxy_message::Kind::Traffic(Traffic { flows })).await?;
        }
        let outside = egress::report(&self.shared);
        if outside != reporting.outside {
            reporting.outside.clone_from(&outside);
            reporting.send(proxy_message::Kind::Outside(Outside { hosts: outside })).await?;
        }
        self.tell_breakers(reporting).await
    }

    async fn tell_breakers(&self, reporting: &mut Reporting) -> Result<(), Failure> {
        let names: Vec<ServiceName> = self.shared.current.load().upstreams.keys().cloned().collect();
        for name in names {
            self.tell_breaker(&name, reporting).await?;
        }
        Ok(())
    }

    async fn asked(&self, message: ControlMessage, reporting: &mut Reporting) -> Result<(), Failure> {
        reporting.note(&message);
        match message.kind {
            Some(control_message::Kind::TapStart(start)) => {
                reporting.taps.insert(start.tap_id, start.max_per_second);
                self.tap.watched_by(reporting.taps.len());
            }
            Some(control_message::Kind::TapStop(stop)) => {
                reporting.taps.remove(&stop.tap_id);
                self.tap.watched_by(reporting.taps.len());
            }
            Some(control_message::Kind::Rotate(rotate)) => self.rotate(rotate, reporting).await,
            Some(control_message::Kind::Recall(recall)) => {
                let runtime = self.shared.current.load();
                let decisions = self.shared.registry.memory().recall(&recall.trace, &runtime, RECALLED);
                let recalled = Recalled { request_id: recall.request_id, decisions };
                reporting.send(proxy_message::Kind::Recalled(recalled)).await?;
            }
            Some(control_message::Kind::Refused(refused)) => {
                tracing::error!(code = %refused.code, reason = %refused.reason, "registration refused");
            }
            Some(control_message::Kind::Registered(_)) | None => {}
        }
        Ok(())
    }

    async fn rotate(&self, rotate: Rotate, reporting: &Reporting) {
        let validity = (rotate.validity_seconds > 0).then(|| Duration::from_secs(rotate.validity_seconds));
        let (done, outcome) = oneshot::channel();
        let asked = self.rotate.send(RotateNow { validity, done }).await.is_ok();
        let answer = reporting.to_control.clone();
        // The stream goes on while the certificate is made.
        tasks::spawn("rotation", async move {
            let outcome = if asked { outcome.await } else { Ok(Err("this proxy is ending".to_owned())) };
            let error = outcome.unwrap_or_else(|_dropped| Err("this proxy is ending".to_owned())).err();
            let rotated = Rotated { request_id: rotate.request_id, error: error.unwrap_or_default() };
            let kind = Some(proxy_message::Kind::Rotated(rotated));
            let _told = answer.send(ProxyMessage { kind }).await.is_ok();
        });
    }

    /// Tells what was counted and, unless a successor serves the same workload, that nothing new should come; waits until the
    /// control plane has said that to the callers.
    async fn leave(&self, reporting: &mut Reporting, incoming: &mut Streaming<ControlMessage>) -> Result<(), Failure> {
        self.report(reporting).await?;
        if self.shared.drain.is_handed_over() || !self.tell_health(reporting, Health::Draining).await? {
            return Ok(());
        }
        // Answers come in the order of the questions, so those of earlier changes are still to be passed by.
        while reporting.unanswered > 0 {
            match incoming.message().await? {
                Some(message) => reporting.note(&message),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

impl Reporting {
    async fn send(&self, kind: proxy_message::Kind) -> Result<(), Failure> {
        Ok(self.to_control.send(ProxyMessage { kind: Some(kind) }).await?)
    }

    /// Counts an answer to a word about our workload.
    fn note(&mut self, message: &ControlMessage) {
        if let Some(control_message::Kind::Registered(_) | control_message::Kind::Refused(_)) = message.kind {
            self.unanswered = self.unanswered.saturating_sub(1);
        }
    }
}

/// Whether a breaker stands as reported. The countdown runs by itself at the other end.
fn is_same(sent: &BreakerState, now: &BreakerState) -> bool {
    let still = |state: &BreakerState| {
        let mut state = state.clone();
        state.next_probe_ms = 0;
        for endpoint in &mut state.endpoints {
            endpoint.next_probe_ms = 0;
        }
        state
    };
    // A new countdown that is longer than the old one has begun anew.
    still(sent) == still(now) && now.next_probe_ms <= sent.next_probe_ms
}
