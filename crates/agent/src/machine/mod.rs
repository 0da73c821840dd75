//! What the agent decides: which unit starts, is asked, is signalled, and when. Pure: events and the time go in, effects come
//! out, nothing here knows a process or a clock, so that properties are tested without any.
//!
//! ```text
//! Waiting --all of `after` are ready--> Starting --answer is yes--> Ready
//!                                        ^  ^  |                     |  |
//!                                        |  |  +---ends by itself----+  |
//!                                        |  |  v                        |
//!                                        |  Restarting    3 misses      |
//!                                        +------------------------------+
//! any --stop, once all dependents are stopped--> Stopping --ended--> Stopped
//! ```
//!
//! Tasks and conditions have no process: they are asked like a service's probe, and a task's question is its work.

mod state;
mod unit;

#[cfg(test)]
mod properties;

use std::time::Duration;

use bivouac_spec::NodeConfig;
use bivouac_spec::node::Signal;
use bivouac_spec::node::status::{NodePhase, UnitState, UnitStatus};

use unit::Unit;

/// Place of a unit in the config: services, then tasks, then conditions.
pub(crate) type UnitId = usize;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The config is applied: units may start.
    Begin,
    /// The process of a service runs.
    Started { unit: UnitId, pid: u32 },
    /// The process of a service ended, or could not be started: how, and the last line that it wrote.
    Ended { unit: UnitId, how: String, last_line: Option<String> },
    /// The answer to [`Effect::Ask`] of the same round.
    Answered { unit: UnitId, round: u32, answer: Answer },
    /// What a task is at, while it is still being asked.
    Noted { unit: UnitId, round: u32, detail: String },
    /// A deadline passed.
    Tick,
    /// A person wants the service to be started anew.
    Restart(UnitId),
    /// The node stops.
    Stop,
}

/// The answer to one try of a probe or a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Ready, done, or holds.
    Yes,
    /// Not yet: what was seen, and whether the try got further than the one before.
    NotYet { detail: String, advanced: bool },
}

impl Answer {
    pub(crate) fn not_yet(detail: impl Into<String>) -> Self {
        Self::NotYet { detail: detail.into(), advanced: false }
    }
}

/// Something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start the process; answered by [`Event::Started`] or [`Event::Ended`].
    Start(UnitId),
    /// Signal the process.
    Signal(UnitId, Signal),
    /// Try the probe or the task once; answered by [`Event::Answered`].
    Ask { unit: UnitId, round: u32 },
    /// Everything is stopped.
    Finished,
}

/// All units of a node.
#[derive(Debug)]
pub(crate) struct Machine {
    units: Vec<Unit>,
    begun: bool,
    stopping: bool,
    finished: bool,
    was_usable: bool,
}

impl Machine {
    /// The machine of a config whose graph was checked.
    pub(crate) fn new(config: &NodeConfig) -> Self {
        let units = unit::all_of(config);
        Self { units, begun: false, stopping: false, finished: false, was_usable: false }
    }

    /// Takes one event at a time since the agent's start; returns what is to be done, in order.
    pub(crate) fn handle(&mut self, now: Duration, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Begin => self.begun = true,
            Event::Started { unit, pid } => self.started(unit, pid, now, &mut effects),
            Event::Ended { unit, how, last_line } => {
                self.ended(unit, &how, last_line.as_deref(), now, &mut effects);
            }
            Event::Answered { unit, round, answer } => {
                let stopping = self.stopping;
                self.units[unit].answered(round, answer, now, stopping);
            }
            Event::Noted { unit, round, detail } => self.units[unit].noted(round, detail),
            Event::Tick => self.tick(now, &mut effects),
            Event::Restart(unit) => self.restart(unit, now, &mut effects),
            Event::Stop => self.stopping = true,
        }
        if self.stopping {
            self.stop_next(now, &mut effects);
        } else if self.begun {
            self.start_next(now, &mut effects);
        }
        self.was_usable |= self.all_ready();
        effects
    }

    /// When [`Event::Tick`] is wanted next.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.units.iter().filter_map(|unit| unit.wake).min()
    }

    /// How far the node is.
    pub(crate) fn phase(&self) -> NodePhase {
        if self.stopping {
            NodePhase::Stopping
        } else if !self.begun {
            NodePhase::Applying
        } else if self.all_ready() {
            NodePhase::Usable
        } else if self.was_usable {
            NodePhase::Degraded
        } else {
            NodePhase::Starting
        }
    }

    /// Every unit as it is now.
    pub(crate) fn status(&self) -> Vec<UnitStatus> {
        self.units.iter().map(|unit| unit.status(&self.waits_for(unit))).collect()
    }

    /// The service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<UnitId> {
        self.units.iter().position(|unit| unit.name == name && unit.is_service())
    }

    fn all_ready(&self) -> bool {
        self.begun && self.units.iter().all(|unit| unit.state == UnitState::Ready)
    }

    fn waits_for(&self, unit: &Unit) -> Vec<&str> {
        let pending = unit.after.iter().map(|id| &self.units[*id]);
        pending
            .filter(|after| after.state != UnitState::Ready)
            .map(|after| after.name.as_str())
            .collect()
    }
}
