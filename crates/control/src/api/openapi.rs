//! The `OpenAPI` 3.1 document, made from the table of operations and the shapes of the types they name.

use std::collections::BTreeMap;

use http::StatusCode;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::problem;
use super::table::{Answer, Operation, Shape};

/// What stands for each parameter of a path.
const PATH_PARAMETERS: [(&str, &str, &str); 2] = [
    ("service", "The service: `calc-svc`, or `calc-svc.NAMESPACE` outside `default`.", "^[A-Za-z0-9.-]{1,253}$"),
    ("id", "The endpoint's id within its service.", "^[A-Za-z0-9._:-]{1,128}$"),
];

/// Writes the document down.
pub(super) fn document(operations: &[Operation]) -> Value {
    let mut shapes = Shapes::new();
    let problem = shapes.answer(SchemaGenerator::subschema_for::<problem::Body>);
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for operation in operations {
        let method = operation.method.as_str().to_ascii_lowercase();
        paths.entry(operation.path).or_default().insert(method, describe(operation, &mut shapes, &problem));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "HMS Mesh control plane",
            "version": "1",
            "description": "Everything `hms` does to a mesh. Served on loopback; see SECURITY.md for what the token protects.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:15014" }],
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "schemas": shapes.definitions(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The text of `control/admin.token`." },
            },
        },
    })
}

/// The two ways a type can be looked at: as what is sent (every field is there) and as what is taken.
struct Shapes {
    sent: SchemaGenerator,
    taken: SchemaGenerator,
}

impl Shapes {
    fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        Self { sent: settings().for_serialize().into_generator(), taken: settings().for_deserialize().into_generator() }
    }

    fn answer(&mut self, shape: Shape) -> Schema {
        shape(&mut self.sent)
    }

    fn body(&mut self, shape: Shape) -> Schema {
        shape(&mut self.taken)
    }

    /// All named shapes, in order. A type that is both sent and taken has to look the same both ways; the test of the document
    /// makes sure.
    fn definitions(mut self) -> BTreeMap<String, Value> {
        let mut all: BTreeMap<String, Value> = self.taken.take_definitions(true).into_iter().collect();
        all.extend(self.sent.take_definitions(true));
        all
    }
}

fn describe(operation: &Operation, shapes: &mut Shapes, problem: &Schema) -> Value {
    let mut described = Map::new();
    described.insert("operationId".to_owned(), json!(operation.name));
    described.insert("summary".to_owned(), json!(operation.summary));
    if operation.open {
        described.insert("security".to_owned(), json!([]));
    }
    let parameters = parameters(operation);
    if !parameters.is_empty() {
        described.insert("parameters".to_owned(), Value::Array(parameters));
    }
    if let Some(shape) = operation.takes {
        let schema = shapes.body(shape);
        let body = json!({ "required": true, "content": { "application/json": { "schema": schema } } });
        described.insert("requestBody".to_owned(), body);
    }
    let mut responses = Map::new();
    for status in operation.statuses() {
        let response = match operation.answer {
            _ if status == operation.status => success(operation, shapes),
            // Health says no in the words in which it says yes.
            Answer::Text(media_type) if status == StatusCode::SERVICE_UNAVAILABLE => text(status, media_type),
            _ => failure(status, problem),
        };
        responses.insert(status.as_str().to_owned(), response);
    }
    described.insert("responses".to_owned(), Value::Object(responses));
    Value::Object(described)
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let mut parameters = Vec::new();
    for (name, summary, pattern) in PATH_PARAMETERS {
        if operation.path.contains(&format!("{{{name}}}")) {
            parameters.push(json!({
                "name": name, "in": "path", "required": true, "description": summary,
                "schema": { "type": "string", "pattern": pattern },
            }));
        }
    }
    if operation.revised {
        parameters.push(json!({
            "name": "If-Match", "in": "header", "required": false,
            "description": "The revision this change was made for, as an entity tag: `\"42\"`.",
            "schema": { "type": "string" },
        }));
    }
    parameters
}

fn success(operation: &Operation, shapes: &mut Shapes) -> Value {
    let mut response = Map::new();
    response.insert("description".to_owned(), json!(operation.status.canonical_reason().unwrap_or("Done")));
    if operation.revised {
        let tag =
            json!({ "ETag": { "description": "The revision after the change.", "schema": { "type": "string" } } });
        response.insert("headers".to_owned(), tag);
    }
    let content = match operation.answer {
        Answer::Json(shape) => Some(("application/json", json!({ "schema": shapes.answer(shape) }))),
        Answer::Lines(shape) => Some(("application/x-ndjson", json!({ "schema": shapes.answer(shape) }))),
        Answer::Text(media_type) => Some((media_type, json!({ "schema": { "type": "string" } }))),
        Answer::Nothing => None,
    };
    if let Some((media_type, shape)) = content {
        response.insert("content".to_owned(), json!({ media_type: shape }));
    }
    Value::Object(response)
}

fn text(status: StatusCode, media_type: &str) -> Value {
    json!({
        "description": status.canonical_reason().unwrap_or("Text"),
        "content": { media_type: { "schema": { "type": "string" } } },
    })
}

fn failure(status: StatusCode, problem: &Schema) -> Value {
    json!({
        "description": status.canonical_reason().unwrap_or("Problem"),
        "content": { problem::MEDIA_TYPE: { "schema": problem } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_that_is_sent_and_taken_looks_the_same_both_ways() {
        let operations = super::super::operations();
        let mut shapes = Shapes::new();
        let problem = shapes.answer(SchemaGenerator::subschema_for::<problem::Body>);
        for operation in &operations {
            describe(operation, &mut shapes, &problem);
        }
        let (taken, sent) = (shapes.taken.take_definitions(true), shapes.sent.take_definitions(true));
        for (name, shape) in &taken {
            assert!(sent.get(name).is_none_or(|other| other == shape), "{name}");
        }
        assert!(taken.contains_key("RouteTable") && sent.contains_key("RouteTable"));
    }
}
