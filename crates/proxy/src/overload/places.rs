//! Places for connections that others open: bounded altogether, and at a gateway for each source.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// The places of one process. Touched once when a connection opens and once when it closes, never by a request.
#[derive(Debug)]
pub struct Places {
    most: usize,
    share: Option<usize>,
    free: Arc<Semaphore>,
    open: AtomicUsize,
    refused: AtomicUsize,
    sources: Mutex<HashMap<IpAddr, usize>>,
    freed: Notify,
}

/// A free place that is kept for the next connection of an acceptor.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

/// A connection's place, given back however it ends.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    source: Option<IpAddr>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// `most` altogether, of which one source has at most `share`.
    pub fn new(most: usize, share: Option<usize>) -> Self {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            most,
            share: share.map(|share| share.max(1)),
            free: Arc::new(Semaphore::new(most)),
            open: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            sources: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Waits until there is a place. Who accepts only then pauses at the bound: callers wait in the kernel's queue.
    pub async fn reserve(&self) -> Reserved {
        match Arc::clone(&self.free).acquire_owned().await {
            Ok(permit) => Reserved(permit),
            // Nobody closes the semaphore.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Gives a reserved place to a connection from `source`; `None` if that source has its share.
    pub fn take(self: &Arc<Self>, reserved: Reserved, source: IpAddr) -> Option<Place> {
        let source = self.share.map(|share| (block(source), share));
        if let Some((source, share)) = source {
            let mut sources = self.sources.lock();
            let own = sources.entry(source).or_default();
            if *own >= share {
                drop(sources);
                self.refused.fetch_add(1, Relaxed);
                return None;
            }
            *own += 1;
        }
        self.open.fetch_add(1, Relaxed);
        Some(Place { places: Arc::clone(self), source: source.map(|(source, _)| source), permit: Some(reserved.0) })
    }

    /// Resolves when a connection ends, from the moment of the call.
    pub fn freed(&self) -> Notified<'_> {
        self.freed.notified()
    }

    /// How many are taken.
    pub fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How many there are.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Connections closed at once because their source had its share.
    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            let mut sources = self.places.sources.lock();
            if let Some(own) = sources.get_mut(&source) {
                *own -= 1;
                if *own == 0 {
                    sources.remove(&source);
                }
            }
        }
        self.places.open.fetch_sub(1, Relaxed);
        drop(self.permit.take());
        self.places.freed.notify_waiters();
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 subscriber has (RFC 6177).
fn block(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn reserve(places: &Places) -> Option<Reserved> {
        places.reserve().now_or_never()
    }

    #[test]
    fn at_the_bound_nobody_gets_a_place_until_one_ends() {
        let places = Arc::new(Places::new(2, None));
        let first = places.take(reserve(&places).unwrap(), ip("10.0.0.1")).unwrap();
        let _second = places.take(reserve(&places).unwrap(), ip("10.0.0.1")).unwrap();
        assert_eq!(places.open(), 2);
        assert!(reserve(&places).is_none());
        drop(first);
        assert!(reserve(&places).is_some());
        assert_eq!(places.open(), 1);
    }

    #[test]
    fn one_source_has_its_share_and_the_others_have_the_rest() {
        let places = Arc::new(Places::new(8, Some(2)));
        let from = |text| places.take(reserve(&places).unwrap(), ip(text));
        let held = [from("10.0.0.1"), from("10.0.0.1")];
        assert!(from("10.0.0.1").is_none());
        assert!(from("::ffff:10.0.0.1").is_none(), "the same address in another form");
        assert!(from("10.0.0.2").is_some());
        assert_eq!(places.refused(), 2);
        drop(held);
        assert!(from("10.0.0.1").is_some());
        assert!(places.sources.lock().is_empty(), "nothing is kept of who is gone");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_source() {
        let places = Arc::new(Places::new(8, Some(1)));
        let from = |text| places.take(reserve(&places).unwrap(), ip(text));
        let _held = from("2001:db8:1:2::1").unwrap();
        assert!(from("2001:db8:1:2:ffff::9").is_none());
        assert!(from("2001:db8:1:3::1").is_some());
    }

    #[test]
    fn a_refused_connection_gives_its_place_back() {
        let places = Arc::new(Places::new(1, Some(1)));
        let held = places.take(reserve(&places).unwrap(), ip("10.0.0.1")).unwrap();
        drop(held);
        let reserved = reserve(&places).unwrap();
        let _held = places.take(reserved, ip("10.0.0.1")).unwrap();
        assert!(reserve(&places).is_none());
    }
}
