//! `probe:`, how an application is asked whether it is well.

use std::ops::RangeInclusive;
use std::time::Duration;

use hms_model::message::CanonicalPath;
use hms_model::policy::Probe;
use hms_model::policy::probe::{MOST_STATUSES, Question, is_grpc_service};

use crate::document::Value;
use crate::mesh_yaml::HealthFile;
use crate::read::{Field, Keys, Reader, Table};

const KEYS: Keys = Keys::new(&["http", "grpc", "tcp", "status", "interval", "timeout", "healthy", "unhealthy"]);
const WANTS: &str = "tcp, or keys such as {http: /health}";

/// What `health: {path, every}` means where the defaults have a probe, which would hold otherwise.
pub(crate) fn of_health(health: &HealthFile) -> Option<Probe> {
    let question = match &health.path {
        Some(path) => Question::Http { path: CanonicalPath::parse(path).ok()?, statuses: Vec::new() },
        None => Question::Tcp,
    };
    Some(Probe { question, interval: health.every, ..Probe::default() })
}

/// `tcp`, or keys that change `base`; what is not named stays.
pub(crate) fn probe(reader: &mut Reader<'_>, field: &Field<'_>, base: Option<&Probe>) -> Option<Probe> {
    let base = base.cloned().unwrap_or_default();
    if let Value::Scalar(text, _) = &field.node.value {
        if text == "tcp" {
            return Some(Probe { question: Question::Tcp, ..base });
        }
        reader.bad(field, WANTS, "", "write tcp, or for example {http: /health}");
        return None;
    }
    let table = reader.table(field.node, &field.path, KEYS)?;
    let mut probe = Probe { question: question(reader, field, &table, &base.question)?, ..base };
    let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
    if let Some(interval) = table.field("interval").and_then(|field| reader.duration(field, bounds)) {
        probe.interval = interval;
    }
    let bounds = Duration::from_millis(10)..=Duration::from_mins(1);
    if let Some(timeout) = table.field("timeout").and_then(|field| reader.duration(field, bounds)) {
        probe.timeout = timeout;
    }
    for (name, place) in [("healthy", &mut probe.healthy), ("unhealthy", &mut probe.unhealthy)] {
        let field = table.field(name);
        *place = field.and_then(|field| reader.whole(field, "a number of answers", 1..=100)).unwrap_or(*place);
    }
    Some(probe)
}

fn question(reader: &mut Reader<'_>, at: &Field<'_>, table: &Table<'_>, base: &Question) -> Option<Question> {
    let asked = |name: &str| table.field(name).cloned();
    let question = match (asked("http"), asked("grpc"), asked("tcp")) {
        (None, None, None) => base.clone(),
        (Some(field), None, None) => http(reader, &field, base)?,
        (None, Some(field), None) => grpc(reader, &field)?,
        (None, None, Some(field)) if reader.boolean(&field)? => Question::Tcp,
        (None, None, Some(field)) => {
            reader.bad(&field, "true", "", "remove it, or ask for http or grpc");
            return None;
        }
        _ => {
            reader.bad(at, "one of http, grpc and tcp", "an application is asked one thing", "keep one of them");
            return None;
        }
    };
    let Some(field) = asked("status") else { return Some(question) };
    let Question::Http { path, .. } = question else {
        reader.bad(
            &field,
            "http: beside it",
            "only an answer over HTTP has a status",
            "remove it, or write http: /health",
        );
        return None;
    };
    let items = if let Value::List(_) = &field.node.value {
        reader.list(&field, "a list of statuses")?
    } else {
        vec![field.clone()]
    };
    if items.len() > MOST_STATUSES {
        reader.bad(&field, "a few statuses", "it has at most 16 entries", "write ranges such as 200-299");
        return None;
    }
    let statuses = items.iter().map(|item| statuses(reader, item)).collect::<Vec<_>>();
    Some(Question::Http { path, statuses: statuses.into_iter().collect::<Option<_>>()? })
}

fn http(reader: &mut Reader<'_>, field: &Field<'_>, base: &Question) -> Option<Question> {
    const PATH: &str = "a path such as /health";
    let text = reader.line(field, PATH, 1024)?;
    match CanonicalPath::parse(text) {
        Ok(path) if text.starts_with('/') && !text.contains('?') => {
            let statuses = if let Question::Http { statuses, .. } = base { statuses.clone() } else { Vec::new() };
            Some(Question::Http { path, statuses })
        }
        _ => {
            reader.bad(field, PATH, "it starts with / and has no query", "write for example /health");
            None
        }
    }
}

fn grpc(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Question> {
    const SERVICE: &str = "the name of a gRPC service, or \"\" for all of the application";
    let text = reader.text(field, SERVICE)?;
    if !is_grpc_service(text) {
        let why = "it has up to 120 letters, digits, dots and _";
        reader.bad(field, SERVICE, why, "write for example pay.Payments");
        return None;
    }
    Some(Question::Grpc { service: text.to_owned() })
}

/// `204`, or `200-299`.
fn statuses(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RangeInclusive<u16>> {
    const STATUS: &str = "a status such as 204, or 200-299";
    let text = reader.text(field, STATUS)?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| digits && (100..=599).contains(number))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => {
            reader.bad(field, STATUS, "it lies between 100 and 599", "write for example 200-299");
            None
        }
    }
}
