//! What is counted of one service.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_formats::scenario::Instance;
use hms_model::names::ServiceName;
use hms_model::split::{self, Share};
use hms_traffic::clock::Moment;

/// How long the parts are in which success is counted for recovery.
pub(crate) const TENTH: Duration = Duration::from_millis(100);

/// What happened in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Second {
    /// Requests that the load asked for.
    pub(crate) offered: u64,
    /// Requests that applications received.
    pub(crate) received: u64,
    /// Calls that were made.
    pub(crate) calls: u64,
    /// Tries after the first that the budget granted.
    pub(crate) granted: u64,
}

/// One instance's part.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// `2`, from 1.
    pub(crate) number: u32,
    /// Its version.
    pub(crate) version: String,
    /// Its zone.
    pub(crate) zone: String,
    /// Requests that it received.
    pub(crate) received: u64,
    /// Its share of what was received while it could be called.
    pub(crate) share: f64,
    /// Whether it can be called.
    up: bool,
}

/// A breaker that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Opening {
    /// When.
    pub(crate) at: Moment,
    /// Whose.
    pub(crate) caller: String,
}

/// A call that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How long it took.
    pub(crate) took: Duration,
    /// When it began.
    pub(crate) begun: Moment,
}

/// What is counted of one service.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// The service.
    pub(crate) service: ServiceName,
    /// What the load asked of it, directly and through others, if every request were made once.
    pub(crate) offered: u64,
    /// Calls of other applications and of the load.
    pub(crate) calls: u64,
    /// Calls that were refused without any try.
    pub(crate) untried: u64,
    /// Tries after the first.
    pub(crate) retries: u64,
    /// All tries.
    pub(crate) tries: u64,
    /// Tries that an application received.
    pub(crate) received: u64,
    /// Tries that its rate limit refused.
    pub(crate) limited: u64,
    /// Tries that found no application or nobody at all.
    pub(crate) missed: u64,
    /// Calls that were answered well.
    pub(crate) succeeded: u64,
    /// All others.
    pub(crate) failed: u64,
    /// Why calls were tried again.
    pub(crate) retried_for: BTreeMap<String, u64>,
    /// Why failed calls were not tried again.
    pub(crate) stopped_for: BTreeMap<&'static str, u64>,
    /// What failed calls were answered.
    pub(crate) failed_with: BTreeMap<String, u64>,
    /// When breakers opened.
    pub(crate) openings: Vec<Opening>,
    /// When the first call failed.
    pub(crate) first_failure: Option<Moment>,
    /// The calls that ended.
    pub(crate) ended: Vec<Ended>,
    /// By second.
    pub(crate) seconds: Vec<Second>,
    /// How many calls succeeded and failed, by the tenth of a second in which they began.
    pub(crate) tenths: Vec<(u64, u64)>,
    /// Its instances.
    pub(crate) parts: Vec<Part>,
    split: Vec<Share>,
    /// Received since shares were last reckoned.
    unshared: u64,
}

impl Account {
    /// Nothing yet.
    pub(crate) fn new(service: &ServiceName, instances: &[Instance], split: &[Share]) -> Self {
        let part = |(number, own): (u32, &Instance)| Part {
            number,
            version: own.version.clone(),
            zone: own.zone.clone(),
            received: 0,
            share: 0.0,
            up: true,
        };
        Self {
            service: service.clone(),
            offered: 0,
            calls: 0,
            untried: 0,
            retries: 0,
            tries: 0,
            received: 0,
            limited: 0,
            missed: 0,
            succeeded: 0,
            failed: 0,
            retried_for: BTreeMap::new(),
            stopped_for: BTreeMap::new(),
            failed_with: BTreeMap::new(),
            openings: Vec::new(),
            first_failure: None,
            ended: Vec::new(),
            seconds: Vec::new(),
            tenths: Vec::new(),
            parts: (1..).zip(instances).map(part).collect(),
            split: split.to_vec(),
            unshared: 0,
        }
    }

    fn second(&mut self, now: Moment) -> Option<&mut Second> {
        let place = usize::try_from(now.as_micros() / 1_000_000).unwrap_or_default();
        if self.seconds.len() <= place {
            self.seconds.resize(place + 1, Second::default());
        }
        self.seconds.get_mut(place)
    }

    /// The load asked for so many.
    pub(crate) fn offer(&mut self, now: Moment, many: u64) {
        self.offered += many;
        if let Some(second) = self.second(now) {
            second.offered += many;
        }
    }

    /// A call was made.
    pub(crate) fn call(&mut self, now: Moment) {
        self.calls += 1;
        if let Some(second) = self.second(now) {
            second.calls += 1;
        }
    }

    /// A try was made; `after` says why it was not the first.
    pub(crate) fn try_made(&mut self, after: Option<String>) {
        self.tries += 1;
        if let Some(why) = after {
            self.retries += 1;
            *self.retried_for.entry(why).or_default() += 1;
        }
    }

    /// The budget granted another try.
    pub(crate) fn grant(&mut self, now: Moment) {
        if let Some(second) = self.second(now) {
            second.granted += 1;
        }
    }

    /// An application received a request.
    pub(crate) fn receive(&mut self, now: Moment, place: usize) {
        self.received += 1;
        self.unshared += 1;
        if let Some(part) = self.parts.get_mut(place) {
            part.received += 1;
        }
        if let Some(second) = self.second(now) {
            second.received += 1;
        }
    }

    /// A call ended; `failure` says how, if not well.
    pub(crate) fn end(&mut self, begun: Moment, now: Moment, failure: Option<String>) {
        let place = usize::try_from(begun.as_micros() / 100_000).unwrap_or_default();
        if self.tenths.len() <= place {
            self.tenths.resize(place + 1, (0, 0));
        }
        self.ended.push(Ended { took: now.saturating_since(begun), begun });
        let tenth = self.tenths.get_mut(place);
        match failure {
            None => {
                self.succeeded += 1;
                if let Some((succeeded, _)) = tenth {
                    *succeeded += 1;
                }
            }
            Some(failure) => {
                self.failed += 1;
                if let Some((_, failed)) = tenth {
                    *failed += 1;
                }
                self.first_failure.get_or_insert(now);
                *self.failed_with.entry(failure).or_default() += 1;
            }
        }
    }

    /// An instance can be called from now on, or cannot.
    pub(crate) fn set_up(&mut self, place: usize, up: bool) {
        self.reckon();
        if let Some(part) = self.parts.get_mut(place) {
            part.up = up;
        }
    }

    /// Calls are divided in another way from now on.
    pub(crate) fn set_split(&mut self, split: &[Share]) {
        self.reckon();
        self.split = split.to_vec();
    }

    /// Gives every instance that can be called its share of what was received since the last time: by weight among versions, evenly
    /// within one.
    pub(crate) fn reckon(&mut self) {
        let received = number(std::mem::take(&mut self.unshared));
        let weight = |part: &Part| {
            let own = self.split.iter().find(|share| share.version == part.version);
            if !part.up || !split::takes(&self.split, &self.service, &part.version) {
                return 0.0;
            }
            let alike = self.parts.iter().filter(|other| other.up && other.version == part.version).count();
            let weight =
                if self.split.is_empty() { number_of(alike) } else { own.map_or(0.0, |own| own.weight.into()) };
            weight / number_of(alike)
        };
        let weights: Vec<f64> = self.parts.iter().map(weight).collect();
        let all: f64 = weights.iter().sum();
        if all > 0.0 {
            for (part, weight) in self.parts.iter_mut().zip(weights) {
                part.share += received * weight / all;
            }
        }
    }

    /// How often what the load asked for arrived, in millionths.
    pub(crate) fn amplification(&self) -> u64 {
        ratio(self.received, self.offered)
    }

    /// The part of calls that were answered well, in millionths.
    pub(crate) fn success(&self) -> u64 {
        let all = self.succeeded + self.failed;
        if all == 0 { 1_000_000 } else { ratio(self.succeeded, all) }
    }

    /// The instance that is furthest from its share, and how far, in parts of the share.
    pub(crate) fn unfairest(&self) -> Option<(&Part, f64)> {
        let off = |part: &Part| match part.share {
            share if share >= 1.0 => (number(part.received) - share) / share,
            _ => {
                if part.received > 1 {
                    1.0
                } else {
                    0.0
                }
            }
        };
        self.parts.iter().map(|part| (part, off(part))).max_by(|(_, one), (_, other)| one.abs().total_cmp(&other.abs()))
    }

    /// The time that so many of a hundred calls do not exceed, with the call that has it.
    pub(crate) fn percentile(&self, percent: usize) -> Option<Ended> {
        let mut sorted = self.ended.clone();
        sorted.sort_unstable_by_key(|ended| (ended.took, ended.begun));
        let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(place).copied()
    }

    /// How often a breaker opened again, of the caller where that was most often.
    pub(crate) fn flaps(&self) -> (u32, Option<&str>) {
        let mut openings: BTreeMap<&str, u32> = BTreeMap::new();
        for opening in &self.openings {
            *openings.entry(&opening.caller).or_default() += 1;
        }
        let most = openings.into_iter().max_by_key(|(caller, count)| (*count, std::cmp::Reverse(*caller)));
        most.map_or((0, None), |(caller, count)| (count - 1, Some(caller)))
    }

    /// How long calls failed after a moment, looking no further than another one: to the end of the last tenth of a second in which
    /// fewer than nine of ten succeeded.
    pub(crate) fn recovery(&self, after: Duration, until: Duration) -> Duration {
        let tenth = |time: Duration| usize::try_from(time.as_millis() / TENTH.as_millis()).unwrap_or(usize::MAX);
        let (first, end) = (tenth(after), tenth(until));
        let within = self.tenths.iter().enumerate().take(end).skip(first);
        let bad =
            within.filter(|(_, (succeeded, failed))| *failed > 0 && *succeeded < failed * 9).map(|(place, _)| place);
        let Some(last) = bad.max() else { return Duration::ZERO };
        let ends = TENTH.saturating_mul(u32::try_from(last + 1).unwrap_or(u32::MAX));
        ends.saturating_sub(after)
    }
}

/// A count as a number with a fraction. Counts are bounded far below 2^32.
pub(crate) fn number(count: u64) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

fn number_of(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// A part of a whole in millionths; nothing of nothing.
pub(crate) fn ratio(part: u64, whole: u64) -> u64 {
    part.saturating_mul(1_000_000).checked_div(whole).unwrap_or_default()
}
