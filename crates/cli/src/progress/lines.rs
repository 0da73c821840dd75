//! A line for each thing that happens, for logs and pipes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use bivouac_engine::{Event, Progress, Reporter, StepState, Unit};
use bivouac_spec::NodeName;

use super::{sentence, write_line};

/// The shortest time between two lines about what one node waits for.
const NODE_PACE: Duration = Duration::from_secs(1);

/// The shortest time between two lines about one running step that takes minutes.
const PACE: Duration = Duration::from_secs(10);

/// The same for bytes on their way.
const BYTES_PACE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Seen {
    waiting: BTreeMap<NodeName, (Instant, Vec<String>)>,
    steps: BTreeMap<String, Instant>,
}

/// A reporter that writes lines.
pub fn reporter(color: bool) -> Reporter {
    let seen = Mutex::new(Seen::default());
    Reporter::new(move |event| {
        for line in sentence::of(&event, color) {
            write_line(&line);
        }
        let Ok(mut seen) = seen.lock() else { return };
        match &event {
            Event::Step(progress) => {
                if let Some(line) = step(&mut seen.steps, progress) {
                    write_line(&line);
                }
            }
            Event::NodeStatus { status } => {
                let names = sentence::waiting_names(status);
                let Some(sentence) = sentence::waiting(status) else { return };
                let last = seen.waiting.get(&status.node);
                let due =
                    last.is_none_or(|(when, said)| when.elapsed() >= NODE_PACE && *said != names);
                if due && !names.is_empty() {
                    write_line(&format!("{}: {sentence}", status.node));
                    seen.waiting.insert(status.node.clone(), (Instant::now(), names));
                }
            }
            _ => {}
        }
    })
}

fn step(steps: &mut BTreeMap<String, Instant>, progress: &Progress) -> Option<String> {
    let first = !steps.contains_key(&progress.step);
    let pace = if progress.unit == Unit::Bytes { BYTES_PACE } else { PACE };
    let due = steps.get(&progress.step).is_none_or(|last| last.elapsed() >= pace);
    let said = match progress.state {
        StepState::Planned => return None,
        StepState::Running if !due => return None,
        StepState::Running if first => "started".to_owned(),
        StepState::Running => sentence::amount(progress),
        state => sentence::state(state).to_owned(),
    };
    steps.insert(progress.step.clone(), Instant::now());
    let detail = progress.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    let left = sentence::remaining(progress).map(|left| format!(", {left}")).unwrap_or_default();
    Some(format!("{}: {said}{detail}{left}", progress.step))
}
