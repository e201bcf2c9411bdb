//! A list of named steps, run in order until one fails.

use crate::Outcome;
use crate::process::{Stopwatch, cargo_command, run, say};

/// One step.
pub(crate) struct Step {
    /// One word, to repeat it by.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) action: Action,
}

/// What a step does.
pub(crate) enum Action {
    /// A cargo command.
    Cargo(&'static [&'static str]),
    /// Something of our own.
    Own(fn() -> Outcome),
}

impl Step {
    fn run(&self) -> Outcome {
        match self.action {
            Action::Cargo(arguments) => run(&mut cargo_command(arguments)),
            Action::Own(action) => action(),
        }
    }

    /// What to type to run only this one.
    fn repeat(&self) -> String {
        match self.action {
            Action::Cargo(arguments) => format!("cargo {}", arguments.join(" ")),
            Action::Own(_) => format!("cargo xtask test {}", self.name),
        }
    }
}

/// The steps with these names, in the list's order; all of them without a name.
pub(crate) fn chosen<'s>(steps: &'s [Step], names: &[String]) -> Result<Vec<&'s Step>, String> {
    if let Some(unknown) = names.iter().find(|name| !steps.iter().any(|step| step.name == name.as_str())) {
        return Err(format!("`{unknown}` is no step; there are: {}", list(steps)));
    }
    Ok(steps.iter().filter(|step| names.is_empty() || names.iter().any(|name| name == step.name)).collect())
}

/// The names.
pub(crate) fn list(steps: &[Step]) -> String {
    steps.iter().map(|step| step.name).collect::<Vec<_>>().join(", ")
}

/// Runs them. The first failure ends it and says how to repeat that step alone.
pub(crate) fn run_all(steps: &[&Step]) -> Outcome {
    let whole = Stopwatch::start();
    for (number, step) in steps.iter().enumerate() {
        say(&format!("\n== {}/{} {}: {}", number + 1, steps.len(), step.name, step.repeat()));
        let watch = Stopwatch::start();
        let outcome = step.run();
        let seconds = watch.seconds();
        match outcome {
            Ok(()) => say(&format!("== {} passed in {seconds:.1} s", step.name)),
            Err(why) => {
                return Err(format!(
                    "{why}\n== {} FAILED after {seconds:.1} s; repeat it: {}",
                    step.name,
                    step.repeat()
                ));
            }
        }
    }
    say(&format!("\n== all {} steps passed in {:.0} s", steps.len(), whole.seconds()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails() -> Outcome {
        Err("broken".to_owned())
    }

    const STEPS: [Step; 3] = [
        Step { name: "good", action: Action::Own(|| Ok(())) },
        Step { name: "bad", action: Action::Own(fails) },
        Step { name: "format", action: Action::Cargo(&["fmt", "--check"]) },
    ];

    #[test]
    fn the_first_failure_ends_the_run_and_says_how_to_repeat_it() {
        let steps: Vec<&Step> = STEPS.iter().take(2).collect();
        let why = run_all(&steps).unwrap_err();
        assert!(why.starts_with("broken\n") && why.contains("cargo xtask test bad"), "{why}");
        assert_eq!(STEPS[2].repeat(), "cargo fmt --check");
    }

    #[test]
    fn steps_are_chosen_by_name_in_their_own_order() {
        let names = ["bad".to_owned(), "good".to_owned()];
        let chosen: Vec<&str> = chosen(&STEPS, &names).unwrap().iter().map(|step| step.name).collect();
        assert_eq!(chosen, ["good", "bad"]);
        assert_eq!(super::chosen(&STEPS, &[]).unwrap().len(), 3);
        assert!(super::chosen(&STEPS, &["bat".to_owned()]).is_err_and(|why| why.contains("good, bad, format")));
    }
}
