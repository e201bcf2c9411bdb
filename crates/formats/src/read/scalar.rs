//! Scalars by what their key wants. A scalar is never guessed: `no` is a text where a text is wanted and an error where a truth
//! value is, `012` is neither ten nor twelve.

use std::ops::RangeInclusive;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;

use crate::document::{Form, Value};
use crate::read::{Field, Reader, nearest};

/// The name that means the gateway wherever a caller is named.
pub(crate) const GATEWAY: &str = "gateway";

impl Reader<'_> {
    /// Any scalar as the text that was written.
    pub(crate) fn text<'n>(&mut self, field: &Field<'n>, wants: &str) -> Option<&'n str> {
        if let Value::Scalar(text, _) = &field.node.value {
            return Some(text);
        }
        self.mismatch(field.node, &field.path, wants);
        None
    }

    /// A text of 1 to `longest` bytes without control characters.
    pub(crate) fn line<'n>(&mut self, field: &Field<'n>, wants: &str, longest: usize) -> Option<&'n str> {
        let text = self.text(field, wants)?;
        if text.is_empty() || text.len() > longest || text.chars().any(char::is_control) {
            let why = format!("it has 1 to {longest} bytes and no control characters");
            self.bad(field, wants, &why, "write one line of text");
            return None;
        }
        Some(text)
    }

    /// `true` or `false`, without quotes.
    pub(crate) fn boolean(&mut self, field: &Field<'_>) -> Option<bool> {
        let meant = match unquoted(field) {
            Some("true" | "True" | "TRUE") => return Some(true),
            Some("false" | "False" | "FALSE") => return Some(false),
            Some("yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "1") => "true",
            Some("no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "0") => "false",
            _ => {
                self.mismatch(field.node, &field.path, "true or false");
                return None;
            }
        };
        let message = format!("`{}` wants true or false, not {}", field.path, self.shown(field.node));
        let finding = Finding::error(2104, message).because("YAML 1.2 knows no other truth values");
        self.report(field.node.span, finding.fix(format!("write {meant}")));
        None
    }

    /// A whole number in decimal digits, within bounds.
    pub(crate) fn whole(&mut self, field: &Field<'_>, wants: &str, bounds: RangeInclusive<u32>) -> Option<u32> {
        let text = unquoted(field).unwrap_or_default();
        let negative = text.strip_prefix('-').is_some_and(|digits| is_decimal(digits) || digits == "0");
        if !is_decimal(text) && !negative {
            let other_notation = text.starts_with(|c: char| c.is_ascii_digit());
            let why =
                "a whole number has decimal digits alone; other notations mean different numbers to different readers";
            self.mismatch_because(field.node, &field.path, wants, if other_notation { why } else { "" });
            return None;
        }
        let number = text.parse().ok().filter(|number| bounds.contains(number));
        if number.is_none() {
            let why = format!("it lies between {} and {}", bounds.start(), bounds.end());
            self.bad(field, wants, &why, "write a number within these bounds");
        }
        number
    }

    /// 1 to 65535.
    pub(crate) fn port(&mut self, field: &Field<'_>) -> Option<u16> {
        let port = self.whole(field, "a port from 1 to 65535", 1..=65535)?;
        u16::try_from(port).ok()
    }

    /// `15s`, `500ms`, `5m`, `1h`.
    pub(crate) fn duration(&mut self, field: &Field<'_>, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        const WANTS: &str = "a duration such as 15s, 500ms, 5m or 1h";
        let text = self.text(field, WANTS)?.trim();
        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = text.get(..text.len() - unit.len()).unwrap_or_default();
        if unit.is_empty() && is_decimal(digits) {
            let fix = format!("add the unit: {digits}s or {digits}ms");
            self.bad(field, WANTS, "a bare number could be seconds or milliseconds", &fix);
            return None;
        }
        let milliseconds: Option<u64> = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            _ => None,
        };
        let Some(milliseconds) = milliseconds.filter(|_| is_decimal(digits)) else {
            self.bad(
                field,
                WANTS,
                "it is one whole number and one unit: ms, s, m or h",
                "write for example 15s or 90m",
            );
            return None;
        };
        let duration = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(milliseconds)).map(Duration::from_millis);
        let duration = duration.filter(|duration| bounds.contains(duration));
        if duration.is_none() {
            let why = format!("it lies between {} and {}", words(*bounds.start()), words(*bounds.end()));
            self.bad(field, WANTS, &why, "write a duration within these bounds");
        }
        duration
    }

    /// `20%`.
    pub(crate) fn percent(&mut self, field: &Field<'_>) -> Option<u8> {
        const WANTS: &str = "a share such as 20%";
        let text = self.text(field, WANTS)?.trim();
        let number = text.strip_suffix('%').filter(|digits| is_decimal(digits)).and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| *number <= 100);
        if number.is_none() {
            self.bad(field, WANTS, "it is a whole number from 0 to 100 and a %", "write for example 20%");
        }
        number
    }

    /// `0.25` as parts per million.
    pub(crate) fn share(&mut self, field: &Field<'_>) -> Option<u32> {
        const WANTS: &str = "a number from 0 to 1";
        let text = unquoted(field).unwrap_or_default();
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let shaped = [whole, fraction].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
        if !shaped || whole.len() > 1 {
            self.mismatch(field.node, &field.path, WANTS);
            return None;
        }
        let share =
            (fraction.len() <= 6).then(|| format!("{whole}{fraction:0<6}")).and_then(|parts| parts.parse().ok());
        let share = share.filter(|share| *share <= 1_000_000);
        if share.is_none() {
            self.bad(field, WANTS, "it has at most six decimals and is at most 1", "write for example 0.25");
        }
        share
    }

    /// One of a few words.
    pub(crate) fn word<T: Clone>(&mut self, field: &Field<'_>, words: &[(&'static str, T)]) -> Option<T> {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let wants = known.join(" or ");
        let text = self.text(field, &wants)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(value.clone());
        }
        let near = nearest(text, &known);
        let fix = near.or_else(|| known.first().copied()).unwrap_or_default();
        let why = near.map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
        self.bad(field, &wants, &why, &format!("write {fix}"));
        None
    }

    /// A service's name, `NAME` or `NAME.NAMESPACE`, in lower case.
    pub(crate) fn service(&mut self, field: &Field<'_>) -> Option<ServiceName> {
        let text = self.text(field, "the name of a service")?;
        self.service_name(field, text)
    }

    /// The same for a name that is already a text, as a key is.
    pub(crate) fn service_name(&mut self, field: &Field<'_>, text: &str) -> Option<ServiceName> {
        let folded = text.trim().trim_end_matches('.').to_lowercase().replace(['_', ' '], "-");
        let name = if text.ends_with('.') || text.chars().any(char::is_uppercase) {
            Err("a name is written in lower case, without a dot at its end".to_owned())
        } else {
            ServiceName::from_host(text, "default").map_err(|error| error.to_string())
        };
        let name = name.and_then(|name| match name.name() {
            GATEWAY => Err("this name means the gateway itself".to_owned()),
            _ => Ok(name),
        });
        match name {
            Ok(name) => Some(name),
            Err(why) => {
                let fix = match ServiceName::from_host(&folded, "default") {
                    Ok(name) if name.name() != GATEWAY => format!("write {name}"),
                    _ => "use letters a-z, digits and -, for example calc-svc".to_owned(),
                };
                let shown = self.named(field.node, text);
                let finding = Finding::error(2111, format!("`{shown}` is no name of a service"));
                let span = if field.name.is_empty() || field.name != text { field.node.span } else { field.key };
                self.report(span, finding.because(why).fix(fix));
                None
            }
        }
    }

    /// The finding that a value is of the right kind but not a good one.
    pub(crate) fn bad(&mut self, field: &Field<'_>, wants: &str, why: &str, fix: &str) {
        let message = format!("`{}` wants {wants}, not {}", field.path, self.shown(field.node));
        self.report(field.node.span, Finding::error(2105, message).because(why).fix(fix));
    }
}

/// The text of a scalar that may be a number or a truth value.
fn unquoted<'n>(field: &Field<'n>) -> Option<&'n str> {
    match &field.node.value {
        Value::Scalar(text, Form::Plain | Form::Expanded) => Some(text),
        _ => None,
    }
}

/// Decimal digits without a leading zero, which other readers take for octal.
fn is_decimal(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'))
}

/// A duration the way it is written.
pub(crate) fn words(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}
