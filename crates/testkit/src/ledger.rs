//! An open-loop client: a constant rate whatever the answers are, and an account of every single request.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{tasks, wait};

/// How one request ended.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its unique number.
    pub id: u64,
    /// When it was sent, from the start of the load.
    pub sent: Duration,
    /// How long it took.
    pub took: Duration,
    /// `Err` holds the reason.
    pub outcome: Result<(), String>,
}

/// The account of a load that has ended: every number that was sent is in it, once.
#[derive(Debug)]
pub struct Ledger {
    /// In the order of the numbers.
    pub entries: Vec<Entry>,
}

impl Ledger {
    /// The failed requests.
    pub fn failed(&self) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| entry.outcome.is_err()).collect()
    }

    /// Fails the test unless every request succeeded, and shows why each kind of failure happened.
    pub fn assert_no_failures(&self, what: &str) {
        let failed = self.failed();
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in &failed {
            if let Err(reason) = &entry.outcome {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        assert!(failed.is_empty(), "{what}: {} of {} failed: {reasons:#?}", failed.len(), self.entries.len());
    }

    /// The longest request.
    pub fn slowest(&self) -> Duration {
        self.entries.iter().map(|entry| entry.took).max().unwrap_or_default()
    }
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    done: Arc<AtomicU64>,
    generator: JoinHandle<u64>,
    results: mpsc::UnboundedReceiver<Entry>,
}

impl Load {
    /// Starts `rate` requests per second. `send` gets the number of each.
    pub fn start<F, Fut>(rate: u32, send: F) -> Self
    where
        F: Fn(u64) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let (stop, mut stopped) = watch::channel(false);
        let (results_in, results) = mpsc::unbounded_channel();
        let done = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&done);
        let generator = tasks::spawn(async move {
            let begun = Instant::now();
            let mut beat = tokio::time::interval(Duration::from_secs(1) / rate);
            beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut id = 0;
            loop {
                tokio::select! {
                    _ = stopped.changed() => return id,
                    _ = beat.tick() => {}
                }
                let (request, results_in, counter) = (send(id), results_in.clone(), Arc::clone(&counter));
                let sent = begun.elapsed();
                let _detached = tasks::spawn(async move {
                    let outcome = request.await;
                    let took = begun.elapsed().saturating_sub(sent);
                    counter.fetch_add(1, Ordering::Relaxed);
                    let _nobody_waits = results_in.send(Entry { id, sent, took, outcome }).is_ok();
                });
                id += 1;
            }
        });
        Self { stop, done, generator, results }
    }

    /// How many requests have ended.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests have ended.
    pub async fn go_on_for(&self, more: u64) {
        let goal = self.done() + more;
        wait::until_true("the load goes on", Duration::from_mins(1), || self.done() >= goal).await;
    }

    /// Stops sending, waits for every answer, and accounts for every number.
    pub async fn finish(mut self) -> Ledger {
        let _ends_it = self.stop.send(true).is_ok();
        let sent = self.generator.await.unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = self.results.recv().await {
            entries.push(entry);
        }
        entries.sort_by_key(|entry: &Entry| entry.id);
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.id).collect();
        assert!(numbers.iter().copied().eq(0..sent), "{sent} requests were sent, {} are accounted for", numbers.len());
        Ledger { entries }
    }
}
