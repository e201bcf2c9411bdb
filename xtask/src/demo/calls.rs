//! The lab's calls, and what has to come back.
//!
//! The burst comes last: it empties the bucket of calc-svc, and the breaker lab would meet a 429 where it expects a 503.

/// One command of the lab.
pub(super) struct Call {
    /// What it shows.
    pub(super) title: &'static str,
    /// What is typed.
    pub(super) line: &'static str,
    /// Whether it is asked once.
    pub(super) kind: Kind,
    wanted: Wanted,
}

/// How often a command is run.
pub(super) enum Kind {
    /// Once.
    Once,
    /// Until its answer is the wanted one.
    Until,
}

/// What an answer has to look like.
enum Wanted {
    /// All of these stand in it.
    Words(&'static [&'static str]),
    /// So many lines, each beginning so.
    EveryLine(usize, &'static str),
    /// So many lines, the first and the last being these.
    Ends(usize, &'static str, &'static str),
}

const fn once(title: &'static str, line: &'static str, wanted: Wanted) -> Call {
    Call { title, line, kind: Kind::Once, wanted }
}

pub(super) const CALLS: [Call; 11] = [
    once(
        "a call through the gateway",
        "curl -s -i -H \"Authorization: Bearer $JWT\" https://gateway.local/sum/2/3",
        Wanted::Words(&[" 200", "x-trace-id: ", "\"sum\":5", "\"x-trace-id\":"]),
    ),
    once("no token", "curl -s -i https://gateway.local/sum/2/3", Wanted::Words(&[" 401", "x-hms-error: HMS-3101"])),
    once(
        "no such route",
        "curl -s -i -H \"Authorization: Bearer $JWT\" https://gateway.local/sun/2/3",
        Wanted::Words(&[" 404", "x-hms-error: HMS-3401"]),
    ),
    once("what runs", "hms status", Wanted::Words(&["calc-svc", "hello-svc", "CLOSED"])),
    once("the breaker lab: stop the service", "hms stop calc-svc", Wanted::Words(&["calc-svc"])),
    once(
        "three calls: refused at once, none reaches the service",
        "curl -s -o /dev/null -w '%{http_code} after %{time_total} s\\n' -H \"Authorization: Bearer $JWT\" \
         'https://gateway.local/sum/[1-3]/1'",
        Wanted::EveryLine(3, "503 after"),
    ),
    once("why", "hms breaker show calc-svc", Wanted::Words(&["calc-svc", "OPEN"])),
    once("start it again", "hms start calc-svc", Wanted::Words(&["calc-svc"])),
    Call {
        title: "the breaker closes by itself",
        line: "hms breaker show calc-svc",
        kind: Kind::Until,
        wanted: Wanted::Words(&["calc-svc CLOSED"]),
    },
    once(
        "and traffic flows",
        "curl -s -H \"Authorization: Bearer $JWT\" https://gateway.local/sum/2/3",
        Wanted::Words(&["\"sum\":5"]),
    ),
    once(
        "21 calls at once: 20 per minute are allowed",
        "curl -s -o /dev/null -w '%{http_code}\\n' -H \"Authorization: Bearer $JWT\" 'https://gateway.local/sum/[1-21]/1'",
        Wanted::Ends(21, "200", "429"),
    ),
];

impl Call {
    /// Whether an answer is the wanted one.
    pub(super) fn fits(&self, answer: &str) -> bool {
        let lines: Vec<&str> = answer.lines().collect();
        match self.wanted {
            Wanted::Words(words) => words.iter().all(|word| answer.contains(word)),
            Wanted::EveryLine(count, start) => lines.len() == count && lines.iter().all(|line| line.starts_with(start)),
            Wanted::Ends(count, first, last) => {
                lines.len() == count && lines.first() == Some(&first) && lines.last() == Some(&last)
            }
        }
    }

    /// The wanted answer, for people.
    pub(super) fn expected(&self) -> String {
        match self.wanted {
            Wanted::Words(words) => format!("wanted {}", words.join(" and ")),
            Wanted::EveryLine(count, start) => format!("wanted {count} lines that start with {start}"),
            Wanted::Ends(count, first, last) => format!("wanted {count} lines, {first} first and {last} last"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_by_words_and_lines() {
        let every = once("", "", Wanted::EveryLine(2, "503"));
        assert!(every.fits("503 a\n503 b\n"));
        assert!(!every.fits("503 a\n") && !every.fits("503 a\n200 b\n"));
        let ends = once("", "", Wanted::Ends(3, "200", "429"));
        assert!(ends.fits("200\n200\n429\n"));
        assert!(!ends.fits("200\n429\n200\n"));
        let words = once("", "", Wanted::Words(&["a", "b"]));
        assert!(words.fits("b a") && !words.fits("b"));
    }
}
