//! Whether the member takes part in the cluster.
//!
//! ```text
//! Well --missed, of the lower half--> Lenient (for a while) --missed on--> Missed 1, 2, ... --enough--> Restart, then twice as patient
//!   ^-----------------------------------------answered-------------------------------------------------------+
//! ```
//!
//! While members come up one after another, the first of them cannot have a quorum and answer nothing, and to start them anew would
//! not help. So the lower half is left alone for a while: as many as cannot be a majority. An answer arms that anew.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bivouac_spec::node::paths;
use serde_json::Value;

use super::{GuardRequest, HealthWatch, api};
use crate::client;

/// However often it did not help, a daemon that does not answer is started anew after so many misses.
const FAILURES_MAX: u32 = 60;

/// What one answer means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It takes part.
    Well,
    /// It does again.
    WellAgain,
    /// It does not, and need not.
    Lenient,
    /// It does not.
    Missed,
    /// It did not for so long that its daemon is started anew.
    Restart,
}

/// What is remembered between answers.
#[derive(Debug)]
struct Health {
    watch: HealthWatch,
    is_lower: bool,
    /// When the first answer was missed.
    since: Option<Instant>,
    misses: u32,
    needed: u32,
}

impl Health {
    const fn new(watch: HealthWatch, position: usize, members: usize) -> Self {
        let needed = watch.failures;
        Self { watch, is_lower: position < members / 2, since: None, misses: 0, needed }
    }

    fn judge(&mut self, answered: bool, now: Instant) -> Verdict {
        if answered {
            let was_missed = self.since.take().is_some();
            (self.misses, self.needed) = (0, self.watch.failures);
            return if was_missed { Verdict::WellAgain } else { Verdict::Well };
        }
        let missing = now.saturating_duration_since(*self.since.get_or_insert(now));
        if self.is_lower && self.watch.lenience.is_none_or(|lenience| missing < lenience) {
            return Verdict::Lenient;
        }
        self.misses += 1;
        if self.misses < self.needed {
            return Verdict::Missed;
        }
        self.misses = 0;
        self.needed = self.needed.saturating_mul(2).min(FAILURES_MAX.max(self.watch.failures));
        Verdict::Restart
    }
}

pub(super) fn watch(
    request: &GuardRequest,
    watch: HealthWatch,
    say: &(dyn Fn(&str) + Sync),
) -> Infallible {
    let mut health = Health::new(watch, request.position, request.members);
    loop {
        let answer = ask(request, watch.timeout);
        let verdict = health.judge(answer.is_ok(), Instant::now());
        let why = answer.err().unwrap_or_default();
        match verdict {
            Verdict::Well => {}
            Verdict::WellAgain => say("the cluster answers again"),
            Verdict::Lenient => say(&format!("left alone, most members may not be up yet: {why}")),
            Verdict::Missed => {
                say(&format!("missed {} of {}: {why}", health.misses, health.needed))
            }
            Verdict::Restart => {
                say(&format!("restarting {}: {why}", request.service));
                if let Err(problem) = client::restart(paths::SOCKET.into(), &request.service) {
                    say(&problem.message);
                }
            }
        }
        std::thread::sleep(watch.interval);
    }
}

fn ask(request: &GuardRequest, timeout: Duration) -> Result<(), String> {
    let path = ("GET", "/1.0/cluster/members?recursion=1");
    check(&api::ask(&request.socket, path, None, timeout)?)
}

fn check(members: &Value) -> Result<(), String> {
    let names: Vec<&str> = members
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["server_name"].as_str())
        .collect();
    match names[..] {
        [] => Err("the cluster has no members".to_owned()),
        // What a daemon calls itself that is in no cluster.
        ["none"] => Err("it is in no cluster".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watch() -> HealthWatch {
        let second = Duration::from_secs(1);
        HealthWatch { interval: second, timeout: second, failures: 3, lenience: Some(300 * second) }
    }

    /// A letter for each second: `-` is missed, `+` is answered.
    fn verdicts(position: usize, members: usize, answers: &str) -> String {
        let mut health = Health::new(watch(), position, members);
        let start = Instant::now();
        let letters = answers.chars().enumerate().map(|(second, answer)| {
            let now = start + Duration::from_secs(second as u64);
            match health.judge(answer == '+', now) {
                Verdict::Well => 'w',
                Verdict::WellAgain => 'a',
                Verdict::Lenient => 'l',
                Verdict::Missed => 'm',
                Verdict::Restart => 'R',
            }
        });
        letters.collect()
    }

    #[test]
    fn the_daemon_is_started_anew_after_enough_misses_and_then_less_often() {
        assert_eq!(verdicts(2, 3, "++--+---+"), "wwmmammRa");
        assert_eq!(verdicts(1, 3, "---------------------"), "mmRmmmmmRmmmmmmmmmmmR");
        assert_eq!(verdicts(0, 1, "---+---"), "mmRammR");
    }

    #[test]
    fn only_those_who_cannot_be_a_majority_are_left_alone() {
        for (position, members, lenient) in [
            (0, 1, false),
            (0, 2, true),
            (1, 2, false),
            (0, 3, true),
            (1, 3, false),
            (1, 4, true),
            (2, 4, false),
        ] {
            let first = verdicts(position, members, "-");
            assert_eq!(first == "l", lenient, "{position} of {members}");
        }
    }

    #[test]
    fn leniency_ends_and_an_answer_arms_it_anew() {
        let missed = "-".repeat(303);
        let expected = format!("{}mmR", "l".repeat(300));
        assert_eq!(verdicts(0, 3, &missed), expected);
        assert_eq!(verdicts(0, 3, &format!("{missed}+{missed}")), format!("{expected}a{expected}"));
    }

    #[test]
    fn without_an_end_it_never_ends() {
        let watch = HealthWatch { lenience: None, ..watch() };
        let mut health = Health::new(watch, 0, 3);
        let start = Instant::now();
        for hour in 0..100 {
            assert_eq!(
                health.judge(false, start + Duration::from_secs(hour * 3600)),
                Verdict::Lenient
            );
        }
    }

    #[test]
    fn a_list_must_be_that_of_a_cluster() {
        assert!(check(&json!([{"server_name": "a"}, {"server_name": "b"}])).is_ok());
        for list in [json!([]), json!(null), json!([{"server_name": "none"}])] {
            check(&list).unwrap_err();
        }
    }
}
