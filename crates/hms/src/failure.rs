//! Why a command failed, in the five parts every error has: what, where, why, fix, docs.

use std::fmt;

use hms_model::finding::{Code, Finding, Place};
use serde_json::{Value, json};

use crate::exit::Exit;

/// A failed command. Boxed, so a `Result` that carries it stays small.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Box<Parts>);

/// The parts of a failure.
#[derive(Debug, Clone)]
struct Parts {
    exit: Exit,
    code: Code,
    message: String,
    location: Option<String>,
    why: String,
    fix: Vec<String>,
    log: Vec<String>,
    findings: Vec<Finding>,
}

impl Failure {
    /// A failure with its exit code, its number and one sentence that says what failed (no full stop).
    pub(crate) fn new(exit: Exit, code: u16, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            exit,
            code: Code(code),
            message: message.into(),
            location: None,
            why: String::new(),
            fix: Vec::new(),
            log: Vec::new(),
            findings: Vec::new(),
        }))
    }

    /// With the place or object it is about.
    #[must_use]
    pub(crate) fn at(mut self, location: impl Into<String>) -> Self {
        self.0.location = Some(location.into());
        self
    }

    /// With what was seen against what was wanted.
    #[must_use]
    pub(crate) fn because(mut self, why: impl Into<String>) -> Self {
        self.0.why = why.into();
        self
    }

    /// With one more command or edit that mends it.
    #[must_use]
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.0.fix.push(fix.into());
        self
    }

    /// With the last lines of a log.
    #[must_use]
    pub(crate) fn log(mut self, lines: Vec<String>) -> Self {
        self.0.log = lines;
        self
    }

    /// With every complaint about the input.
    #[must_use]
    pub(crate) fn findings(mut self, findings: Vec<Finding>) -> Self {
        self.0.findings = findings;
        self
    }

    /// The exit code it leads to.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// Its number.
    pub(crate) fn code(&self) -> Code {
        self.0.code
    }

    /// What failed.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Where, if that can be said.
    pub(crate) fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// Why; may be empty.
    pub(crate) fn why(&self) -> &str {
        &self.0.why
    }

    /// What mends it.
    pub(crate) fn fixes(&self) -> &[String] {
        &self.0.fix
    }

    /// The last log lines, oldest first.
    pub(crate) fn log_lines(&self) -> &[String] {
        &self.0.log
    }

    /// The complaints it bundles.
    pub(crate) fn all_findings(&self) -> &[Finding] {
        &self.0.findings
    }

    /// The same object in JSON, with the field names of the REST API's problem documents.
    pub(crate) fn to_json(&self) -> Value {
        let parts = &self.0;
        let findings: Vec<Value> = parts.findings.iter().map(finding_to_json).collect();
        json!({
            "apiVersion": "hms/v1",
            "kind": "Error",
            "exit": parts.exit.code(),
            "code": parts.code.to_string(),
            "message": parts.message,
            "where": parts.location,
            "why": parts.why,
            "fix": parts.fix,
            "log": parts.log,
            "findings": findings,
            "docs": format!("hms explain {}", parts.code),
        })
    }

    /// Reads what [`Failure::to_json`] wrote, also over a pipe or socket; unknown shapes become a plain failure.
    pub(crate) fn from_json(value: &Value) -> Self {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lines = |key: &str| -> Vec<String> {
            let items = value.get(key).and_then(Value::as_array);
            items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let exit = value.get("exit").and_then(Value::as_i64).and_then(|code| i32::try_from(code).ok());
        let code = text("code").strip_prefix("HMS-").and_then(|digits| digits.parse().ok()).unwrap_or(1008);
        let findings = value.get("findings").and_then(Value::as_array);
        let findings = findings.into_iter().flatten().filter_map(finding_from_json).collect();
        let mut failure = Self::new(Exit::from_code(exit.unwrap_or(1)), code, text("message"))
            .because(text("why"))
            .log(lines("log"))
            .findings(findings);
        failure.0.fix = lines("fix");
        failure.0.location = value.get("where").and_then(Value::as_str).map(str::to_owned);
        failure
    }
}

/// A finding as the REST API writes it.
pub(crate) fn finding_to_json(finding: &Finding) -> Value {
    let place = finding.place.as_ref().map(|place| {
        json!({"file": place.file, "line": place.line, "column": place.column, "length": place.length, "source": place.source})
    });
    json!({
        "severity": finding.severity.as_str(),
        "code": finding.code.to_string(),
        "place": place,
        "message": finding.message,
        "why": finding.why,
        "fix": finding.fix,
    })
}

/// Reads a finding of the REST API; `None` if it is no object.
pub(crate) fn finding_from_json(value: &Value) -> Option<Finding> {
    let object = value.as_object()?;
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = text("code").strip_prefix("HMS-").and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let severity = text("severity");
    let mut finding = if severity == "error" {
        Finding::error(code, text("message"))
    } else {
        Finding::warning(code, text("message"))
    };
    if severity == "info" {
        finding.severity = hms_model::finding::Severity::Info;
    }
    finding = finding.because(text("why")).fix(text("fix"));
    if let Some(place) = object.get("place").and_then(Value::as_object) {
        let number = |key: &str| {
            place.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
        };
        let string = |key: &str| place.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        finding = finding.at(Place {
            file: string("file"),
            line: number("line"),
            column: number("column"),
            length: number("length").max(1),
            source: string("source"),
        });
    }
    Some(finding)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error[{}]: {}", self.0.code, self.0.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_way_over_a_socket() {
        let place = Place { file: "a.yaml".into(), line: 4, column: 1, length: 11, source: "rate_limits: 1".into() };
        let failure = Failure::new(Exit::Conflict, 1101, "port taken")
            .at("gateway")
            .because("held by pid 812")
            .fix("hms up --https 8444")
            .log(vec!["one".into(), "two".into()])
            .findings(vec![Finding::error(2103, "unknown key").at(place).because("no").fix("yes")]);
        let read = Failure::from_json(&failure.to_json());
        assert_eq!(read.to_json(), failure.to_json());
        assert_eq!(read.exit(), Exit::Conflict);
    }

    #[test]
    fn a_document_of_another_shape_is_still_a_failure() {
        let read = Failure::from_json(&json!([1, 2]));
        assert_eq!((read.exit(), read.code()), (Exit::Failed, Code(1008)));
        assert!(finding_from_json(&json!("text")).is_none());
    }
}
