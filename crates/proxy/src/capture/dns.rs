//! The resolver of a captured application: the mesh's names from the directory, all others from the host's resolver.
//!
//! [`Names::serve`] takes sockets that somebody has bound, such as the ones made inside an application's namespace. What a message
//! says and what is believed of an answer is decided in `hms_dns`; here are sockets, time and bounds. All of it runs on the thread of
//! administration, so that no request waits for a name.

mod exchange;
pub mod resolver;
mod server;
mod sockets;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_dns::directory;
use hms_dns::{Answer, Code, Query, Reply, Terms, Transport};
use hms_model::names::ServiceName;
use hms_model::policy::RateLimit;
use hms_model::service::Entry;
use hms_traffic::rate_limit::{Bucket, Verdict};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use self::resolver::Resolver;
pub use self::sockets::Sockets;
use crate::runtime::directory::Directory;
use crate::tasks;
use crate::worker::Shared;

/// How long a query waits for the first word of the mesh.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// Queries of one application that are answered in a second, and how many may come at once; what is beyond waits in its socket.
const PACE: (u32, u32) = (2000, 1000);
/// Queries of one application that wait for another resolver at the same time.
const WAITING: usize = 256;

/// Answers names for applications.
#[derive(Debug, Clone)]
pub struct Names {
    shared: Arc<Shared>,
    resolver: Arc<Resolver>,
}

/// Whose search list an application's resolver works with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Searched {
    /// One that [`HostResolver::captured`](hms_dns::host::HostResolver::captured) wrote: it looks into the mesh first.
    Mesh,
    /// The host's: what it makes of a service's bare name is denied, so that the bare name is asked for.
    Host,
}

/// What answers one application. It ends when this is dropped.
#[derive(Debug)]
pub struct Serving(Vec<JoinHandle<()>>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Names {
    /// Answers from the tables in use; `resolver` is asked about everybody else's names.
    pub fn new(shared: Arc<Shared>, resolver: Arc<Resolver>) -> Self {
        Self { shared, resolver }
    }

    /// The host's resolver.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// Answers what comes to these sockets, until the process hands over to another.
    pub fn serve(&self, sockets: Sockets, searched: Searched) -> Serving {
        let (count, burst) = PACE;
        let desk = Arc::new(Desk {
            shared: Arc::clone(&self.shared),
            resolver: Arc::clone(&self.resolver),
            searched,
            // Both numbers are within what a rate may be.
            pace: RateLimit::new(count, Duration::from_secs(1), Some(burst)).ok(),
            bucket: Bucket::new(),
            waiting: Semaphore::new(WAITING),
        });
        let mut serving = Vec::new();
        for socket in sockets.udp {
            serving.push(tasks::spawn("dns", server::datagrams(Arc::clone(&desk), socket)));
        }
        for listener in sockets.tcp {
            serving.push(tasks::spawn("dns", server::streams(Arc::clone(&desk), listener)));
        }
        Serving(serving)
    }
}

/// Where the queries of one application are answered.
#[derive(Debug)]
struct Desk {
    shared: Arc<Shared>,
    resolver: Arc<Resolver>,
    searched: Searched,
    pace: Option<RateLimit>,
    bucket: Bucket,
    waiting: Semaphore,
}

/// Who made an answer, in the metrics.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Mesh,
    Forwarded,
    Refused,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::Forwarded => "forwarded",
            Self::Refused => "refused",
        }
    }
}

impl Desk {
    /// Resolves when the next message may be read.
    async fn paced(&self) {
        let Some(pace) = &self.pace else { return };
        while let Verdict::Refused { retry_after } = self.bucket.take(pace, self.shared.clock.now()) {
            tokio::time::sleep(retry_after).await;
        }
    }

    /// The reply to a message, if it needs nobody else.
    fn at_once(&self, message: &[u8], transport: Transport) -> Result<Option<Vec<u8>>, Query> {
        match self.answer(message, transport) {
            Answer::Drop => Ok(None),
            Answer::Reply(reply) => Ok(Some(self.done(own(&reply), reply))),
            Answer::Forward(query) | Answer::NotYet(query) => Err(query),
        }
    }

    /// The reply to a message that needs somebody else. One too many has an answer too: that there is none.
    async fn later(&self, message: &[u8], query: Query, transport: Transport) -> Option<Vec<u8>> {
        let Ok(_place) = self.waiting.try_acquire() else {
            return Some(self.done(Kind::Refused, hms_dns::server_failure(&query)));
        };
        let answer = match self.answer(message, transport) {
            Answer::NotYet(_) => {
                self.first_word().await;
                self.answer(message, transport)
            }
            answer => answer,
        };
        match answer {
            Answer::Drop => None,
            Answer::Reply(reply) => Some(self.done(own(&reply), reply)),
            Answer::NotYet(query) => Some(self.done(Kind::Mesh, hms_dns::server_failure(&query))),
            Answer::Forward(query) => {
                let reply = self.resolver.ask(&query).await;
                let now = self.shared.clock.now();
                self.shared.outside.told().note(&query.name(), &reply.bytes, reply.code, now);
                Some(self.done(Kind::Forwarded, reply))
            }
        }
    }

    fn answer(&self, message: &[u8], transport: Transport) -> Answer {
        let runtime = self.shared.current.load();
        let host;
        let search: &[String] = match self.searched {
            Searched::Mesh => &[],
            Searched::Host => {
                host = self.resolver.host();
                &host.search
            }
        };
        let terms = Terms { namespace: self.shared.settings.service.namespace(), transport, search };
        let answer = hms_dns::answer(message, &*runtime.directory, &terms);
        if let Answer::Reply(Reply { service: Some(name), .. }) = &answer
            && !runtime.upstreams.contains_key(name)
        {
            // Ahead of the connect that follows. A full queue means that it asks itself.
            let _asked = self.shared.wanted.try_send(name.clone()).is_ok();
        }
        answer
    }

    /// Resolves with the first configuration, or when waiting for it takes too long.
    async fn first_word(&self) {
        let mut changes = self.shared.current.watch();
        let known =
            async { while self.shared.current.load().directory.is_empty() && changes.changed().await.is_ok() {} };
        let _in_time = tokio::time::timeout(FIRST_WORD, known).await.is_ok();
    }

    /// Counts an answer.
    fn done(&self, kind: Kind, reply: Reply) -> Vec<u8> {
        self.shared.registry.dns(kind.as_str(), reply.code.as_str());
        reply.bytes
    }
}

fn own(reply: &Reply) -> Kind {
    match reply.code {
        Code::NoError | Code::NxDomain | Code::ServFail => Kind::Mesh,
        Code::FormErr | Code::NotImp | Code::Refused | Code::BadVers => Kind::Refused,
    }
}

impl directory::Directory for Directory {
    fn is_known(&self) -> bool {
        !self.is_empty()
    }

    fn entry(&self, name: &ServiceName) -> Option<&Entry> {
        self.get(name)
    }

    fn aliased(&self, host: &str) -> Option<&Entry> {
        self.by_alias(host)
    }

    fn at(&self, address: IpAddr) -> Option<&Entry> {
        self.by_address(address)
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        // Names are ordered by their namespace; no name comes before this one.
        let Ok(first) = ServiceName::in_namespace(namespace, "0") else { return false };
        self.entries().range(first..).next().is_some_and(|(name, _)| name.namespace() == namespace)
    }
}
