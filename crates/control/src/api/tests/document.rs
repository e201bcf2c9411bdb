use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn checked_in() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../api/openapi.json")
}

#[test]
#[expect(clippy::disallowed_methods, reason = "HMS_BLESS rewrites the file")]
fn the_document_that_is_checked_in_is_the_one_served() {
    let document = openapi();
    if std::env::var("HMS_BLESS").is_ok_and(|value| value == "1") {
        std::fs::write(checked_in(), &document).unwrap();
    }
    let found = std::fs::read_to_string(checked_in()).unwrap_or_default();
    assert!(found == document, "api/openapi.json is not what the API serves; HMS_BLESS=1 cargo test rewrites it");
}

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_no_other() {
    let world = World::new().await;
    let document = world.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let table = paths().into_iter().flat_map(|(path, methods)| methods.into_iter().map(move |m| format!("{m} {path}")));
    assert_eq!(documented, table.collect());
    for operation in &world.operations {
        if operation.path.starts_with("/v1/tap") {
            continue;
        }
        let answer = world.call(operation.method.clone(), &sample(operation.path), None).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{}", operation.path);
        if answer.status == StatusCode::NOT_FOUND {
            assert_ne!(answer.json()["code"], "HMS-2204", "{}", operation.path);
        }
    }
}

#[test]
fn names_of_operations_are_unique_and_their_methods_are_known() {
    let operations = operations();
    let names: BTreeSet<&str> = operations.iter().map(|operation| operation.name).collect();
    assert_eq!(names.len(), operations.len());
    for operation in operations {
        assert!([Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(&operation.method));
        assert!(operation.summary.ends_with('.'), "{}", operation.name);
    }
}

#[test]
fn every_reference_of_the_document_leads_somewhere() {
    fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member {
                        Value::String(target) if name == "$ref" => drop(found.insert(target)),
                        other => references(other, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document: Value = serde_json::from_str(&openapi()).unwrap();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.len() > 10);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}
