//! `hms canary`: a new version gets more and more of the calls, as long as it is good.

use hms_traffic::canary::Phase;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::Context;
use super::services::read;
use super::taken::{self, Made};
use crate::cli::{CanaryStart, CanaryVerb};
use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Output, Tone, clean, confirm};

/// How often one that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// A canary of the REST API.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Canary {
    service: String,
    to: String,
    phase: String,
    why: String,
    waiting: Option<String>,
    step: u64,
    steps: Vec<f64>,
    versions: Vec<Version>,
    gates: Vec<Gate>,
    revision: u64,
}

/// Who gets a part of the calls.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Version {
    service: String,
    #[serde(rename = "version")]
    name: Option<String>,
    percent: f64,
    endpoints: u64,
    requests: u64,
    failures: u64,
    p95_ms: Option<f64>,
}

/// What must hold.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Gate {
    #[serde(rename = "gate")]
    name: String,
    verdict: String,
    allowed: String,
    seen: String,
}

impl Canary {
    fn is(&self, phase: Phase) -> bool {
        self.phase == phase.as_str()
    }

    /// Whether nothing more happens by itself.
    fn is_settled(&self) -> bool {
        [Phase::Passed, Phase::Promoted, Phase::Aborted, Phase::Stopped].into_iter().any(|phase| self.is(phase))
    }

    /// One line that says it all.
    fn headline(&self) -> String {
        let head = format!("{}: canary of {} is {}", clean(&self.service), clean(&self.to), clean(&self.phase));
        match &self.waiting {
            Some(waiting) => {
                format!("{head}, step {} of {}, waits for: {}", self.step, self.steps.len(), clean(waiting))
            }
            None => format!("{head}: {}", clean(&self.why)),
        }
    }
}

pub(super) async fn run(context: Context<'_>, verb: &CanaryVerb) -> Result<Exit, Failure> {
    let client = context.client()?;
    match verb {
        CanaryVerb::Start(options) => start(context, &client, options).await,
        CanaryVerb::Status(options) => {
            let document: Value = client.get(&path(&context.service(&options.service)?)).await?;
            let canary = show(context, &document)?;
            Ok(match () {
                () if canary.is(Phase::Aborted) => Exit::Findings,
                () if canary.is(Phase::Stopped) => Exit::Conflict,
                () => Exit::Ok,
            })
        }
        CanaryVerb::Pause(options) => order(context, &client, &options.service, "pause").await,
        CanaryVerb::Resume(options) => order(context, &client, &options.service, "resume").await,
        CanaryVerb::Promote(options) => order(context, &client, &options.service, "promote").await,
        CanaryVerb::Abort(options) => order(context, &client, &options.service, "abort").await,
    }
}

fn path(service: &str) -> String {
    format!("/v1/services/{}/canary", segment(service))
}

async fn order(context: Context<'_>, client: &Client, service: &str, order: &str) -> Result<Exit, Failure> {
    let service = context.service(service)?;
    let begun = Instant::now();
    let document: Value = client.post(&path(&service), &json!({ "order": order })).await?;
    let canary = show(context, &document)?;
    if matches!(order, "pause" | "resume") {
        return Ok(Exit::Ok);
    }
    taken::everywhere(context, client, Made::to(&service, canary.revision, begun)).await
}

async fn start(context: Context<'_>, client: &Client, options: &CanaryStart) -> Result<Exit, Failure> {
    let service = context.service(&options.service)?;
    let steps = options.weight.map_or_else(|| options.steps.clone(), |weight| vec![weight]);
    let words: Vec<String> = steps.iter().map(|step| format!("{step} %")).collect();
    let question = format!(
        "give {} of {service} {} of the calls, each step for {:?}?",
        clean(&options.to),
        words.join(", then "),
        options.hold
    );
    if !confirm(&question, context.settings.yes)? {
        context.output.note("nothing was changed");
        return Ok(Exit::Failed);
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let asked = json!({
        "to": options.to,
        "steps": steps,
        "hold_ms": millis(options.hold),
        "max_5xx_percent": options.max_5xx,
        "max_p95_ms": options.max_p95.map(millis),
        "max_errors": options.max_errors,
        "min_requests": options.min_requests,
    });
    let begun = Instant::now();
    let document: Value = client.put(&path(&service), &asked).await?;
    if options.wait {
        let canary: Canary = read(document)?;
        context.output.note(&canary.headline());
        taken::everywhere(context, client, Made::to(&service, canary.revision, begun)).await?;
        return follow(context, client, &service, canary).await;
    }
    let canary = show(context, &document)?;
    taken::everywhere(context, client, Made::to(&service, canary.revision, begun)).await
}

/// Stays until nothing more happens by itself, and says each change.
async fn follow(context: Context<'_>, client: &Client, service: &str, mut before: Canary) -> Result<Exit, Failure> {
    loop {
        tokio::time::sleep(LOOK).await;
        let document: Value = client.get(&path(service)).await?;
        let canary: Canary = read(document.clone())?;
        if canary.is_settled() {
            let canary = show(context, &document)?;
            return Ok(match () {
                () if canary.is(Phase::Aborted) => Exit::Failed,
                () if canary.is(Phase::Stopped) => Exit::Conflict,
                () => Exit::Ok,
            });
        }
        if (canary.step, &canary.phase) != (before.step, &before.phase) {
            context.output.note(&canary.headline());
        }
        before = canary;
    }
}

/// Prints a canary.
fn show(context: Context<'_>, document: &Value) -> Result<Canary, Failure> {
    let canary: Canary = read(document.clone())?;
    if context.output.document("Canary", document) {
        return Ok(canary);
    }
    let mark = match () {
        () if canary.is(Phase::Aborted) => Mark::Failed,
        () if canary.is(Phase::Stopped) || canary.is(Phase::Paused) => Mark::Warning,
        () => Mark::Ok,
    };
    context.output.line(&format!("{} {}", context.output.mark(mark), canary.headline()));
    if !canary.versions.is_empty() {
        context.output.table(&versions(context.output, &canary));
    }
    if !canary.gates.is_empty() {
        context.output.table(&gates(&canary.gates));
    }
    Ok(canary)
}

fn versions(output: &Output, canary: &Canary) -> Table {
    let mut table = Table::new(&["VERSION", "SHARE", "", "INSTANCES", "REQUESTS", "FAILED", "P95"]);
    for own in &canary.versions {
        let name = match &own.name {
            Some(version) if own.service == canary.service => version.clone(),
            Some(version) => format!("{} {version}", own.service),
            None => own.service.clone(),
        };
        table.row(vec![
            Cell::text(name),
            Cell::text(output.bar(own.percent / 100.0)),
            Cell::number(format!("{}%", super::shift::percent(own.percent))),
            Cell::number(own.endpoints.to_string()),
            Cell::number(own.requests.to_string()),
            Cell::number(own.failures.to_string()),
            Cell::number(own.p95_ms.map_or_else(|| "–".to_owned(), |p95| format!("{p95:.1} ms"))),
        ]);
    }
    table
}

fn gates(gates: &[Gate]) -> Table {
    let mut table = Table::new(&["GATE", "VERDICT", "SEEN", "ALLOWED"]);
    for gate in gates {
        let (word, tone) = match gate.verdict.as_str() {
            "holds" => ("holds", Tone::Good),
            "broken" => ("broken", Tone::Bad),
            _ => ("too few requests", Tone::Warn),
        };
        table.row(vec![
            Cell::text(&gate.name),
            Cell::text(word).tone(tone),
            Cell::text(&gate.seen),
            Cell::text(&gate.allowed),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Look;

    fn canary(phase: &str, waiting: Option<&str>) -> Canary {
        read(json!({
            "service": "pay-svc", "to": "v2", "phase": phase, "why": "2 of 100 tries failed, 1 % are allowed",
            "waiting": waiting, "step": 2, "steps": [1.0, 10.0, 100.0],
            "versions": [
                {"service": "pay-svc", "version": "v1", "percent": 90.0, "endpoints": 3, "requests": 1800, "p95_ms": 4.83},
                {"service": "pay-svc", "version": "v2", "percent": 10.0, "endpoints": 1, "requests": 12, "failures": 1}],
            "gates": [
                {"gate": "max_5xx", "verdict": "too_few", "allowed": "1 %", "seen": "8.33 % of 12"},
                {"gate": "instances", "verdict": "holds", "allowed": "called", "seen": "called"}],
        }))
        .unwrap()
    }

    #[test]
    fn a_canary_shows_a_bar_per_version_and_a_verdict_per_gate() {
        let canary = canary("running", Some("42 s of the step are left"));
        assert_eq!(
            canary.headline(),
            "pay-svc: canary of v2 is running, step 2 of 3, waits for: 42 s of the step are left"
        );
        let text =
            versions(&Output::for_tests(), &canary).render(Look::PLAIN) + &gates(&canary.gates).render(Look::PLAIN);
        insta::assert_snapshot!(text, @r"
        VERSION  SHARE                      INSTANCES  REQUESTS  FAILED  P95
        v1       ██████████████████··  90%          3      1800       0  4.8 ms
        v2       ██··················  10%          1        12       1       –
        GATE       VERDICT           SEEN          ALLOWED
        max_5xx    too few requests  8.33 % of 12  1 %
        instances  holds             called        called
        ");
    }

    #[test]
    fn one_that_is_over_says_why() {
        let over = canary("aborted", None);
        assert!(over.is_settled() && !canary("paused", None).is_settled());
        assert_eq!(over.headline(), "pay-svc: canary of v2 is aborted: 2 of 100 tries failed, 1 % are allowed");
    }
}
