//! `hms check`: groups of questions, quiet where all is well, and for everything else why it is so and how to mend it.

mod questions;

pub(super) use questions::finding_line;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Context;
use crate::cli::{Check, CheckGroup};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Mark, Output, Tone, clean};

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    mark: Mark,
    text: String,
    why: String,
    fix: String,
    log: String,
}

impl Item {
    fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, text: text.into(), why: String::new(), fix: String::new(), log: String::new() }
    }

    fn ok(text: impl Into<String>) -> Self {
        Self::new(Mark::Ok, text)
    }

    fn warning(text: impl Into<String>) -> Self {
        Self::new(Mark::Warning, text)
    }

    fn failed(text: impl Into<String>) -> Self {
        Self::new(Mark::Failed, text)
    }

    fn because(mut self, why: impl Into<String>) -> Self {
        self.why = why.into();
        self
    }

    fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }

    /// What a failed request to the control plane means for a check.
    fn of_failure(text: &str, failure: &Failure) -> Self {
        let fix = failure.fixes().first().cloned().unwrap_or_default();
        let why = if failure.why().is_empty() {
            failure.message().to_owned()
        } else {
            format!("{}: {}", failure.message(), failure.why())
        };
        Self::failed(text).because(why).fix(fix)
    }
}

/// A group with its answers.
#[derive(Debug)]
struct Group {
    name: &'static str,
    items: Vec<Item>,
}

/// Every group, in the order they are asked: what later ones need comes first.
const GROUPS: [(CheckGroup, &str); 6] = [
    (CheckGroup::Laptop, "laptop"),
    (CheckGroup::ControlPlane, "control plane"),
    (CheckGroup::Certificates, "certificates"),
    (CheckGroup::Services, "services"),
    (CheckGroup::Gateway, "gateway"),
    (CheckGroup::Configuration, "configuration"),
];

pub(super) async fn run(context: Context<'_>, options: &Check) -> Result<Exit, Failure> {
    let begun = Instant::now();
    let project = context.project()?;
    let client = context.client();
    let mut groups = Vec::new();
    for (group, name) in GROUPS {
        let wanted = (options.only.is_empty() || options.only.contains(&group)) && !options.skip.contains(&group);
        if !wanted {
            continue;
        }
        let items = match (group, &client) {
            (CheckGroup::Laptop, _) => questions::laptop(context, &project),
            (CheckGroup::ControlPlane, Ok(client)) => questions::control_plane(client).await,
            (CheckGroup::ControlPlane, Err(failure)) => vec![Item::of_failure("not reachable", failure)],
            (_, Err(_)) => vec![Item::new(Mark::Skipped, "not asked: no control plane")],
            (CheckGroup::Certificates, Ok(client)) => questions::certificates(client).await,
            (CheckGroup::Services, Ok(client)) => questions::services(&project, client).await,
            (CheckGroup::Gateway, Ok(client)) => questions::gateway(&project, client).await,
            (CheckGroup::Configuration, Ok(client)) => questions::configuration(client).await,
        };
        groups.push(Group { name, items });
    }
    let exit = if count(&groups, Mark::Failed) + count(&groups, Mark::Warning) > 0 { Exit::Findings } else { Exit::Ok };
    if !context.output.document("Check", &document(&groups)) {
        context.output.write(&render(context.output, &groups, begun.elapsed(), exit));
    }
    Ok(exit)
}

fn count(groups: &[Group], mark: Mark) -> usize {
    groups.iter().flat_map(|group| &group.items).filter(|item| item.mark == mark).count()
}

fn document(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            let items: Vec<Value> = group
                .items
                .iter()
                .map(|item| {
                    let result = match item.mark {
                        Mark::Ok => "ok",
                        Mark::Warning => "warning",
                        Mark::Failed => "failed",
                        Mark::Skipped => "skipped",
                    };
                    json!({"result": result, "text": item.text, "why": item.why, "fix": item.fix, "log": item.log})
                })
                .collect();
            json!({"name": group.name, "checks": items})
        })
        .collect();
    json!({"items": groups})
}

/// Groups as lines: what passed stands together, what did not has lines of its own.
fn render(output: &Output, groups: &[Group], took: Duration, exit: Exit) -> String {
    const WIDTH: usize = 100;
    const LABEL: usize = 18;
    let indent = " ".repeat(LABEL);
    let mut text = String::new();
    for group in groups {
        let label = output.tint(Tone::Strong, &format!("{:LABEL$}", group.name));
        let mut line = String::new();
        let mut used = 0;
        let mut lines = Vec::new();
        let (quiet, loud): (Vec<&Item>, Vec<&Item>) =
            group.items.iter().partition(|item| matches!(item.mark, Mark::Ok | Mark::Skipped));
        for item in quiet {
            let shown = clean(&item.text);
            let width = shown.chars().count() + 5;
            if used > 0 && LABEL + used + width > WIDTH {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            if used > 0 {
                line.push_str("   ");
            }
            line.push_str(&output.mark(item.mark));
            line.push(' ');
            line.push_str(&shown);
            used += width;
        }
        if !line.is_empty() {
            lines.push(line);
        }
        for item in loud {
            lines.push(format!("{} {}", output.mark(item.mark), clean(&item.text)));
            for (name, what) in [("why", &item.why), ("fix", &item.fix), ("log", &item.log)] {
                if !what.is_empty() {
                    lines.push(format!("  {name}: {}", clean(what)));
                }
            }
        }
        for (index, line) in lines.iter().enumerate() {
            text.push_str(if index == 0 { &label } else { &indent });
            text.push_str(line);
            text.push('\n');
        }
    }
    let (failed, warned, passed) = (count(groups, Mark::Failed), count(groups, Mark::Warning), count(groups, Mark::Ok));
    let plural = |number: usize, word: &str| format!("{number} {word}{}", if number == 1 { "" } else { "s" });
    let last = format!(
        "{}, {}, {passed} passed {dot} {:.2}s {dot} exit {}\n",
        plural(failed, "failure"),
        plural(warned, "warning"),
        took.as_secs_f64(),
        exit.code(),
        dot = output.dot(),
    );
    text + &last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passed_is_quiet_and_what_failed_says_why_and_how() {
        let groups = [
            Group {
                name: "control plane",
                items: vec![
                    Item::ok("reachable 127.0.0.1:15014 SERVING (2ms)"),
                    Item::ok("5/5 proxies on revision 42"),
                ],
            },
            Group {
                name: "services",
                items: vec![
                    Item::ok("hello-svc"),
                    Item::failed("calc-svc: no healthy instance (1 registered)")
                        .because("pid 4411 exited, code 1")
                        .fix("hms restart calc-svc")
                        .log("ModuleNotFoundError: fastapi (app.py:1)"),
                ],
            },
            Group { name: "gateway", items: vec![Item::new(Mark::Skipped, "not asked")] },
        ];
        let text = render(&Output::for_tests(), &groups, Duration::from_millis(214), Exit::Findings);
        insta::assert_snapshot!(text, @r"
        control plane     √ reachable 127.0.0.1:15014 SERVING (2ms)   √ 5/5 proxies on revision 42
        services          √ hello-svc
                          × calc-svc: no healthy instance (1 registered)
                            why: pid 4411 exited, code 1
                            fix: hms restart calc-svc
                            log: ModuleNotFoundError: fastapi (app.py:1)
        gateway           – not asked
        1 failure, 0 warnings, 3 passed · 0.21s · exit 3
        ");
    }
}
