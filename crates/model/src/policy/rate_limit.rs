//! So many requests per time, each route its own bucket (ruling R15).

use std::fmt;
use std::time::Duration;

use http::HeaderName;

/// `count` requests per `period`: a bucket of `burst` tokens that refills one every `period / count`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimit {
    count: u32,
    period: Duration,
    burst: u32,
    cost: u32,
    key: LimitKey,
}

/// Whose bucket a request's tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum LimitKey {
    /// Everybody's: the route has one.
    #[default]
    Route,
    /// The calling identity's.
    Identity,
    /// That of a header field's value; those who send none have one together.
    Header(HeaderName),
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Route => f.write_str("route"),
            Self::Identity => f.write_str("identity"),
            Self::Header(name) => write!(f, "header {name}"),
        }
    }
}

/// Why a rate is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitError(String);

impl fmt::Display for RateLimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RateLimitError {}

impl RateLimit {
    /// 1 to 1 000 000 requests per second, minute or hour; the burst is the count unless stated.
    pub fn new(count: u32, period: Duration, burst: Option<u32>) -> Result<Self, RateLimitError> {
        let burst = burst.unwrap_or(count);
        if count == 0 || count > 1_000_000 {
            return Err(RateLimitError(format!("a rate counts 1 to 1000000 requests, not {count}")));
        }
        if burst == 0 || burst > 1_000_000 {
            return Err(RateLimitError(format!("a burst is 1 to 1000000 requests, not {burst}")));
        }
        if period.is_zero() || period > Duration::from_hours(24) {
            return Err(RateLimitError("a period is longer than nothing and at most a day".to_owned()));
        }
        Ok(Self { count, period, burst, cost: 1, key: LimitKey::Route })
    }

    /// The same with a bucket for each of something.
    #[must_use]
    pub fn each(mut self, key: LimitKey) -> Self {
        self.key = key;
        self
    }

    /// The same for requests that cost more than one token: 1 to the burst.
    pub fn costing(mut self, cost: u32) -> Result<Self, RateLimitError> {
        if cost == 0 || cost > self.burst {
            let why = format!("a request costs 1 to {} (the burst) tokens, not {cost}", self.burst);
            return Err(RateLimitError(why));
        }
        self.cost = cost;
        Ok(self)
    }

    /// Whose bucket a request's tokens come from.
    pub fn key(&self) -> &LimitKey {
        &self.key
    }

    /// Tokens that one request takes.
    pub fn cost(&self) -> u32 {
        self.cost
    }

    /// Reads `20 req/min`, `20/m`, `5 req/s`, `100 requests/hour`.
    pub fn parse(text: &str) -> Result<Self, RateLimitError> {
        let wrong = || RateLimitError(format!("`{text}` is no rate; a rate reads \"20 req/min\" (s, min or h)"));
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let digits = count.trim_end_matches(|c: char| !c.is_ascii_digit());
        let noun = count.get(digits.len()..).unwrap_or_default().trim();
        if !matches!(noun, "" | "req" | "reqs" | "request" | "requests" | "r") {
            return Err(wrong());
        }
        let count: u64 = digits.trim().parse().map_err(|_not_a_number| wrong())?;
        let count = u32::try_from(count)
            .map_err(|_too_large| RateLimitError(format!("a rate counts 1 to 1000000 requests, not {count}")))?;
        let period = match unit.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            _ => return Err(wrong()),
        };
        Self::new(count, Duration::from_secs(period), None)
    }

    /// Requests per period.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The period.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Tokens of a full bucket.
    pub fn burst(&self) -> u32 {
        self.burst
    }

    /// Time until one token comes back.
    pub fn refill(&self) -> Duration {
        self.period / self.count
    }
}

/// The rate alone.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.period.as_secs() {
            1 => write!(f, "{} req/s", self.count),
            60 => write!(f, "{} req/min", self.count),
            3600 => write!(f, "{} req/h", self.count),
            _ => write!(f, "{} req/{}s", self.count, self.period.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_of_rates() {
        let twenty = RateLimit::new(20, Duration::from_mins(1), None).unwrap();
        for text in ["20 req/min", "20/m", "20 requests/minute", "20 req / min"] {
            assert_eq!(RateLimit::parse(text), Ok(twenty.clone()), "{text}");
        }
        assert_eq!(twenty.refill(), Duration::from_secs(3));
        assert_eq!(twenty.burst(), 20);
        assert_eq!(RateLimit::parse("5 req/s").unwrap().to_string(), "5 req/s");
    }

    #[test]
    fn nonsense_is_no_rate() {
        for text in [
            "",
            "20",
            "20 req",
            "req/min",
            "-1 req/min",
            "0 req/min",
            "20 req/day",
            "20 apples/min",
            "1e3/s",
            "99999999999/s",
        ] {
            assert!(RateLimit::parse(text).is_err(), "{text}");
        }
    }
}
