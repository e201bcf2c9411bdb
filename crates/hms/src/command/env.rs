//! `hms env`: what `eval` needs to make this shell's clients trust and find the gateway.

use super::{Context, jwt};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::environment::{AppView, Variables, assignments};
use crate::laptop::intercept::Mode;
use crate::laptop::supervise::all_units;
use crate::laptop::trust::{self, GatewayRecord};

pub(super) async fn run(context: Context<'_>, options: &cli::Env) -> Result<Exit, Failure> {
    let variables = match &options.service {
        Some(service) => of_service(context, &context.service(service)?).await?,
        None => of_gateway(context, options).await?,
    };
    if !context.output.document("Environment", &serde_json::json!({"variables": variables})) {
        context.output.write(&assignments(&variables, options.shell));
    }
    Ok(Exit::Ok)
}

async fn of_gateway(context: Context<'_>, options: &cli::Env) -> Result<Variables, Failure> {
    let project = context.project()?;
    let client = context.client()?;
    let gateway = GatewayRecord::read(&project).ok_or_else(|| trust::no_gateway(&project))?;
    let bundle = trust::write(context.settings, &project, &gateway).await?;
    let token = jwt::for_shell(context, &client, options.jwt_ttl).await?;
    Ok(trust::variables(&project, &gateway, &bundle, client.address(), &token))
}

/// The variables a running service's program was given, to run another one beside it by hand.
async fn of_service(context: Context<'_>, service: &str) -> Result<Variables, Failure> {
    let units = all_units(&context.project()?).await;
    let unit = units.iter().map(|(_, unit)| unit).find(|unit| unit.service == service);
    let unit = unit.ok_or_else(|| {
        crate::laptop::plan::unknown_service(service, units.iter().map(|(_, unit)| unit.service.clone()))
    })?;
    let outbound = unit.outbound.ok_or_else(|| {
        Failure::new(Exit::Conflict, 1105, format!("the proxy of {service} has no outbound listener yet"))
            .fix("hms status")
    })?;
    let view = AppView {
        service,
        version: unit.version.as_deref(),
        port: unit.app_port.unwrap_or_default(),
        outbound,
        upstreams: &unit.upstreams,
    };
    Ok(view.variables(Mode::Env))
}
