//! Steps of a build as the engine's events, with the time that is left by the pace so far.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;

use bivouac_engine::{Event, Progress, Reporter, StepState, Unit};

struct Step {
    name: String,
    weight: f64,
    fraction: f64,
    state: StepState,
    done: u64,
    total: u64,
    unit: Unit,
    detail: Option<String>,
}

struct Build {
    started: Instant,
    steps: BTreeMap<String, Step>,
}

/// A consumer of the store's events that reports them as steps.
pub fn step_reporter(reporter: Reporter) -> impl Fn(bivouac_image::Event) + Sync {
    let build = Mutex::new(Build { started: Instant::now(), steps: BTreeMap::new() });
    move |event| {
        let Ok(mut build) = build.lock() else { return };
        for progress in build.take(event) {
            reporter.report(Event::Step(progress));
        }
    }
}

impl Build {
    fn take(&mut self, event: bivouac_image::Event) -> Vec<Progress> {
        use bivouac_image::Event as E;
        match event {
            E::Planned { steps } => {
                for step in &steps {
                    self.step(&step.id).name.clone_from(&step.name);
                    self.step(&step.id).weight = step.weight.into();
                }
                steps.iter().map(|step| self.progress(&step.id)).collect()
            }
            E::Started { step } => self.change(&step, |step| step.state = StepState::Running),
            E::Waiting { step } => self.change(&step, |step| {
                step.state = StepState::Running;
                step.detail = Some("another bivouac makes it; waiting".to_owned());
            }),
            E::Progress { step, done, total, unit } => self.change(&step, |step| {
                (step.state, step.done, step.total) =
                    (StepState::Running, done, total.unwrap_or(0));
                step.fraction = fraction(done, step.total);
                step.unit =
                    if unit == bivouac_image::Unit::Bytes { Unit::Bytes } else { Unit::Items };
            }),
            E::Note { step, text } => self.change(&step, |step| step.detail = Some(text)),
            E::Finished { step, .. } => {
                self.change(&step, |step| (step.state, step.fraction) = (StepState::Done, 1.0))
            }
            E::Reused { step, .. } => {
                self.change(&step, |step| (step.state, step.weight) = (StepState::Reused, 0.0))
            }
            E::Failed { step, error } => self.change(&step, |step| {
                (step.state, step.detail) = (StepState::Failed, Some(error));
            }),
        }
    }

    fn step(&mut self, id: &str) -> &mut Step {
        self.steps.entry(id.to_owned()).or_insert_with(|| Step {
            name: id.to_owned(),
            weight: 0.0,
            fraction: 0.0,
            state: StepState::Planned,
            done: 0,
            total: 0,
            unit: Unit::Items,
            detail: None,
        })
    }

    fn change(&mut self, id: &str, change: impl FnOnce(&mut Step)) -> Vec<Progress> {
        change(self.step(id));
        vec![self.progress(id)]
    }

    fn progress(&mut self, id: &str) -> Progress {
        let remaining = self.remaining();
        let step = self.step(id);
        Progress {
            step: step.name.clone(),
            state: step.state,
            done: step.done,
            total: step.total,
            unit: step.unit,
            remaining: if step.state == StepState::Running { remaining } else { None },
            detail: step.detail.clone(),
        }
    }

    /// Seconds until all steps are done: by the weights at first, by the pace when some of it is done.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a small positive number of seconds"
    )]
    fn remaining(&self) -> Option<u64> {
        let all: f64 = self.steps.values().map(|step| step.weight).sum();
        let done: f64 = self.steps.values().map(|step| step.weight * step.fraction).sum();
        if all <= done {
            return None;
        }
        let pace =
            if done >= all / 20.0 { self.started.elapsed().as_secs_f64() / done } else { 1.0 };
        Some(((all - done) * pace).ceil() as u64)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share needs few digits")]
fn fraction(done: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { (done as f64 / total as f64).min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_image::Event as E;

    #[test]
    fn steps_that_are_there_already_cost_no_time() {
        let mut build = Build { started: Instant::now(), steps: BTreeMap::new() };
        let step = |id: &str| bivouac_image::Step { id: id.into(), name: id.into(), weight: 100 };
        build.take(E::Planned { steps: vec![step("a"), step("b")] });
        assert_eq!(build.remaining(), Some(200));
        let reused = build.take(E::Reused { step: "a".into(), size: 1 });
        assert_eq!(reused[0].state, StepState::Reused);
        assert_eq!(build.remaining(), Some(100));
        build.take(E::Finished { step: "b".into(), size: 1, millis: 1 });
        assert_eq!(build.remaining(), None);
    }
}
