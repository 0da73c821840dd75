//! Events as sentences, shared by the styles that people read.

use bivouac_engine::{Event, Progress, StepState, Unit};
use bivouac_spec::NodeStatus;
use bivouac_spec::node::{NodePhase, UnitState};

use crate::output;
use crate::report;

/// The lines that an event adds, if it is worth any.
pub fn of(event: &Event, color: bool) -> Vec<String> {
    match event {
        Event::Limited { problem } => {
            let mut text = String::new();
            report::render(&mut text, "warning", problem, color);
            text.lines().map(str::to_owned).collect()
        }
        Event::Noted { note } => vec![format!("note: {note}")],
        Event::Planned { actions } => actions.clone(),
        Event::NodeUsable { node, after } => {
            vec![format!("{node}: usable, {} after its start", seconds(*after))]
        }
        Event::NodeUpdated { node } => vec![format!("{node}: updated")],
        Event::NodeStopped { node } => vec![format!("{node}: stopped")],
        Event::NodeRemoved { node } => vec![format!("{node}: removed")],
        Event::Saved { size, paused_for, .. } => {
            vec![format!("{} saved, paused for {paused_for} ms", output::bytes(*size))]
        }
        Event::Working { what } => vec![what.clone()],
        // What a command came to is told by the command itself.
        Event::Started { .. }
        | Event::Ended { .. }
        | Event::Step(_)
        | Event::NodeStarted { .. }
        | Event::NodeStatus { .. } => Vec::new(),
    }
}

/// What a node waits for, in a few words; nothing when it is usable.
pub fn waiting(status: &NodeStatus) -> Option<String> {
    if status.phase == NodePhase::Usable {
        return None;
    }
    if status.phase == NodePhase::Applying {
        return Some("applies its config".to_owned());
    }
    let active: Vec<String> = status
        .pending()
        .filter(|unit| unit.state != UnitState::Waiting)
        .map(|unit| match &unit.detail {
            Some(detail) => format!("{} ({detail})", unit.name),
            None => unit.name.clone(),
        })
        .collect();
    let count = status.pending().count();
    if active.is_empty() {
        return Some(format!("{count} units to go"));
    }
    Some(format!("waits for {}", active.join(", ")))
}

/// The names of the units that a node actively waits for: what changes slowly enough to be a line each time.
pub fn waiting_names(status: &NodeStatus) -> Vec<String> {
    let active = status.pending().filter(|unit| unit.state != UnitState::Waiting);
    active.map(|unit| unit.name.clone()).collect()
}

/// How much of a step is done.
pub fn amount(progress: &Progress) -> String {
    let Progress { done, total, .. } = *progress;
    match (progress.unit, total) {
        (Unit::Bytes, 0) => output::bytes(done),
        (Unit::Bytes, _) => format!("{} of {}", output::bytes(done), output::bytes(total)),
        (Unit::Items, 0) => String::new(),
        (Unit::Items, _) => format!("{done} of {total}"),
    }
}

/// The state of a step as a word.
pub fn state(state: StepState) -> &'static str {
    match state {
        StepState::Planned => "planned",
        StepState::Running => "running",
        StepState::Done => "done",
        StepState::Reused => "already there",
        StepState::Failed => "failed",
    }
}

/// Time left, for people.
pub fn remaining(progress: &Progress) -> Option<String> {
    let seconds = progress.remaining?;
    Some(if seconds >= 90 {
        format!("about {} min left", seconds.div_ceil(60))
    } else {
        format!("about {seconds} s left")
    })
}

/// Milliseconds as seconds: `3.9 s`.
#[expect(clippy::cast_precision_loss, reason = "a few digits are shown")]
pub fn seconds(millis: u64) -> String {
    format!("{:.1} s", millis as f64 / 1000.0)
}
