//! Bytes on their way to a ground or to nodes, told as a step.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::{Event, Progress, Reporter, StepState, Unit};

/// The shortest time between two events about one transfer.
const PACE: Duration = Duration::from_millis(100);

/// A transfer. Says nothing before the first bytes are told, so that what is not needed is not told.
pub(crate) struct Transfer {
    step: String,
    reporter: Reporter,
    started: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    done: u64,
    total: u64,
    said: Option<Instant>,
}

impl Transfer {
    pub(crate) fn new(step: String, reporter: &Reporter) -> Self {
        let (reporter, seen) = (reporter.clone(), Mutex::default());
        Self { step, reporter, started: Instant::now(), seen }
    }

    /// So many bytes are there; a total of 0 is not known.
    pub(crate) fn reached(&self, done: u64, total: u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let moved = (seen.done, seen.total) != (done, total);
        (seen.done, seen.total) = (done, total);
        if seen.said.is_none_or(|said| moved && said.elapsed() >= PACE) {
            seen.said = Some(Instant::now());
            self.reporter.report(self.event(StepState::Running, *seen));
        }
    }

    /// It came to an end.
    pub(crate) fn ended(&self, worked: bool) {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.said.is_some() {
            let state = if worked { StepState::Done } else { StepState::Failed };
            self.reporter.report(self.event(state, seen));
        }
    }

    fn event(&self, state: StepState, seen: Seen) -> Event {
        let Seen { done, total, .. } = seen;
        let remaining = if state == StepState::Running {
            remaining(self.started.elapsed(), done, total)
        } else {
            None
        };
        let step = self.step.clone();
        Event::Step(Progress {
            step,
            state,
            done,
            total,
            unit: Unit::Bytes,
            remaining,
            detail: None,
        })
    }
}

/// Seconds that are left by the pace so far; nothing while that says little.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<u64> {
    if done >= total || done < total / 20 || elapsed < Duration::from_secs(1) {
        return None;
    }
    let millis =
        elapsed.as_millis().checked_mul(u128::from(total - done))? / u128::from(done.max(1));
    u64::try_from(millis.div_ceil(1000)).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn only_what_moves_is_told_and_its_end_with_all_of_it() {
        let events = Arc::new(Mutex::new(Vec::new()));
        let reporter = {
            let events = Arc::clone(&events);
            Reporter::new(move |event| events.lock().unwrap().push(event))
        };
        Transfer::new("nothing".to_owned(), &reporter).ended(true);
        let transfer = Transfer::new("image".to_owned(), &reporter);
        for done in 0..=1000 {
            transfer.reached(done, 1000);
        }
        transfer.ended(true);
        let events = events.lock().unwrap();
        let Some(Event::Step(first)) = events.first() else { panic!("{events:?}") };
        assert_eq!(
            (first.step.as_str(), first.done, first.state),
            ("image", 0, StepState::Running)
        );
        let Some(Event::Step(last)) = events.last() else { panic!("{events:?}") };
        assert_eq!((last.done, last.state), (1000, StepState::Done));
        assert!(events.len() < 1000, "every byte is an event");
    }

    #[test]
    fn time_left_follows_the_pace() {
        let seconds = Duration::from_secs;
        assert_eq!(remaining(seconds(10), 500, 1000), Some(10));
        assert_eq!(remaining(seconds(10), 1, 1000), None);
        assert_eq!(remaining(seconds(10), 5, 0), None);
        assert_eq!(remaining(Duration::from_millis(10), 500, 1000), None);
    }
}
