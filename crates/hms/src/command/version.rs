//! `hms version`: ours, and the control plane's if one serves this project.

use serde_json::json;

use super::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::views::Version;

pub(super) async fn run(context: Context<'_>) -> Result<Exit, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let server = match context.client() {
        Ok(client) => client.get::<Version>("/v1/version").await.ok().map(|version| version.version),
        Err(_) => None,
    };
    if !context.output.document("Version", &json!({"client": own, "server": server})) {
        context.output.line(&format!("hms {own}"));
        match server {
            Some(server) => context.output.line(&format!("control plane {}", crate::output::clean(&server))),
            None => context.output.note("no control plane serves this project"),
        }
    }
    Ok(Exit::Ok)
}
