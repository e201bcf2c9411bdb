//! `hms history`: what the configuration was, who changed what and when.

use serde_json::Value;

use super::Context;
use super::services::read;
use crate::cli::Format;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::views::{Change, Items, Revision};

/// Changes named in one row of a narrow table.
const NAMED: usize = 3;

pub(super) async fn run(context: Context<'_>) -> Result<Exit, Failure> {
    let document: Value = context.client()?.get("/v1/revisions").await?;
    if !context.output.document("RevisionList", &document) {
        let revisions: Items<Revision> = read(document)?;
        let most = if context.output.format() == Format::Wide { usize::MAX } else { NAMED };
        context.output.table(&table(&revisions.items, most));
    }
    Ok(Exit::Ok)
}

fn table(revisions: &[Revision], most: usize) -> Table {
    let mut table = Table::new(&["REVISION", "WHEN", "WHO", "WHAT"]);
    for revision in revisions {
        table.row(vec![
            Cell::number(revision.number.to_string()),
            Cell::text(&revision.time),
            Cell::text(&revision.actor),
            Cell::text(what(revision.changes.as_deref(), most)),
        ]);
    }
    table
}

fn what(changes: Option<&[Change]>, most: usize) -> String {
    let Some(changes) = changes else { return "not kept".to_owned() };
    let named = changes.iter().take(most).map(|change| format!("{} {}", change.sign().0, change.named()));
    let mut words: Vec<String> = named.collect();
    let left = changes.len().saturating_sub(most);
    if left > 0 {
        words.push(format!("and {left} more"));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::Look;

    #[test]
    fn each_revision_says_what_it_changed() {
        let change = |change: &str, kind: &str, name: &str| json!({"change": change, "kind": kind, "namespace": "default", "name": name});
        let many = ["a", "b", "c", "d", "e"].map(|name| change("added", "route", name));
        let revisions: Items<Revision> = read(json!({"items": [
            {"revision": 42, "time": "2026-11-28T16:02:53Z", "actor": "admin", "changes": [
                change("changed", "split", "pay-svc"), change("removed", "route", "calc-svc")]},
            {"revision": 7, "time": "2026-11-28T16:00:00Z", "actor": "admin", "changes": many},
            {"revision": 5, "time": "2026-11-28T15:00:00Z", "actor": "control plane", "changes": null}]}))
        .unwrap();
        insta::assert_snapshot!(table(&revisions.items, NAMED).render(Look::PLAIN), @r"
        REVISION  WHEN                  WHO            WHAT
              42  2026-11-28T16:02:53Z  admin          ~ split pay-svc, - route calc-svc
               7  2026-11-28T16:00:00Z  admin          + route a, + route b, + route c, and 2 more
               5  2026-11-28T15:00:00Z  control plane  not kept
        ");
    }
}
