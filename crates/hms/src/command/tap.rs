//! `hms tap`: requests live, `12:00:01.204 gateway→calc-svc GET /sum/2/3 200 1.8ms mTLS try1 trace 7f23ab`.

use serde_json::Value;

use super::Context;
use super::services::read;
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::supervise::Interrupts;
use crate::output::{Output, Tone, clean};
use crate::views::TapEvent;

pub(super) async fn run(context: Context<'_>, options: &cli::Tap) -> Result<Exit, Failure> {
    let filter = Filter::of(context, options)?;
    let target = match &options.service {
        Some(service) => crate::client::segment(&context.service(service)?),
        None => "-".to_owned(),
    };
    let mut events = context.client()?.stream(&format!("/v1/tap/{target}")).await?;
    let mut interrupts = Interrupts::take()?;
    context.output.detail("tapping; Ctrl-C ends");
    let mut shown: u64 = 0;
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            exit = interrupts.next() => return Ok(exit),
        };
        let Some(value) = event else {
            return Err(Failure::new(Exit::Unreachable, 1001, "the tap ended")
                .because("the control plane closed the stream")
                .fix("hms status"));
        };
        let Ok(event) = read::<TapEvent>(value.clone()) else { continue };
        if !filter.takes(&event) {
            continue;
        }
        print(context.output, &value, &event);
        shown = shown.saturating_add(1);
        if context.output.is_closed() || options.max.is_some_and(|max| shown >= max) {
            return Ok(Exit::Ok);
        }
    }
}

fn print(output: &Output, value: &Value, event: &TapEvent) {
    if output.is_for_people() {
        output.line(&line(output, event));
    } else {
        output.stream_document(value);
    }
}

/// One event on one line.
fn line(output: &Output, event: &TapEvent) -> String {
    let time = jiff::Timestamp::from_microsecond(event.time_us)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M:%S%.3f").to_string())
        .unwrap_or_default();
    let tone = match event.status {
        500.. => Tone::Bad,
        400..500 => Tone::Warn,
        _ => Tone::Good,
    };
    let source = if event.source.is_empty() { "outside" } else { &event.source };
    // A connection that nobody reads has neither path nor status.
    let (what, outcome) = match event.method.as_str() {
        "TCP" => (&event.authority, format!("{} B sent {} B received", event.bytes_sent, event.bytes_received)),
        _ => (&event.path, output.tint(tone, &event.status.to_string())),
    };
    let mut words = vec![
        output.tint(Tone::Dim, &time),
        clean(&format!("{source}{}{}", output.arrow(), event.destination)),
        clean(&event.method),
        clean(what),
        outcome,
        duration(event.duration_us),
        hop(output, event),
        format!("try{}", event.attempt.max(1)),
    ];
    if !event.code.is_empty() {
        words.push(output.tint(Tone::Bad, &clean(&event.code)));
    }
    if !event.trace_id.is_empty() {
        let short: String = event.trace_id.chars().take(if output.is_wide() { 32 } else { 6 }).collect();
        words.push(format!("trace {}", clean(&short)));
    }
    words.join(" ")
}

/// How the hop was made. A refusal of the calling proxy made none.
fn hop(output: &Output, event: &TapEvent) -> String {
    match (event.mtls, event.code.is_empty()) {
        (true, _) => "mTLS".to_owned(),
        (false, true) => output.tint(Tone::Warn, "plain"),
        (false, false) => output.tint(Tone::Dim, "refused"),
    }
}

/// Microseconds as people read them.
fn duration(microseconds: u64) -> String {
    match microseconds {
        0..1000 => format!("{microseconds}µs"),
        // The float is for display only.
        1000..1_000_000 => format!("{}.{}ms", microseconds / 1000, microseconds % 1000 / 100),
        _ => format!("{}.{}s", microseconds / 1_000_000, microseconds % 1_000_000 / 100_000),
    }
}

/// Which events are shown.
#[derive(Debug, Default)]
struct Filter {
    from: Option<String>,
    method: Option<String>,
    path: Option<String>,
    status: Option<(u16, u16)>,
    errors: bool,
    trace: Option<String>,
}

impl Filter {
    fn of(context: Context<'_>, options: &cli::Tap) -> Result<Self, Failure> {
        let bad = |what: &str, fix: &str| Failure::new(Exit::Usage, 1019, what.to_owned()).fix(fix.to_owned());
        let status = options
            .status
            .as_deref()
            .map(|text| statuses(text).ok_or_else(|| bad("that is no status", "--status 404, or --status 5xx")));
        let trace = options.trace.as_deref().map(str::to_ascii_lowercase);
        if trace.as_ref().is_some_and(|id| id.len() < 6 || !id.chars().all(|c| c.is_ascii_hexdigit())) {
            return Err(bad("a trace is named by at least 6 hex digits", "--trace 7f23ab"));
        }
        Ok(Self {
            from: options.from.as_deref().map(|from| context.service(from)).transpose()?,
            method: options.method.as_deref().map(str::to_ascii_uppercase),
            path: options.path.clone(),
            status: status.transpose()?,
            errors: options.errors,
            trace,
        })
    }

    fn takes(&self, event: &TapEvent) -> bool {
        let path = event.path.split('?').next().unwrap_or_default();
        self.from.as_ref().is_none_or(|from| *from == event.source)
            && self.method.as_ref().is_none_or(|method| *method == event.method)
            && self.path.as_ref().is_none_or(|pattern| match pattern.strip_suffix('*') {
                Some(prefix) => path.starts_with(prefix),
                None => path == pattern,
            })
            && self.status.is_none_or(|(low, high)| (low..=high).contains(&event.status))
            && (!self.errors || event.status >= 400 || !event.code.is_empty())
            && self.trace.as_ref().is_none_or(|id| event.trace_id.to_ascii_lowercase().starts_with(id))
    }
}

/// `404` or `5xx` as a range.
fn statuses(text: &str) -> Option<(u16, u16)> {
    if let Some(class) = text.strip_suffix("xx") {
        let class: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
        return Some((class * 100, class * 100 + 99));
    }
    text.parse().ok().filter(|status| (100..600).contains(status)).map(|status| (status, status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> TapEvent {
        TapEvent {
            time_us: 1_796_990_401_204_000,
            source: "gateway".into(),
            destination: "calc-svc".into(),
            method: "GET".into(),
            path: "/sum/2/3?x=\u{1b}[31m".into(),
            status: 200,
            duration_us: 1_840,
            mtls: true,
            attempt: 1,
            trace_id: "7f23abcdef".into(),
            ..TapEvent::default()
        }
    }

    #[test]
    fn a_line_says_everything_and_harms_nothing() {
        let output = Output::for_tests();
        let line = line(&output, &event());
        let (_, rest) = line.split_once(' ').unwrap();
        insta::assert_snapshot!(rest, @r"
        gateway→calc-svc GET /sum/2/3?x=\u{1b}[31m 200 1.8ms mTLS try1 trace 7f23ab
        ");
        assert_eq!([duration(400), duration(1_500_000)], ["400µs", "1.5s"]);
        let connection = TapEvent {
            method: "TCP".into(),
            authority: "db:5432".into(),
            status: 0,
            bytes_sent: 2048,
            bytes_received: 12,
            trace_id: String::new(),
            ..event()
        };
        let line = super::line(&output, &connection);
        assert!(line.ends_with("gateway→calc-svc TCP db:5432 2048 B sent 12 B received 1.8ms mTLS try1"), "{line}");
    }

    #[test]
    fn filters_combine() {
        let takes = |filter: Filter| filter.takes(&event());
        assert!(takes(Filter::default()));
        assert!(takes(Filter { path: Some("/sum/*".into()), trace: Some("7f23ab".into()), ..Filter::default() }));
        assert!(!takes(Filter { path: Some("/sum".into()), ..Filter::default() }));
        assert!(!takes(Filter { errors: true, ..Filter::default() }));
        assert!(!takes(Filter { method: Some("POST".into()), ..Filter::default() }));
        assert_eq!(statuses("5xx"), Some((500, 599)));
        assert_eq!(
            (statuses("404"), statuses("99"), statuses("6xx"), statuses("x")),
            (Some((404, 404)), None, None, None)
        );
    }
}
