//! `hms sim`: what a scenario does to the mesh, on virtual time.

use hms_formats::scenario;
use hms_model::finding::Finding;

use super::Context;
use crate::cli::Sim;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::plan;
use crate::project::unreadable;
use crate::sim::{MOST_STEPS, play, show, verdict};

pub(super) fn run(context: Context<'_>, options: &Sim) -> Result<Exit, Failure> {
    let here = std::env::current_dir().map_err(|error| unreadable(std::path::Path::new("."), &error))?;
    let source = plan::source(&here, &options.file)?;
    let (scenario, findings) = scenario::translate(&source);
    let output = context.output;
    let Some(scenario) = scenario else { return Err(refused(findings)) };
    for finding in &findings {
        output.finding(finding);
    }
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
        output.write(&show::report(output, &played, &verdicts));
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
