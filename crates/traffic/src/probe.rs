//! What answers to probes come to: one odd answer changes nothing, some in a row do.

use hms_model::policy::Probe;

/// What an application answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// That it is well.
    Good,
    /// That it is not, something else, or nothing in time.
    Bad,
    /// Nothing listens there. That needs no second opinion.
    Absent,
}

/// An application's state by its answers so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streak {
    /// `None` before it was ever healthy.
    healthy: Option<bool>,
    /// Answers in a row that speak against that.
    against: u32,
}

impl Streak {
    /// Takes an answer in.
    pub fn observe(&mut self, answer: Answer, policy: &Probe) {
        let is_good = answer == Answer::Good;
        if is_good == self.is_healthy() {
            self.against = 0;
            return;
        }
        self.against = self.against.saturating_add(1);
        let enough = match (self.healthy, answer) {
            // Somebody waits for it, and it has not failed yet.
            (None, _) | (_, Answer::Absent) => 1,
            (Some(_), Answer::Good) => policy.healthy,
            (Some(_), Answer::Bad) => policy.unhealthy,
        };
        if self.against >= enough {
            *self = Self { healthy: Some(is_good), against: 0 };
        }
    }

    /// Whether it never was healthy so far.
    pub fn is_starting(self) -> bool {
        self.healthy.is_none()
    }

    /// Whether it is healthy.
    pub fn is_healthy(self) -> bool {
        self.healthy == Some(true)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(healthy: u32, unhealthy: u32) -> Probe {
        Probe { healthy, unhealthy, ..Probe::default() }
    }

    /// Whether it is healthy after each of these answers: `g`ood, `b`ad, `a`bsent.
    fn states(answers: &str, policy: &Probe) -> String {
        let mut streak = Streak::default();
        let step = |letter| {
            let answer = match letter {
                'g' => Answer::Good,
                'b' => Answer::Bad,
                _ => Answer::Absent,
            };
            streak.observe(answer, policy);
            if streak.is_healthy() { '+' } else { '-' }
        };
        answers.chars().map(step).collect()
    }

    #[test]
    fn the_first_good_answer_is_enough_and_later_changes_need_answers_in_a_row() {
        assert_eq!(states("aabgbbgbbbggbgg", &policy(2, 3)), "---++++++--++++");
    }

    #[test]
    fn where_nothing_listens_one_answer_is_enough() {
        assert_eq!(states("gag", &policy(1, 3)), "+-+");
        assert_eq!(states("gbagg", &policy(2, 3)), "++--+");
    }

    #[test]
    fn with_thresholds_of_one_every_answer_counts() {
        assert_eq!(states("bgbgg", &policy(1, 1)), "-+-++");
    }

    proptest! {
        #[test]
        fn fewer_bad_answers_in_a_row_than_the_threshold_never_make_it_unhealthy(
            unhealthy in 2_u32..10, runs in prop::collection::vec(0_u32..10, 1..50)
        ) {
            let policy = policy(1, unhealthy);
            let mut streak = Streak::default();
            streak.observe(Answer::Good, &policy);
            for run in runs {
                for _ in 0..run.min(unhealthy - 1) {
                    streak.observe(Answer::Bad, &policy);
                    prop_assert!(streak.is_healthy());
                }
                streak.observe(Answer::Good, &policy);
            }
        }

        #[test]
        fn a_constant_answer_changes_it_once_at_most(bad: bool, healthy in 1_u32..10, unhealthy in 1_u32..10) {
            let policy = policy(healthy, unhealthy);
            let mut streak = Streak::default();
            streak.observe(Answer::Good, &policy);
            let (mut changes, mut last) = (0, true);
            for _ in 0..50 {
                streak.observe(if bad { Answer::Bad } else { Answer::Good }, &policy);
                changes += u32::from(streak.is_healthy() != last);
                last = streak.is_healthy();
            }
            prop_assert_eq!(changes, u32::from(bad));
        }
    }
}
