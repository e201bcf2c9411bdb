//! `hms why FROM [TO] METHOD PATH`: what would become of a request, step by step, with the rule that decides. `hms why --trace ID`:
//! what did become of one.

use serde_json::{Value, json};

use super::Context;
use super::services::read;
use crate::cli;
use crate::client::{Client, segment};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Mark, Output, Tone, clean};
use crate::views::{Decision, Items, Why, WhyStep, proxy_name};

/// The name under which the gateway is asked for.
const GATEWAY: &str = "gateway";

pub(super) async fn run(context: Context<'_>, options: &cli::Why) -> Result<Exit, Failure> {
    let client = context.client()?;
    if let Some(trace) = &options.trace {
        return recall(context, &client, trace).await;
    }
    let words: Vec<&str> = options.words.iter().map(String::as_str).collect();
    let (from, to, method, path) = match words.as_slice() {
        [from, to, method, path] => (*from, Some(*to), *method, *path),
        // From outside the routes say who is meant.
        [from @ GATEWAY, method, path] => (*from, None, *method, *path),
        [from, to] => (*from, Some(*to), "GET", "/"),
        _ => {
            return Err(Failure::new(Exit::Usage, 1017, "a request has a caller, a service, a method and a path")
                .fix("hms why hello-svc calc-svc GET /sum/2/3, or hms why gateway GET /sum/2/3"));
        }
    };
    let from = if from == GATEWAY { from.to_owned() } else { context.service(from)? };
    let to = to.map(|to| context.service(to)).transpose()?;
    let mut headers = serde_json::Map::new();
    for line in &options.headers {
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Failure::new(Exit::Usage, 1017, format!("`{}` is no header", clean(line))).fix("-H 'x-user: anna'")
        })?;
        headers.insert(name.trim().to_owned(), Value::from(value.trim()));
    }
    let question =
        json!({"from": from, "to": to, "method": method, "path": path, "headers": headers, "port": options.port});
    let document: Value = client.post("/v1/why", &question).await?;
    let why: Why = read(document.clone())?;
    if !context.output.document("Why", &document) {
        for (number, step) in why.steps.iter().enumerate() {
            show(context.output, number + 1, step);
        }
    }
    Ok(if why.passes { Exit::Ok } else { Exit::Findings })
}

/// `hms why --trace ID`: what did happen.
async fn recall(context: Context<'_>, client: &Client, trace: &str) -> Result<Exit, Failure> {
    let document: Value = client.get(&format!("/v1/requests/{}", segment(trace))).await?;
    let found: Items<Decision> = read(document.clone())?;
    if context.output.document("DecisionList", &document) {
        return Ok(Exit::Ok);
    }
    if found.items.is_empty() {
        return Err(Failure::new(
            Exit::Failed,
            1004,
            format!("no proxy remembers a request of the trace {}", clean(trace)),
        )
        .because("each data thread keeps the last 256 good requests and the last 256 others")
        .fix("hms tap shows requests as they end"));
    }
    for decision in &found.items {
        told(context.output, decision);
    }
    Ok(Exit::Ok)
}

fn told(output: &Output, decision: &Decision) {
    let failed = decision.status == 0 || decision.status >= 400;
    let mark = output.mark(if failed { Mark::Failed } else { Mark::Ok });
    let line = format!(
        "{mark} {} {} {} {} {}  {} {}",
        clean(proxy_name(&decision.proxy)),
        clean(&decision.direction),
        clean(&decision.source),
        output.arrow(),
        clean(&decision.destination),
        decision.status,
        milliseconds(decision.duration_us),
    );
    let filled = |text: &str, shown: String| if text.is_empty() { String::new() } else { shown };
    let rule = filled(&decision.route, format!("  rule {}", clean(&decision.route)));
    let code = filled(&decision.code, format!("  {0} (hms explain {0})", clean(&decision.code)));
    output.line(&format!("{line}  {}{rule}{code}", if decision.mtls { "mTLS" } else { "plain" }));
    for (number, own) in decision.tries.iter().enumerate() {
        let endpoint = if own.endpoint.is_empty() { "an endpoint that is gone" } else { &own.endpoint };
        let skipped = own.endpoints.saturating_sub(own.candidates);
        let among = match skipped {
            0 => format!("of {}", own.endpoints),
            some => format!("of {}, {some} not usable or tried before", own.endpoints),
        };
        let text = format!(
            "    try {} at {} after {}: {} in {}  ({among})",
            number + 1,
            clean(endpoint),
            milliseconds(own.after_us.into()),
            clean(&own.outcome),
            milliseconds(own.took_us.into()),
        );
        output.line(&output.tint(Tone::Dim, &text));
    }
}

/// `1.8ms`.
fn milliseconds(micros: u64) -> String {
    format!("{}.{}ms", micros / 1000, micros % 1000 / 100)
}

fn show(output: &Output, number: usize, step: &WhyStep) {
    let mark = match step.says.as_str() {
        "stop" => output.mark(Mark::Failed),
        "note" => output.mark(Mark::Warning),
        _ => output.mark(Mark::Ok),
    };
    let shown = |part: &Option<String>| part.as_deref().map(|part| format!(" ({})", clean(part))).unwrap_or_default();
    let (text, code, origin) = (clean(&step.text), shown(&step.code), shown(&step.origin));
    output.line(&format!("{number:2} {mark} {:<9} {text}{code}{origin}", step.name));
    if let Some(fix) = &step.fix {
        output.line(&output.tint(Tone::Dim, &format!("     {:<9} {}", "fix", clean(fix))));
    }
}
