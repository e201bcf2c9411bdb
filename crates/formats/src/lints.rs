//! What is allowed and seldom meant: four habits that a mesh is there to end, each with a name by which it can be suppressed.

use std::net::Ipv4Addr;
use std::time::Duration;

use hms_model::finding::Finding;

use crate::document::{self, Entry, Node, Value, short};
use crate::read::{Reader, Span};
use crate::source::Source;

/// A lint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lint {
    /// An address stands where a program looks for another one.
    HardCodedIp,
    /// What might be done twice is tried again.
    RetryUnsafe,
    /// A breaker that opens for nothing, or too late.
    BreakerThreshold,
    /// A certificate that lives too long.
    CertTtl,
}

impl Lint {
    /// Every lint.
    pub const ALL: [Self; 4] = [Self::HardCodedIp, Self::RetryUnsafe, Self::BreakerThreshold, Self::CertTtl];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HardCodedIp => "hard-coded-ip",
            Self::RetryUnsafe => "retry-unsafe",
            Self::BreakerThreshold => "breaker-threshold",
            Self::CertTtl => "cert-ttl",
        }
    }

    /// The code of its findings.
    pub fn code(self) -> u16 {
        match self {
            Self::HardCodedIp => 2160,
            Self::RetryUnsafe => 2161,
            Self::BreakerThreshold => 2162,
            Self::CertTtl => 2163,
        }
    }

    fn finding(self, message: &str) -> Finding {
        Finding::warning(self.code(), format!("{}: {message}", self.as_str()))
    }
}

/// Where programs are told whom to call: in the environment and the arguments of what is started.
const COMMANDS: [&str; 7] = ["env", "environment", "run", "command", "args", "entrypoint", "healthcheck"];
/// Methods that may be repeated (RFC 9110 §9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];
/// Errors in a row that are no accident yet, and those after which callers have suffered enough.
const ERRORS: std::ops::RangeInclusive<u64> = 2..=20;
/// How long an open breaker gives a service to recover, and how long is needed at most.
const OPEN: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_mins(5);
/// The longest life of a workload's certificate.
const LIFE: Duration = Duration::from_hours(24);

/// Looks through files of any kind. What cannot be read at all is somebody else's finding.
pub fn look(sources: &[Source], suppressed: &[Lint]) -> Vec<Finding> {
    let mut scratch = Reader::default();
    let mut trees = Vec::new();
    for source in sources {
        let Some(file) = scratch.add(source) else { continue };
        trees.extend(document::parse_all(&mut scratch, file).unwrap_or_default());
    }
    // Mistakes of the files themselves are not said again.
    let mut reader = Reader::default();
    for source in sources {
        let _known = reader.add(source);
    }
    let mut eye = Eye { reader, suppressed };
    for tree in &trees {
        eye.node(tree, "", false);
    }
    let codes = Lint::ALL.map(Lint::code);
    eye.reader.into_findings().into_iter().filter(|finding| codes.contains(&finding.code.0)).collect()
}

struct Eye<'r, 's> {
    reader: Reader<'r>,
    suppressed: &'s [Lint],
}

impl Eye<'_, '_> {
    fn say(&mut self, lint: Lint, at: Span, finding: Finding) {
        if !self.suppressed.contains(&lint) {
            self.reader.report(at, finding);
        }
    }

    /// `key` is that under which a value stands, `started` whether it belongs to what is started.
    fn node(&mut self, node: &Node, key: &str, started: bool) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    self.entry(entry, key);
                    self.node(&entry.value, &entry.key, started || COMMANDS.contains(&entry.key.as_str()));
                }
            }
            Value::List(items) => {
                if started {
                    self.words(items);
                }
                for item in items {
                    self.node(item, key, started);
                }
            }
            Value::Scalar(text, _) if started => {
                self.address(node, text);
                let words: Vec<&str> = text.split_whitespace().collect();
                self.life(&words, node.span);
            }
            Value::Scalar(..) | Value::Null | Value::Unknown => {}
        }
    }

    /// Arguments that stand alone.
    fn words(&mut self, items: &[Node]) {
        let text = |item: &Node| match &item.value {
            Value::Scalar(text, _) => text.clone(),
            _ => String::new(),
        };
        for pair in items.windows(2) {
            if let [flag, time] = pair
                && is_flag(&text(flag))
            {
                self.life(&[&text(flag), &text(time)], time.span);
            }
        }
    }

    fn entry(&mut self, entry: &Entry, parent: &str) {
        match (parent, entry.key.as_str()) {
            ("retry" | "retries", "methods") => self.methods(entry),
            ("breaker", "errors") | ("outlierDetection", "consecutive5xxErrors" | "consecutiveGatewayErrors") => {
                self.errors(entry);
            }
            ("breaker", "open") | ("outlierDetection", "baseEjectionTime") => self.open(entry),
            (_, "validity" | "cert_ttl" | "certificate_ttl") => {
                if let Some(time) = scalar(&entry.value).and_then(time) {
                    self.lives(time, entry.value.span);
                }
            }
            _ => {}
        }
    }

    fn methods(&mut self, entry: &Entry) {
        let Value::List(items) = &entry.value.value else { return };
        for item in items {
            let Some(method) = scalar(item).filter(|method| !IDEMPOTENT.contains(method)) else { continue };
            let finding = Lint::RetryUnsafe.finding(&format!("a {} is tried again", short(method)));
            let why = "it may have been processed already, and is then processed twice";
            let fix =
                "let it carry an idempotency key and leave the method out, or be sure that twice does what once does";
            self.say(Lint::RetryUnsafe, item.span, finding.because(why).fix(fix));
        }
    }

    fn errors(&mut self, entry: &Entry) {
        let Some(errors) = scalar(&entry.value).and_then(|text| text.parse::<u64>().ok()) else { return };
        // 0 turns a mode off, where that is possible.
        if errors == 0 || ERRORS.contains(&errors) {
            return;
        }
        let (what, why) = if errors < *ERRORS.start() {
            (format!("{errors} error opens the breaker"), "a single lost packet takes an instance away: a false alarm")
        } else {
            (
                format!("only {errors} errors in a row open the breaker"),
                "by then every caller has waited for a service that is down",
            )
        };
        let finding = Lint::BreakerThreshold.finding(&what).because(why);
        self.say(Lint::BreakerThreshold, entry.value.span, finding.fix("3 is usual"));
    }

    fn open(&mut self, entry: &Entry) {
        let Some(time) = scalar(&entry.value).and_then(time).filter(|time| !OPEN.contains(time)) else { return };
        let (what, why) = if time < *OPEN.start() {
            ("the breaker is open for less than a second", "it lets calls through before anything can have recovered")
        } else {
            ("the breaker is open for more than five minutes", "a service that has recovered long ago gets no calls")
        };
        let finding = Lint::BreakerThreshold.finding(what).because(why);
        self.say(Lint::BreakerThreshold, entry.value.span, finding.fix("30s is usual"));
    }

    fn life(&mut self, words: &[&str], at: Span) {
        for (place, word) in words.iter().enumerate().filter(|(_, word)| is_flag(word)) {
            let value = word.split_once('=').map(|(_, value)| value).or_else(|| words.get(place + 1).copied());
            if let Some(time) = value.and_then(time) {
                self.lives(time, at);
            }
        }
    }

    fn lives(&mut self, time: Duration, at: Span) {
        if time > LIFE {
            let finding = Lint::CertTtl.finding("a certificate lives longer than 24 hours");
            let why = "whoever steals its key has it as long; policies of many agencies want less than a day";
            self.say(Lint::CertTtl, at, finding.because(why).fix("--validity 24h, or leave it out"));
        }
    }

    fn address(&mut self, node: &Node, text: &str) {
        let Some(address) = addresses(text).next() else { return };
        let finding = Lint::HardCodedIp.finding(&format!("`{address}` stands where a name would do"));
        let why = "the address changes when the service moves, and calls to it are outside of the mesh";
        self.say(
            Lint::HardCodedIp,
            node.span,
            finding.because(why).fix("call the service by its name: http://payment-svc"),
        );
    }
}

fn is_flag(word: &str) -> bool {
    matches!(word.split('=').next(), Some("--validity" | "--cert-ttl"))
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Scalar(text, _) => Some(text),
        _ => None,
    }
}

/// `48h`, `2d`, `30m`, `500ms`.
fn time(text: &str) -> Option<Duration> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at_checked(digits)?;
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(millis).map(Duration::from_millis)
}

/// Addresses of other machines in a text; networks (`10.0.0.0/8`) and longer numbers are none.
fn addresses(text: &str) -> impl Iterator<Item = Ipv4Addr> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let mut rest = text;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let start = rest.find(is_part).unwrap_or(rest.len());
            let word = rest.get(start..)?;
            let end = word.find(|c| !is_part(c)).unwrap_or(word.len());
            let (word, after) = word.split_at_checked(end)?;
            rest = after;
            let is_network = after.strip_prefix('/').is_some_and(|mask| mask.starts_with(|c: char| c.is_ascii_digit()));
            let address = word.parse::<Ipv4Addr>().ok().filter(|_| !is_network || text.contains("://"));
            let is_other = |own: &Ipv4Addr| !own.is_loopback() && !own.is_unspecified() && !own.is_broadcast();
            if let Some(address) = address.filter(is_other) {
                return Some(address);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_machine_is_seen_wherever_it_stands() {
        let first = |text: &str| addresses(text).next().map(|address| address.to_string());
        for text in ["10.12.4.23", "http://10.12.4.23:8080/x", "HOST=10.12.4.23", "curl -s 10.12.4.23", "a,10.12.4.23"]
        {
            assert_eq!(first(text).as_deref(), Some("10.12.4.23"), "{text}");
        }
        for text in
            ["127.0.0.1:80", "0.0.0.0", "10.0.0.0/8", "1.2.3", "1.2.3.4.5", "v1.2.3.4", "payment-svc", "999.1.1.1", ""]
        {
            assert_eq!(first(text), None, "{text}");
        }
    }

    #[test]
    fn a_lint_that_is_suppressed_is_silent_and_the_others_are_not() {
        let text = "services: {a: {env: {FEE: \"http://10.12.4.23/\"}, retry: {methods: [POST]}}}";
        let said = |suppressed: &[Lint]| {
            let found = look(&[Source::new("mesh.yaml", text)], suppressed);
            found.iter().map(|finding| finding.code.0).collect::<Vec<_>>()
        };
        assert_eq!(said(&[]), [2160, 2161]);
        assert_eq!(said(&[Lint::HardCodedIp]), [2161]);
        assert_eq!(said(&Lint::ALL), [0_u16; 0]);
    }
}
