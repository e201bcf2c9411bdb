//! Options of the commands that look at the configuration and change it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{OneService, parse_duration};

/// `hms apply`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Apply {
    /// Route files, objects of the Gateway API, Linkerd, SMI or Istio, and what hms get -o yaml prints; - for stdin
    #[arg(required_unless_present = "more", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// The same, as kubectl takes it
    #[arg(short = 'f', long = "file", value_name = "FILE", num_args = 1..)]
    pub(crate) more: Vec<PathBuf>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hms rollback`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rollback {
    /// The revision, as hms history numbers them [default: the newest that said something else]
    #[arg(long, value_name = "REVISION")]
    pub(crate) to: Option<u64>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hms get`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// Kind: declaration (or service), route, httproute, split, gateway, egress, defaults, stamps, …
    #[arg(value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `hms delete`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Delete {
    /// Kind: declaration (or service), route, split, egress, …
    #[arg(value_name = "KIND", required_unless_present = "files", conflicts_with = "files", requires = "name")]
    pub(crate) kind: Option<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What these files would make
    #[arg(short, long = "file", value_name = "FILE", num_args = 1..)]
    pub(crate) files: Vec<PathBuf>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `hms canary`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Canary {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: CanaryVerb,
}

/// What to do with canaries.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum CanaryVerb {
    /// Give a version more and more of the calls, as long as it is good
    Start(CanaryStart),
    /// Show how it stands, with what every gate says
    Status(OneService),
    /// Stay on this step
    Pause(OneService),
    /// Go on; the step begins anew
    Resume(OneService),
    /// Give the version everything now
    Promote(OneService),
    /// Give everything back now
    Abort(OneService),
}

/// `hms canary start`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CanaryStart {
    /// The service
    #[arg(value_name = "SVC")]
    pub(crate) service: String,
    /// The version
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: String,
    /// One step, in percent of the calls; what comes after it is left to you
    #[arg(long, value_name = "PERCENT", conflicts_with = "steps", value_parser = parse_percent)]
    pub(crate) weight: Option<f64>,
    /// The steps, in percent of the calls; after 100 it is promoted
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', default_value = "1,10,50,100", value_parser = parse_percent)]
    pub(crate) steps: Vec<f64>,
    /// How long it stays on each step
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub(crate) hold: Duration,
    /// Largest share of failed tries, such as 1%
    #[arg(long = "max-5xx", value_name = "PERCENT", value_parser = parse_percent)]
    pub(crate) max_5xx: Option<f64>,
    /// Longest 95th percentile of the time to answer, such as 300ms
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) max_p95: Option<Duration>,
    /// Largest number of failed tries on one step
    #[arg(long, value_name = "N")]
    pub(crate) max_errors: Option<u64>,
    /// Requests of a step that are enough to judge it
    #[arg(long, value_name = "N", default_value_t = hms_traffic::canary::ENOUGH)]
    pub(crate) min_requests: u64,
    /// Stay until it is over
    #[arg(long)]
    pub(crate) wait: bool,
}

/// Reads `1%`, `0.5`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let percent = number.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| format!("`{text}` is no percentage; write 10, 0.5 or 1%"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_0_to_100() {
        assert_eq!(["10", "0.5", "1%", "100", "0"].map(parse_percent), [10.0, 0.5, 1.0, 100.0, 0.0].map(Ok));
        for text in ["", "%", "101", "-1", "nan", "inf", "ten", "1%%"] {
            assert!(parse_percent(text).is_err(), "{text}");
        }
    }
}
