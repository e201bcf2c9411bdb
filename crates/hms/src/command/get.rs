//! `hms get [KIND [NAME]]`: what is configured, as it is stored, and how it fares. `hms apply` takes what is printed.

use hms_model::resource::Kind;
use serde_json::{Value, json};

use super::Context;
use super::services::read;
use crate::cli;
use crate::client::segment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Tone, clean_lines, to_yaml};
use crate::views::Items;

/// Characters of a resource in a row.
const SHOWN: usize = 60;

pub(super) async fn run(context: Context<'_>, options: &cli::Get) -> Result<Exit, Failure> {
    let client = context.client()?;
    let (kind, name) = (options.kind.as_deref().map(kind), options.name.as_deref());
    if let (Some(kind), Some(name)) = (&kind, name) {
        let document: Value = client.get(&path(kind, name)).await?;
        let document = renamed(&document);
        if !context.output.document("Resource", &document) {
            let mut whole = json!({"apiVersion": "hms/v1", "kind": "Resource"});
            if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), document) {
                whole.extend(fields);
            }
            context.output.write(&clean_lines(&to_yaml(&whole)));
        }
        return Ok(Exit::Ok);
    }
    let listed = kind.as_deref().map_or_else(|| "/v1/resources".to_owned(), |kind| path(kind, ""));
    let document: Value = client.get(listed.trim_end_matches('/')).await?;
    if !context.output.document("ResourceList", &document) {
        let resources: Items<Value> = read(document)?;
        context.output.table(&table(&resources.items, kind.is_some()));
    }
    Ok(Exit::Ok)
}

/// Where a resource is.
pub(super) fn path(kind: &str, name: &str) -> String {
    format!("/v1/resources/{}/{}", segment(kind), segment(name))
}

/// A kind from what people write: `splits`, `SPLIT`, and `service` for its declaration.
pub(super) fn kind(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let known = |word: &str| Kind::ALL.iter().any(|kind| kind.as_str() == word);
    let singular = text.strip_suffix('s').filter(|word| !known(&text) && (known(word) || *word == "service"));
    match singular.unwrap_or(&text) {
        "service" | "svc" => Kind::Declaration.as_str().to_owned(),
        word => word.to_owned(),
    }
}

/// `kind` is the document's own word; the resource's is under another there.
fn renamed(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(fields) = document.as_object_mut()
        && let Some(kind) = fields.shift_remove("kind")
    {
        fields.insert("resource".to_owned(), kind);
    }
    document
}

fn table(resources: &[Value], of_one_kind: bool) -> Table {
    let mut table = Table::new(if of_one_kind { &["NAME", "SAYS", "STATUS"] } else { &["KIND", "NAME"] });
    for resource in resources {
        let text = |member: &str| resource.get(member).and_then(Value::as_str).unwrap_or_default();
        let name = match text("namespace") {
            "mesh" | hms_model::names::DEFAULT_NAMESPACE => text("name").to_owned(),
            namespace => format!("{}.{namespace}", text("name")),
        };
        table.row(match resource.get("spec") {
            Some(spec) if of_one_kind => {
                let (status, tone) = status(resource);
                let says = short(&says(text("kind"), spec));
                vec![Cell::text(name), Cell::text(says), Cell::text(status).tone(tone)]
            }
            _ => vec![Cell::text(text("kind")), Cell::text(name)],
        });
    }
    table
}

/// What a resource says, in a few words.
fn says(kind: &str, spec: &Value) -> String {
    let items = |list: &str| spec.get(list).and_then(Value::as_array).into_iter().flatten();
    let text = |value: &Value, member: &str| value.get(member).and_then(Value::as_str).map(str::to_owned);
    match kind {
        "split" => {
            let weights = items("shares").filter_map(|share| Some(share.get("weight")?.to_string()));
            weights.collect::<Vec<_>>().join("/")
        }
        "route" => items("rules").filter_map(|rule| text(rule, "matches")).collect::<Vec<_>>().join(", "),
        "httproute" => {
            let parent = |parent: &Value| text(parent, "service").unwrap_or_else(|| "gateway".to_owned());
            let parents: Vec<String> = items("parents").map(parent).collect();
            let rules = items("rules").count();
            format!("{}: {rules} rule{}", parents.join(", "), if rules == 1 { "" } else { "s" })
        }
        _ => spec.to_string(),
    }
}

/// The first condition that does not hold, or that all do, and with how many proxies it is.
fn status(resource: &Value) -> (String, Tone) {
    let Some(status) = resource.get("status") else { return (String::new(), Tone::Plain) };
    let conditions: Vec<&Value> = status.get("conditions").and_then(Value::as_array).into_iter().flatten().collect();
    let fault = conditions.iter().find(|condition| condition["status"] != "True");
    let count = |member: &str| status.get(member).and_then(Value::as_u64).unwrap_or_default();
    let proxies = format!("{}/{}", count("programmed"), count("proxies"));
    match fault.and_then(|condition| condition["reason"].as_str()) {
        None => (format!("PROGRAMMED {proxies}"), Tone::Good),
        Some("Pending") => (format!("PENDING {proxies}"), Tone::Warn),
        Some(reason) => (format!("{reason} {proxies}"), Tone::Bad),
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_understood_as_people_write_them() {
        for (written, meant) in [
            ("splits", "split"),
            ("Route", "route"),
            ("service", "declaration"),
            ("services", "declaration"),
            ("defaults", "defaults"),
            ("egress", "egress"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(kind(written), meant);
        }
    }

    fn resource(kind: &str, spec: &Value, status: &Value) -> Value {
        json!({"kind": kind, "namespace": "default", "name": "pay-svc", "spec": spec, "status": status})
    }

    #[test]
    fn a_row_says_what_a_resource_says_and_how_it_fares() {
        let condition = |about: &str, fault: Option<&str>| {
            let status = if fault.is_none() { "True" } else { "False" };
            json!({"type": about, "status": status, "reason": fault.unwrap_or(about), "message": ""})
        };
        let status = |accepted, resolved, programmed, have: u32| {
            let conditions = [("Accepted", accepted), ("ResolvedRefs", resolved), ("Programmed", programmed)];
            let conditions = conditions.map(|(about, fault)| condition(about, fault));
            json!({"proxies": 5, "programmed": have, "conditions": conditions})
        };
        let shares = json!({"service": "pay-svc", "shares": [{"weight": 90}, {"weight": 10}]});
        let route = json!({"parents": [{"service": "pay-svc"}, {}], "rules": [{}]});
        let rows = [
            resource("split", &shares, &status(None, None, None, 5)),
            resource("split", &shares, &status(None, None, Some("Pending"), 3)),
            resource("split", &shares, &status(None, Some("BackendNotFound"), None, 5)),
            resource("httproute", &route, &status(None, None, Some("Invalid"), 4)),
            resource("route", &json!({"rules": [{"matches": "GET /pay"}]}), &status(None, None, None, 5)),
        ];
        insta::assert_snapshot!(table(&rows, true).render(crate::output::Look::PLAIN), @r"
        NAME     SAYS                      STATUS
        pay-svc  90/10                     PROGRAMMED 5/5
        pay-svc  90/10                     PENDING 3/5
        pay-svc  90/10                     BackendNotFound 5/5
        pay-svc  pay-svc, gateway: 1 rule  Invalid 4/5
        pay-svc  GET /pay                  PROGRAMMED 5/5
        ");
    }
}
