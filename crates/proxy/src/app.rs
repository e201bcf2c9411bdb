//! The only place where parts meet.
//!
//! The main thread runs administration: certificates, subscription, the control stream, health and metrics. Each data thread runs
//! connections and requests on a runtime of its own. They meet in [`Shared`] and in the channels made here.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use hms_identity::clock::SystemClock;
use hms_model::listener::Role;
use hms_model::standalone::Standalone;
use hms_traffic::dice::Dice;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};

use crate::attach::Attachment;
use crate::capture::dns::resolver::Resolver;
use crate::capture::dns::{self, Names};
use crate::capture::joined;
use crate::capture::sidecar::{Captured, Gate, Sink};
use crate::certificate;
use crate::clock::Clock;
use crate::credentials::Holder;
use crate::drain::{self, Cause, Drainer};
use crate::egress::Outside;
use crate::listen::bind::{Bound, HTTPS, INBOUND, Sockets, bind, bind_static};
use crate::listen::{self, Door, Intake};
use crate::overload::{Overload, descriptors};
use crate::runtime::Current;
use crate::settings::{ControlAddress, Settings};
use crate::standalone;
use crate::subscribe::Subscription;
use crate::takeover::{self, Offer, Predecessor, Successor};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::tap;
use crate::worker::{AppState, Shared, Worker};
use crate::{admin, capture, last_good, probe, tasks};

/// Wishes waiting for the subscription or the certificate.
const QUEUE: usize = 256;
/// How long the control plane may take to hear that this workload leaves.
const GOODBYE: Duration = Duration::from_secs(3);
/// Which part of the time to drain a connection without a request may use up.
const IDLE_SHARE: u32 = 10;

/// The least time a process has that another took over from: other proxies give up an idle connection after 8 s, so none is closed
/// at the moment when a request is sent on it.
const HANDED_OVER: Duration = Duration::from_secs(15);

/// Runs a proxy until it is told to leave.
pub async fn run(mut settings: Settings) -> io::Result<()> {
    last_good::prepare(&settings.runtime_dir)?;
    let standalone = standalone::asked_for(&settings).await?;
    let (predecessor, bound) = open(&mut settings, standalone.as_ref()).await?;
    let Bound { admin, doors, published, inbound, sockets, ports } = bound;
    let (drainer, drain) = drain::channel();
    let (wanted, wishes) = mpsc::channel(QUEUE);
    let (breakers, breaker_changes) = mpsc::channel(QUEUE);
    let (tap, tap_receiver) = tap::channel();
    let shared = Arc::new(Shared {
        clock: Clock::start(),
        wall: SystemClock,
        holder: Holder::default(),
        edge: ArcSwapOption::empty(),
        current: Current::new(settings.own()),
        registry: Arc::default(),
        tap,
        access_log: AccessLog::open(settings.access_log.as_deref())?,
        drain,
        overload: Overload::new(&settings, descriptors::raise()),
        wanted,
        captured: Captured::new(settings.capture),
        app: AppState::default(),
        outside: Outside::new(Resolver::new(settings.resolver.clone())),
        breakers,
        settings,
    });
    restore(&shared);
    let seed = seed();
    let (app_changes, app) = watch::channel(false);
    let workers = start_workers(&shared, seed, app_changes)?;
    let (configured, is_configured) = watch::channel(false);
    let state = Arc::<certificate::State>::default();
    let (rotate, rotations) = mpsc::channel(QUEUE);
    let dice = |offset: u64| Dice::seeded(seed.wrapping_add(offset));
    let hosts = match standalone {
        None => {
            tasks::spawn("certificate", certificate::keep(Arc::clone(&shared), Arc::clone(&state), rotations, dice(1)));
            tasks::spawn("subscription", Subscription::new(Arc::clone(&shared), wishes, dice(2), configured).run());
            None
        }
        Some(file) => Some(keep_names(&shared, file, dice(2), configured)),
    };
    tasks::spawn("memory", watch_memory(Arc::clone(&shared)));
    // A file says at once what there is, and its names have their first addresses soon.
    if predecessor.is_some() || hosts.is_some() {
        ready(&shared, &state, is_configured.clone()).await?;
    }
    let names = capture(&shared, &workers.threads, published)?;
    begin(doors, &workers, &shared, predecessor).await;
    let attachment = Attachment {
        shared: Arc::clone(&shared),
        tap: tap_receiver,
        breakers: breaker_changes,
        app,
        certificate: state,
        rotate,
        inbound,
        admin: admin.local_addr()?,
        dice: dice(3),
    };
    let ends = Ends {
        admin: tasks::spawn_local("admin", admin::serve(admin, Arc::clone(&shared), is_configured)),
        attached: hosts.unwrap_or_else(|| tasks::spawn("control", attachment.run())),
    };
    let _answering = answer_names(&names, &shared.settings, ports)?;
    until_over(&shared, &drainer, ends, sockets).await?;
    workers.stop();
    shared.access_log.flush();
    Ok(())
}

/// Keeps the addresses of a file's names fresh until the process drains.
fn keep_names(shared: &Arc<Shared>, file: Standalone, dice: Dice, configured: watch::Sender<bool>) -> JoinHandle<()> {
    tasks::spawn("hosts", standalone::Names::new(Arc::clone(shared), file, dice, configured).run())
}

/// The application of a gateway: its own door, towards the outside or, where calls leave, towards the mesh.
fn own_door(role: Role, sockets: &Sockets) -> Option<SocketAddr> {
    let door = match role {
        Role::Gateway => HTTPS,
        Role::Egress => INBOUND,
        Role::Sidecar | Role::Node | Role::Standalone => return None,
    };
    sockets.get(door).and_then(|socket| socket.local_addr().ok())
}

/// What answers names, for captured applications and where the settings say so.
fn names(shared: &Arc<Shared>) -> Names {
    Names::new(Arc::clone(shared), Arc::new(Resolver::new(shared.settings.resolver.clone())))
}

/// Answers names at an address of the settings until what is returned is dropped, and tells where this process listens.
fn answer_names(names: &Names, settings: &Settings, mut ports: serde_json::Value) -> io::Result<Vec<dns::Serving>> {
    let mut answering = Vec::new();
    if settings.joined.is_some() {
        for address in joined::resolvers() {
            match dns::Sockets::open(address) {
                Ok((sockets, _)) => answering.push(names.serve(sockets, dns::Searched::Host)),
                // A namespace without IPv6.
                Err(error) if address.is_ipv6() => tracing::debug!(%error, "names are not answered"),
                Err(error) => return Err(error),
            }
        }
    }
    if let Some(wanted) = settings.dns {
        let (sockets, address) = dns::Sockets::open(wanted)
            .map_err(|error| io::Error::new(error.kind(), format!("names cannot be answered on {wanted}: {error}")))?;
        if let Some(ports) = ports.as_object_mut() {
            ports.insert("dns".to_owned(), address.to_string().into());
        }
        answering.push(names.serve(sockets, dns::Searched::Host));
    }
    last_good::write(&settings.runtime_dir, "ports.json", &serde_json::to_vec(&ports)?)?;
    Ok(answering)
}

/// Opens the listeners, with those of the process before this one where they are the same.
async fn open(settings: &mut Settings, file: Option<&Standalone>) -> io::Result<(Option<Predecessor>, Bound)> {
    // Others are told where they find us: where no address is given, it is the one towards the control plane.
    if let (true, ControlAddress::Tcp { address, .. }) = (settings.inbound.ip().is_unspecified(), &settings.control) {
        let own = joined::address_towards(*address)?;
        settings.inbound.set_ip(own.ip());
    }
    let (predecessor, inherited) = takeover::meet(settings).await?.unzip();
    let inherited = inherited.unwrap_or_default();
    let bound = match file {
        None => bind(settings, inherited),
        Some(file) => bind_static(settings, file, inherited),
    }?;
    settings.app = settings.app.or_else(|| own_door(settings.role, &bound.sockets));
    Ok((predecessor, bound))
}

/// Accepts connections, and tells the process before this one that it need not any more.
async fn begin(
    doors: Vec<(TcpListener, Door)>,
    workers: &Workers,
    shared: &Arc<Shared>,
    predecessor: Option<Predecessor>,
) {
    for (listener, door) in doors {
        tasks::spawn("acceptor", listen::accept(listener, door, workers.threads.clone(), Arc::clone(shared)));
    }
    if let Some(predecessor) = predecessor {
        predecessor.relieve().await;
    }
}

/// Takes the credentials of a former life into use, so that a restart without a control plane serves at once.
fn restore(shared: &Shared) {
    let dir = &shared.settings.runtime_dir;
    let Some((svid, bundle)) = last_good::load_credentials(dir) else { return };
    if bundle.trust_domain != shared.settings.trust_domain || svid.not_after() <= shared.now() {
        return;
    }
    if let Err(error) = shared.holder.replace(svid, bundle) {
        tracing::warn!(%error, "the kept certificate cannot be used");
    }
    if shared.settings.role == Role::Gateway
        && let Some((chain, key)) = last_good::load_edge(dir)
        && let Err(error) = certificate::use_edge(shared, chain, &key)
    {
        tracing::warn!(%error, "the kept edge certificate cannot be used");
    }
}

/// The data threads.
struct Workers {
    threads: listen::Threads,
    handles: Vec<std::thread::JoinHandle<()>>,
}

impl Workers {
    /// Threads end when nobody can hand them connections any more.
    fn stop(self) {
        drop(self.threads);
        for handle in self.handles {
            if handle.is_finished() && handle.join().is_err() {
                tracing::error!("a data thread panicked");
            }
        }
    }
}

fn start_workers(shared: &Arc<Shared>, seed: u64, app_changes: watch::Sender<bool>) -> io::Result<Workers> {
    let (threads, intakes) = listen::threads(shared.settings.workers);
    // The first thread probes for all.
    let mut probing = Some(app_changes);
    let handles = intakes.into_iter().zip(0_u64..).map(|(intake, index)| {
        let (shared, probing) = (Arc::clone(shared), probing.take());
        std::thread::Builder::new()
            .name(format!("data-{index}"))
            .spawn(move || data_thread(shared, intake, seed.wrapping_add(100 + index), probing))
    });
    Ok(Workers { handles: handles.collect::<io::Result<_>>()?, threads })
}

fn data_thread(shared: Arc<Shared>, intake: Intake, seed: u64, probing: Option<watch::Sender<bool>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "a data thread could not start"),
    };
    let worker = Rc::new(Worker::new(shared, seed));
    let local = LocalSet::new();
    local.spawn_local(probe::sweep_pool(Rc::clone(&worker)));
    if let Some(app_changes) = probing {
        local.spawn_local(probe::watch_ejected(Rc::clone(&worker)));
        local.spawn_local(probe::watch_app(Rc::clone(&worker), app_changes));
    }
    runtime.block_on(local.run_until(listen::serve(worker, intake)));
}

async fn watch_memory(shared: Arc<Shared>) {
    shared.overload.watch_memory(shared.settings.memory_limit, &shared.drain).await;
}

/// Waits for the application's shepherd, if there will be one. Answers with who answers names.
fn capture(shared: &Arc<Shared>, threads: &listen::Threads, published: Option<TcpListener>) -> io::Result<Names> {
    let names = names(shared);
    if let (Some(listener), Some(app)) = (published, shared.settings.app) {
        tasks::spawn("publish", capture::host::publish(listener, app, Arc::clone(shared)));
    }
    if shared.captured.is_expected() {
        let gate = Gate::open(&shared.settings.runtime_dir)?;
        let sink = Sink { shared: Arc::clone(shared), threads: threads.clone(), names: names.clone() };
        tasks::spawn("capture", gate.attend(sink));
    }
    Ok(names)
}

/// Resolves when this process can serve whatever the one before it could.
async fn ready(shared: &Shared, state: &certificate::State, mut configured: watch::Receiver<bool>) -> io::Result<()> {
    let mut certificates = shared.holder.watch();
    let ready = async {
        let _proven =
            shared.settings.snapshot.is_some() || certificates.wait_for(|generation| *generation > 0).await.is_ok();
        let _configured = configured.wait_for(|configured| *configured).await.is_ok();
        while shared.settings.role == Role::Gateway && shared.edge.load().is_none() {
            state.changed.notified().await;
        }
    };
    tokio::time::timeout(takeover::READY_WITHIN, ready).await.map_err(|_elapsed| {
        io::Error::new(io::ErrorKind::TimedOut, "not ready in time to take over; the running proxy goes on")
    })
}

/// Resolves when another process has our listeners and is ready.
async fn successor(shared: &Shared, sockets: Sockets) -> Successor {
    match Offer::open(&shared.settings, sockets) {
        Ok(offer) => offer.taken().await,
        Err(error) => {
            tracing::warn!(%error, "a new process cannot take over the listeners of this one");
            std::future::pending().await
        }
    }
}

/// Serves until somebody tells us to leave or takes over, then leaves.
async fn until_over(shared: &Shared, drainer: &Drainer, ends: Ends, sockets: Sockets) -> io::Result<()> {
    let mut signs = Signs::watch(shared)?;
    let successor = tokio::select! {
        () = signs.next() => None,
        successor = successor(shared, sockets) => Some(successor),
    };
    tokio::select! {
        () = finish(shared, drainer, ends, successor) => {}
        () = signs.next() => tracing::warn!("told a second time: ended at once"),
    }
    Ok(())
}

/// What ends before the connections do.
struct Ends {
    admin: JoinHandle<()>,
    attached: JoinHandle<()>,
}

/// Leaves in the order in which nobody loses anything: not ready and deregistered, then no new connections, then the end of what
/// is under way. With a successor the workload stays, and with it its registration.
async fn finish(shared: &Shared, drainer: &Drainer, ends: Ends, successor: Option<Successor>) {
    let drain = shared.settings.drain;
    let (deadline, idle) = match successor {
        None => {
            tracing::info!("leaving");
            drainer.leave(Cause::Told);
            (drain, drain / IDLE_SHARE)
        }
        Some(successor) => {
            tracing::info!("another process has taken over");
            drainer.leave(Cause::HandedOver);
            ends.admin.abort();
            successor.leave_to().await;
            // Nobody waits for us, so callers have nearly all the time to use their connections once more.
            let deadline = drain.max(HANDED_OVER);
            (deadline, deadline.saturating_sub(deadline / IDLE_SHARE))
        }
    };
    // The control plane has heard it when the stream ends.
    if tokio::time::timeout(GOODBYE, ends.attached).await.is_err() {
        tracing::warn!("the control plane did not answer the goodbye");
    }
    tracing::info!("draining");
    let left = drainer.drain(deadline, idle).await;
    if left > 0 {
        tracing::warn!(connections = left, "ended before these were finished");
    }
}

/// What asks this process to leave: signals, or the end of its supervisor.
struct Signs {
    terminate: Signal,
    interrupt: Signal,
    lifeline: Option<PathBuf>,
}

impl Signs {
    fn watch(shared: &Shared) -> io::Result<Self> {
        let lifeline = shared.settings.lifeline.clone();
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())?, lifeline })
    }

    /// The next sign. The supervisor's end is only ever the first.
    async fn next(&mut self) {
        let lifeline = async {
            match &self.lifeline {
                None => std::future::pending::<()>().await,
                Some(path) => supervisor_gone(path).await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            () = lifeline => {}
        }
        self.lifeline = None;
    }
}

async fn supervisor_gone(path: &std::path::Path) {
    let Ok(mut stream) = UnixStream::connect(path).await else { return };
    // Nothing is ever sent; the end of the stream is the message.
    let mut byte = [0];
    while matches!(stream.read(&mut byte).await, Ok(1..)) {}
}

/// Seed of all dice, from the system's randomness.
fn seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}
