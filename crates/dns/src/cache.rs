//! Answers of other resolvers, kept for as long as they hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::forward::Forwarded;
use crate::query::Key;

/// Answers that are kept, and octets of all of them together.
const MOST_ANSWERS: usize = 512;
const MOST_BYTES: usize = 512 * 1024;
/// The largest answer that is kept.
const MOST_BYTES_EACH: usize = 8 * 1024;

/// Answers by their question. A record is never taken out of one answer to answer another question.
#[derive(Debug, Default)]
pub struct Cache {
    kept: BTreeMap<Key, Kept>,
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    answer: Arc<Forwarded>,
    since: Duration,
    until: Duration,
}

impl Cache {
    /// The answer to this question and its age in seconds, at a time since the process began.
    pub fn get(&self, key: &Key, now: Duration) -> Option<(Arc<Forwarded>, u32)> {
        let kept = self.kept.get(key).filter(|kept| now < kept.until)?;
        let age = now.saturating_sub(kept.since).as_secs();
        Some((Arc::clone(&kept.answer), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer, if it may be kept.
    pub fn put(&mut self, key: Key, answer: Arc<Forwarded>, now: Duration) {
        let Some(seconds) = answer.seconds().filter(|_| answer.len() <= MOST_BYTES_EACH) else { return };
        self.remove(&key);
        while self.kept.len() >= MOST_ANSWERS || self.bytes + answer.len() > MOST_BYTES {
            let Some(soonest) = self.kept.iter().min_by_key(|(_, kept)| kept.until).map(|(key, _)| key.clone()) else {
                break;
            };
            self.remove(&soonest);
        }
        self.bytes += answer.len();
        let until = now.saturating_add(Duration::from_secs(seconds.into()));
        self.kept.insert(key, Kept { answer, since: now, until });
    }

    /// Forgets everything: another resolver may answer otherwise.
    pub fn clear(&mut self) {
        self.kept.clear();
        self.bytes = 0;
    }

    fn remove(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes = self.bytes.saturating_sub(kept.answer.len());
        }
    }
}
