//! `hms convert FILE…`: other meshes' objects in the words of the Gateway API, on stdout; what they could not say, on stderr.

use clap::ValueEnum as _;
use hms_formats::{Source, convert, objects};
use hms_model::finding::Finding;
use serde_json::json;

use super::Context;
use crate::cli::{Convert, Origin, Target};
use crate::exit::Exit;
use crate::failure::{Failure, finding_to_json};
use crate::laptop::plan;

pub(super) fn run(context: Context<'_>, options: &Convert) -> Result<Exit, Failure> {
    let Target::GatewayApi = options.to;
    let here = std::env::current_dir().unwrap_or_default();
    let sources = options.files.iter().map(|file| plan::source(&here, file)).collect::<Result<Vec<Source>, _>>()?;
    let (read, mut findings) = objects::translate(&sources);
    if findings.iter().any(Finding::is_error) {
        return Err(plan::refused(findings));
    }
    let wanted = options.from.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    if let Some(other) = read.formats.iter().find(|own| options.from != Origin::Auto && **own != wanted) {
        return Err(Failure::new(Exit::Failed, 2170, format!("these files hold objects of {other} too"))
            .because(format!("--from {wanted} wants no others"))
            .fix("leave --from out"));
    }
    let (text, lost) = convert::to_gateway_api(&read);
    findings.extend(lost);
    let listed: Vec<_> = findings.iter().map(finding_to_json).collect();
    if !context.output.document("Converted", &json!({"text": text, "findings": listed})) {
        for finding in &findings {
            context.output.finding(finding);
        }
        context.output.write(&text);
    }
    Ok(Exit::Ok)
}
