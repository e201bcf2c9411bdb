//! Linkerd's annotations of a `Service` of Kubernetes: how its callers deal with it.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::http_route::TimeoutOverlay;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::{Outlier, Timeouts};
use hms_model::port::{AppProtocol, MOST_PORTS, Port};
use hms_model::resource::Overlay;

use super::annotations;
use crate::document::{Value, short};
use crate::gateway_api::time;
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Reader, Table};

/// Failures in a row after which Linkerd stops calling an instance, and for how long at first, unless it is told otherwise.
const FAILURES: u32 = 7;
const PENALTY: Duration = Duration::from_secs(1);
const JITTER_PERCENT: u8 = 50;

/// What the annotations of a service come to.
#[derive(Debug)]
pub(crate) struct Annotated {
    pub(crate) service: ServiceName,
    pub(crate) overlay: Overlay,
    /// Its ports, where some of them are not read.
    pub(crate) ports: Vec<Port>,
}

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<Annotated> {
    let service = object.route_name(reader)?;
    let all = object.annotations(reader);
    let is_linkerds =
        |field: &&Field<'_>| field.name.split('/').next().is_some_and(|group| group.ends_with("linkerd.io"));
    let ours: Vec<&Field<'_>> = all.iter().filter(is_linkerds).collect();
    if ours.is_empty() {
        let finding = Finding::warning(2107, format!("nothing is read of the Service `{}`", short(object.name)));
        let why = "instances register themselves; of a Service the annotations of Linkerd are read";
        reader.report(object.at, finding.because(why).fix("leave it out"));
        return None;
    }
    let (retry, times) = annotations::read(reader, object);
    let timeouts = (times != TimeoutOverlay::default()).then(|| times.over(Timeouts::default()));
    let outlier = accrual(reader, &ours);
    let mut ports = Vec::new();
    for field in ours {
        match field.name {
            "config.linkerd.io/opaque-ports" => ports = opaque(reader, object, field),
            name if name.starts_with("balancer.linkerd.io/failure-accrual") => {}
            name if ["retry.linkerd.io/", "timeout.linkerd.io/"].iter().any(|group| name.starts_with(group)) => {}
            name => {
                let why = "of the annotations of a Service those for retries, timeouts, failures in a row and opaque ports are carried";
                not_carried(reader, field.key, &format!("`{}`", short(name)), why);
            }
        }
    }
    if let (true, Some(field)) = (ports.is_empty(), object.top.field("spec")) {
        not_carried(reader, field.key, "`spec` of a Service", "instances register themselves, with their ports");
    }
    Some(Annotated { service, overlay: Overlay { retry, timeouts, outlier, ..Overlay::default() }, ports })
}

/// `balancer.linkerd.io/failure-accrual…`.
fn accrual(reader: &mut Reader<'_>, all: &[&Field<'_>]) -> Option<Outlier> {
    const GROUP: &str = "balancer.linkerd.io/failure-accrual";
    let mut mode = None;
    let mut others = Vec::new();
    let mut outlier = Outlier {
        consecutive: FAILURES,
        open_for: PENALTY,
        jitter_percent: JITTER_PERCENT,
        rate_percent: None,
        ..Outlier::default()
    };
    for field in all {
        let Some(name) = field.name.strip_prefix(GROUP) else { continue };
        match name {
            "" => mode = Some(field),
            "-consecutive-max-failures" => {
                outlier.consecutive = annotations::number(reader, field, 1..=1000).unwrap_or(FAILURES);
            }
            "-consecutive-min-penalty" => {
                let time = time::duration(reader, field).filter(|time| !time.is_zero());
                outlier.open_for = time.unwrap_or(PENALTY).max(Duration::from_millis(100));
            }
            "-consecutive-jitter-ratio" => outlier.jitter_percent = ratio(reader, field).unwrap_or(JITTER_PERCENT),
            "-consecutive-max-penalty" => {
                let why = "an ejection lasts equally long each time";
                not_carried(reader, field.key, "the longest penalty", why);
            }
            _ => {
                let why = "an instance is ejected after failures in a row, or when half of its answers are 5xx";
                not_carried(reader, field.key, &format!("`{}`", short(field.name)), why);
            }
        }
        if !name.is_empty() {
            others.push(field);
        }
    }
    let Some(mode) = mode else {
        if let Some(first) = others.first() {
            let finding = Finding::warning(2107, format!("`{}` has no effect alone", short(first.name)));
            reader.report(first.key, finding.fix(format!("add {GROUP}: consecutive")));
        }
        return None;
    };
    reader.word(mode, &[("consecutive", ())])?;
    Some(outlier)
}

/// `0.5` as per cent.
fn ratio(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u8> {
    const WANTS: &str = "a ratio of 0 to 1";
    let text = reader.text(field, WANTS)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| (1..=6).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let percent = (digits(whole) && digits(fraction) && whole.len() == 1)
        .then(|| format!("{whole}{fraction:0<2}").get(..3).and_then(|digits| digits.parse::<u8>().ok()))
        .flatten()
        .filter(|percent| *percent <= 100);
    if percent.is_none() {
        reader.bad(field, WANTS, "it is a number with a decimal point, at most 1", "write for example 0.5");
    }
    percent
}

/// The ports of a service, of which some are not read.
fn opaque(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>) -> Vec<Port> {
    let Some(text) = reader.text(field, "ports such as 3306,4444-4450") else { return Vec::new() };
    let mut ranges = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        match (from.parse::<u16>(), to.parse::<u16>()) {
            (Ok(from), Ok(to)) if from >= 1 && from <= to => ranges.push(from..=to),
            _ => {
                let why = "they are numbers and ranges of them";
                reader.bad(field, "ports such as 3306,4444-4450", why, "write for example 3306");
                return Vec::new();
            }
        }
    }
    let spec = object.top.field("spec").cloned().and_then(|field| reader.open_table(field.node, &field.path));
    let Some(spec) = spec.filter(|spec| spec.field("ports").is_some()) else {
        let why = "a service whose ports are named has those alone";
        no_equal(
            reader,
            field.key,
            "opaque ports of a service whose ports are not said",
            why,
            "spec: {ports: [{port: 3306}]}",
        );
        return Vec::new();
    };
    let mut ports: Vec<Port> = Vec::new();
    for item in items(reader, &spec, "ports", MOST_PORTS, "a list such as [{port: 3306}]") {
        // What else stands there is the cluster's.
        let Some(table) = reader.open_table(item.node, &item.path) else { continue };
        let Some(mut port) = port(reader, &table) else { continue };
        if ports.iter().any(|own| own.number == port.number) {
            let finding = Finding::error(2110, format!("port {} stands twice", port.number));
            reader.report(item.node.span, finding.fix("keep one of the two"));
            continue;
        }
        if ranges.iter().any(|range| range.contains(&port.number)) {
            port.protocol = AppProtocol::Tcp;
        }
        ports.push(port);
    }
    if !ports.iter().any(|port| port.protocol == AppProtocol::Tcp) && !reader.has_errors(object.at.file) {
        let finding = Finding::warning(2107, "no port of the service is among the opaque ones");
        reader.report(field.key, finding.fix("name one of its ports"));
    }
    ports
}

/// The numbers of the ports that a `Service` has.
pub(crate) fn ports(object: &Object<'_>) -> Vec<u16> {
    // Their mistakes are found when the object is read.
    let mut scratch = Reader::default();
    let spec = object.top.field("spec").cloned();
    let Some(spec) = spec.and_then(|field| scratch.open_table(field.node, &field.path)) else { return Vec::new() };
    let list = items(&mut scratch, &spec, "ports", MOST_PORTS, "a list of ports");
    let tables: Vec<Table<'_>> = list.iter().filter_map(|item| scratch.open_table(item.node, &item.path)).collect();
    tables.iter().filter_map(|table| scratch.port(table.field("port")?)).collect()
}

/// A port of a `Service`. One that is not TCP has no proxy.
fn port(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Port> {
    if let Some(field) = table.field("protocol").filter(|field| !crate::gateway_api::is_word(Some(field), "TCP")) {
        not_carried(reader, field.key, "a port that is not TCP's", "the mesh carries TCP");
        return None;
    }
    let number = reader.need(table, "port", "port: 3306").cloned().and_then(|field| reader.port(&field));
    let name = table.field("name").cloned();
    let name = name.and_then(|field| {
        let text = reader.line(&field, "the name of a port", 63)?;
        if Label::new(text).is_err() {
            reader.bad(&field, "the name of a port", "it has letters a-z, digits and -", "write for example http");
        }
        Some(text)
    });
    let name = name.unwrap_or_default();
    let app = table.field("appProtocol").cloned();
    let app = app.and_then(|field| reader.line(&field, "a protocol", 63)).and_then(AppProtocol::parse);
    let target = table.field("targetPort").cloned().and_then(|field| match &field.node.value {
        Value::Scalar(text, _) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            not_carried(reader, field.key, "the name of an application's port", "it is meant by its number");
            None
        }
        _ => reader.port(&field),
    });
    let number = number?;
    let protocol = app.unwrap_or_else(|| AppProtocol::of_port_name(name));
    Some(Port { number, name: name.to_owned(), protocol, target: target.filter(|target| *target != number) })
}
