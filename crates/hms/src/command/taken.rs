//! Waiting until a change is with every proxy.

use serde_json::Value;
use tokio::time::{Duration, Instant};

use super::Context;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Mark;
use crate::views::Items;

/// How often proxies are looked at.
const LOOK: Duration = Duration::from_millis(5);
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(5);

/// Waits until every connected proxy has everything of a revision, and says so. `begun` is when the change did.
pub(super) async fn everywhere(
    context: Context<'_>,
    client: &Client,
    revision: u64,
    begun: Instant,
) -> Result<Exit, Failure> {
    let limit = Instant::now() + WITHIN;
    loop {
        let proxies: Items<Value> = client.get("/v1/proxies").await?;
        let behind = |proxy: &&Value| proxy["revision_acked"].as_u64().is_none_or(|reached| reached < revision);
        let behind: Vec<&Value> = proxies.items.iter().filter(behind).collect();
        if behind.is_empty() {
            let (count, elapsed) = (proxies.items.len(), begun.elapsed().as_millis());
            context.output.note(&format!("{} {count} proxies have it, {elapsed} ms", context.output.mark(Mark::Ok)));
            return Ok(Exit::Ok);
        }
        if Instant::now() > limit {
            let told = |proxy: &&Value| {
                let refused = proxy["nacks"].as_array().into_iter().flatten();
                let refused: Vec<String> =
                    refused.map(|nack| format!("{} ({})", nack["name"], nack["reason"])).collect();
                let refused =
                    if refused.is_empty() { String::new() } else { format!(" refuses {}", refused.join(", ")) };
                format!("{}{refused}", proxy["id"].as_str().unwrap_or_default())
            };
            let behind: Vec<String> = behind.iter().map(told).collect();
            return Err(Failure::new(Exit::Deadline, 1003, "not every proxy has it yet")
                .because(crate::output::clean(&behind.join("; ")))
                .fix("hms check --only control-plane"));
        }
        tokio::time::sleep(LOOK).await;
    }
}
