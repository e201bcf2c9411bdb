//! Waiting until a change is with every proxy.

use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::Context;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Mark, clean};
use crate::views::{Change, Items};

/// How often proxies are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Proxies named in a failure; the others are counted.
const NAMED: usize = 10;

/// A change that was made.
#[derive(Debug)]
pub(super) struct Made {
    revision: u64,
    begun: Instant,
    /// Whose resources were changed, `namespace/name`; `mesh/mesh` for what concerns all.
    owners: Vec<String>,
}

impl Made {
    /// A change that answered with this revision.
    pub(super) fn of(revision: u64, begun: Instant, changes: &[Change]) -> Self {
        let owners = changes.iter().map(|change| format!("{}/{}", change.namespace, change.name)).collect();
        Self { revision, begun, owners }
    }

    /// A change of one service's resources.
    pub(super) fn to(service: &str, revision: u64, begun: Instant) -> Self {
        let (name, namespace) = service.split_once('.').unwrap_or((service, hms_model::names::DEFAULT_NAMESPACE));
        Self { revision, begun, owners: vec![format!("{namespace}/{name}")] }
    }

    /// A change of what concerns all.
    pub(super) fn everywhere(revision: u64, begun: Instant) -> Self {
        Self { revision, begun, owners: vec!["mesh/mesh".to_owned()] }
    }

    /// Whether a resource that a proxy refuses may be refused for what was changed.
    fn concerns(&self, resource: &str) -> bool {
        let of =
            |owner: &String| owner == "mesh/mesh" || resource.split_once('/').is_some_and(|(_, name)| name == owner);
        self.owners.iter().any(of)
    }
}

/// Waits until every connected proxy has everything of a revision, and says so. One that refuses a part of it is a failure.
pub(super) async fn everywhere(context: Context<'_>, client: &Client, made: Made) -> Result<Exit, Failure> {
    let within = context.settings.timeout;
    let limit = Instant::now() + within;
    loop {
        let proxies: Items<Value> = client.get("/v1/proxies").await?;
        let behind = |proxy: &&Value| proxy["revision_acked"].as_u64().is_none_or(|reached| reached < made.revision);
        let behind: Vec<&Value> = proxies.items.iter().filter(behind).collect();
        if behind.is_empty() {
            if let Some(failure) = refused(&proxies.items, &made) {
                return Err(failure);
            }
            let (count, elapsed) = (proxies.items.len(), made.begun.elapsed().as_millis());
            context.output.note(&format!("{} {count} proxies have it, {elapsed} ms", context.output.mark(Mark::Ok)));
            return Ok(Exit::Ok);
        }
        if Instant::now() > limit {
            let names: Vec<String> = behind.iter().map(|proxy| who(proxy)).collect();
            return Err(Failure::new(Exit::Deadline, 1003, "not every proxy has it yet")
                .because(format!("after {:.1} s these have not: {}", within.as_secs_f64(), some(&names, ", ")))
                .fix("hms check --only control-plane"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The failure if proxies refuse a part of a change: which, what and why.
fn refused(proxies: &[Value], made: &Made) -> Option<Failure> {
    let told = |proxy: &Value| {
        let nacks = proxy["nacks"].as_array().into_iter().flatten();
        let text = |nack: &Value, member: &str| clean(nack[member].as_str().unwrap_or_default());
        let concerned = nacks.filter(|nack| made.concerns(nack["name"].as_str().unwrap_or_default()));
        let each: Vec<String> =
            concerned.map(|nack| format!("{} ({})", text(nack, "name"), text(nack, "reason"))).collect();
        (!each.is_empty()).then(|| format!("{} refuses {}", who(proxy), some(&each, ", ")))
    };
    let told: Vec<String> = proxies.iter().filter_map(told).collect();
    let (count, all) = (told.len(), proxies.len());
    (!told.is_empty()).then(|| {
        Failure::new(
            Exit::Failed,
            1023,
            format!("{count} of {all} proxies refuse a part of revision {}", made.revision),
        )
        .because(some(&told, "; "))
        .fix("hms rollback")
    })
}

/// Its service, if it has one, and its id.
fn who(proxy: &Value) -> String {
    let id = clean(proxy["id"].as_str().unwrap_or_default());
    match proxy["service"].as_str() {
        Some(service) => format!("{} ({id})", clean(service)),
        None => id,
    }
}

fn some(texts: &[String], between: &str) -> String {
    let named = texts.iter().take(NAMED).cloned().collect::<Vec<_>>().join(between);
    match texts.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{between}and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_proxy_that_refuses_what_was_changed_is_named_with_its_reason() {
        let proxies = [
            json!({"id": "a", "service": "pay-svc", "nacks": []}),
            json!({"id": "b", "service": "portal", "nacks": [
                {"name": "service/default/pay-svc", "reason": "level 3"}, {"name": "route/default/old", "reason": "x"}]}),
        ];
        let failure = refused(&proxies, &Made::to("pay-svc", 42, Instant::now())).unwrap();
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.message(), "1 of 2 proxies refuse a part of revision 42");
        assert_eq!(failure.why(), "portal (b) refuses service/default/pay-svc (level 3)");
        assert!(refused(&proxies, &Made::to("calc-svc", 42, Instant::now())).is_none(), "an old refusal of another's");
        let change = Change { kind: "defaults".to_owned(), namespace: "mesh".to_owned(), ..Change::default() };
        let all = Made::of(42, Instant::now(), &[Change { name: "mesh".to_owned(), ..change }]);
        assert!(refused(&proxies, &all).unwrap().why().contains("route/default/old"));
    }
}
