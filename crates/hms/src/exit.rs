//! The exit codes every command uses, in one place; `hms help exit-codes` prints them.

use std::process::ExitCode;

/// How a command ended, as scripts see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// Tried and failed.
    Failed,
    /// The command line made no sense, or a question could not be asked.
    Usage,
    /// `check`, `lint`, `sim`, `diff`, `why`, `jwt inspect` and `enforce` worked, and found something.
    Findings,
    /// Not permitted, or not logged in.
    NotPermitted,
    /// The control plane cannot be reached.
    Unreachable,
    /// The deadline passed.
    Deadline,
    /// The state is not the one the command needs.
    Conflict,
    /// Interrupted from the keyboard.
    Interrupted,
    /// The code of the process that `hms run` ran.
    Child(u8),
}

/// What `hms help exit-codes` says: code and meaning.
pub(crate) const TABLE: [(u8, &str); 9] = [
    (0, "ok"),
    (1, "failed"),
    (2, "usage: the command line is wrong, or a question could not be asked"),
    (3, "findings: check, lint, sim, diff, why, jwt inspect or enforce found something"),
    (4, "not permitted, or not logged in"),
    (5, "control plane unreachable"),
    (6, "deadline passed"),
    (7, "conflict: the state is not the one the command needs"),
    (130, "interrupted from the keyboard"),
];

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Findings => 3,
            Self::NotPermitted => 4,
            Self::Unreachable => 5,
            Self::Deadline => 6,
            Self::Conflict => 7,
            Self::Interrupted => 130,
            Self::Child(code) => code,
        }
    }

    /// The meaning of a number that another of our processes returned.
    pub(crate) fn from_code(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            2 => Self::Usage,
            3 => Self::Findings,
            4 => Self::NotPermitted,
            5 => Self::Unreachable,
            6 => Self::Deadline,
            7 => Self::Conflict,
            130 => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_code_is_the_code_of_one_outcome() {
        let outcomes = [
            Exit::Ok,
            Exit::Failed,
            Exit::Usage,
            Exit::Findings,
            Exit::NotPermitted,
            Exit::Unreachable,
            Exit::Deadline,
            Exit::Conflict,
            Exit::Interrupted,
        ];
        assert_eq!(outcomes.map(Exit::code), TABLE.map(|(code, _)| code));
        for outcome in outcomes {
            assert_eq!(Exit::from_code(i32::from(outcome.code())), outcome);
        }
        assert_eq!(Exit::from_code(77), Exit::Failed);
        assert_eq!(Exit::Child(42).code(), 42);
    }
}
