//! `hms sim`: what a scenario does to the mesh, on virtual time.

use hms_formats::scenario;
use hms_model::finding::Finding;
use hms_traffic::clock::Moment;

use super::Context;
use crate::cli::Sim;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::plan;
use crate::output::{Mark, clean};
use crate::project::unreadable;
use crate::sim::{MOST_STEPS, play, show, verdict};

pub(super) fn run(context: Context<'_>, options: &Sim) -> Result<Exit, Failure> {
    let here = std::env::current_dir().map_err(|error| unreadable(std::path::Path::new("."), &error))?;
    let source = plan::source(&here, &options.file)?;
    let (scenario, findings) = scenario::translate(&source);
    let output = context.output;
    let Some(scenario) = scenario else { return Err(refused(findings)) };
    findings.iter().for_each(|finding| output.finding(finding));
    let seed = options.seed.unwrap_or(scenario.seed);
    let Some(played) = play(&scenario, seed) else {
        return Err(Failure::new(Exit::Failed, 2151, "the scenario is too large to be played")
            .at(options.file.display().to_string())
            .because(format!("it takes more than {MOST_STEPS} steps; calls that fan out at every hop multiply"))
            .fix("play less time, fewer requests per second or a part of the mesh"));
    };
    let verdicts = verdict::verdicts(&scenario, &played);
    let crossed = verdicts.iter().filter(|verdict| verdict.crossed.is_some()).count();
    if !output.document("Simulation", &show::document(&scenario, seed, &played, &verdicts)) {
        output.table(&show::services(&played));
        let reasons = show::reasons(&played);
        if !reasons.is_empty() {
            output.line("");
            output.table(&reasons);
        }
        if !verdicts.is_empty() {
            output.line("");
        }
        for verdict in &verdicts {
            let (service, text) = (&verdict.bound.service, clean(&verdict.bound.text));
            let measured = &verdict.measured;
            match &verdict.crossed {
                None => output.line(&format!("{} {service} {text}: {measured}", output.mark(Mark::Ok))),
                Some((at, why)) => {
                    let at = at.map(|at| format!(" at {}", show::time(at.saturating_since(Moment::ZERO))));
                    output.line(&format!(
                        "{} HMS-2152 {service} {text}: {measured}, crossed{} ({})",
                        output.mark(Mark::Failed),
                        at.unwrap_or_default(),
                        clean(&verdict.bound.origin)
                    ));
                    output.line(&format!("    {}", clean(why)));
                }
            }
        }
    }
    Ok(if crossed == 0 { Exit::Ok } else { Exit::Findings })
}

fn refused(findings: Vec<Finding>) -> Failure {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let what = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
    Failure::new(Exit::Failed, 2100, format!("{what}; nothing was played"))
        .findings(findings)
        .fix("correct the scenario and play it again")
}
