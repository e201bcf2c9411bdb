//! The last lines of `hms up`: the three words, the gateway, and the next command to type.

use std::time::Duration;

use super::{port_of, trust::GatewayRecord};
use crate::client::Client;
use crate::failure::Failure;
use crate::laptop::detach::Report;
use crate::project::Project;
use crate::settings::Settings;
use crate::views::{Items, Service, Summary};

/// Prints it. A control plane that fails just now is a remark, not a failure: everything runs.
pub(crate) async fn print(settings: &Settings, project: &Project, took: Duration, report: &mut Report<'_>) {
    match lines(settings, project, took).await {
        Ok(lines) => {
            for line in lines {
                report.step(&line);
            }
        }
        Err(failure) => report.note(&format!("no summary: {failure} ({})", failure.why())),
    }
}

async fn lines(settings: &Settings, project: &Project, took: Duration) -> Result<Vec<String>, Failure> {
    let client = Client::find(settings, project)?;
    let summary: Summary = client.get("/v1/summary").await?;
    let services: Items<Service> = client.get("/v1/services").await?;
    let mut lines = vec![format!("  {}   ready in {:.1}s", words(&summary), took.as_secs_f64())];
    if let Some(gateway) = GatewayRecord::read(project) {
        let host = gateway.hosts.first().cloned().unwrap_or_else(|| "gateway.local".to_owned());
        lines.push(format!("  gateway  https://{host} (here {})", port_of(gateway.https)));
        lines.push(format!("  next     {}", next_command(&host, &services.items)));
    }
    Ok(lines)
}

/// The words of the seeds: `mTLS: ON, Retries: 0, Breaker: CLOSED`.
pub(crate) fn words(summary: &Summary) -> String {
    format!("mTLS: {}, Retries: {}, Breaker: {}", summary.mtls, summary.retries, summary.breaker)
}

/// The next command to type: a call of a real route if there is one.
pub(crate) fn next_command(host: &str, services: &[Service]) -> String {
    let paths: Vec<String> = services
        .iter()
        .flat_map(|service| &service.routes)
        .filter_map(|route| route.pattern.strip_prefix("GET "))
        .map(str::to_owned)
        .collect();
    // A route with parameters shows more of what the mesh does.
    let best = paths.iter().find(|path| path.contains('{')).or_else(|| paths.first());
    match best {
        Some(path) => {
            format!("eval \"$(hms env)\" && curl -H \"Authorization: Bearer $JWT\" https://{host}{}", filled(path))
        }
        None => "hms run NAME -p 8000 -- CMD".to_owned(),
    }
}

/// A pattern with its parameters replaced by small numbers: `/sum/{a}/{b}` → `/sum/2/3`.
fn filled(pattern: &str) -> String {
    let mut number = 1;
    let segments: Vec<String> = pattern
        .split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                number += 1;
                number.to_string()
            } else {
                segment.replace('*', "")
            }
        })
        .collect();
    segments.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::views::Route;

    fn service(routes: &[&str]) -> Service {
        let route = |pattern: &&str| Route { pattern: (*pattern).to_owned(), ..Route::default() };
        Service { routes: routes.iter().map(route).collect(), ..Service::default() }
    }

    #[test]
    fn the_next_command_calls_a_real_route() {
        let services = [service(&["GET /hello"]), service(&["POST /sum", "GET /sum/{a}/{b}"])];
        insta::assert_snapshot!(
            next_command("gateway.local", &services),
            @r#"eval "$(hms env)" && curl -H "Authorization: Bearer $JWT" https://gateway.local/sum/2/3"#
        );
        assert!(next_command("g", &services[..1]).ends_with("https://g/hello"));
        assert_eq!(next_command("g", &[service(&["POST /x"])]), "hms run NAME -p 8000 -- CMD");
        assert_eq!(filled("/files/*"), "/files/");
    }
}
