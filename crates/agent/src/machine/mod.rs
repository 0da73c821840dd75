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
//!
//! any --a config that has it otherwise--> Stopping --ended--> Waiting
//! any --a config that has it no more----> Stopping --ended--> forgotten
//! ```
//!
//! Tasks and conditions have no process: they are asked like a service's probe, and a task's question is its work.

mod definition;
mod state;
mod unit;
mod units;
mod update;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::sync::Arc;
use std::time::Duration;

use bivouac_spec::NodeConfig;
use bivouac_spec::node::Signal;
use bivouac_spec::node::status::{NodePhase, UnitKind, UnitStatus};

pub(crate) use definition::Definition;

use unit::Unit;
use units::Units;

/// Number of a unit, which it keeps when the config changes and which no other gets when it is gone.
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
    /// Make ready what [`Machine::definition`] says of it; what was made ready for another definition is void, and an attempt at a
    /// task that is under way should give up. Comes before anything else about the unit.
    Prepare(UnitId),
    /// An attempt at the task that is under way should give up.
    Cancel(UnitId),
    /// The unit is gone.
    Forget(UnitId),
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
    units: Units,
    begun: bool,
    stopping: bool,
    finished: bool,
    was_usable: bool,
}

impl Machine {
    /// The machine of a config whose graph was checked, and what is to be done before [`Event::Begin`].
    pub(crate) fn new(config: &NodeConfig) -> (Self, Vec<Effect>) {
        let mut units = Units::default();
        let order: Vec<_> = definition::all_of(config).into_iter().map(|d| units.add(d)).collect();
        let effects = order.iter().copied().map(Effect::Prepare).collect();
        units.arrange(order);
        let machine =
            Self { units, begun: false, stopping: false, finished: false, was_usable: false };
        (machine, effects)
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
                self.answered(unit, round, answer, now, &mut effects);
            }
            Event::Noted { unit, round, detail } if self.units.contains(unit) => {
                self.units[unit].noted(round, detail);
            }
            Event::Noted { .. } => {}
            Event::Tick => self.tick(now, &mut effects),
            Event::Restart(unit) => self.restart(unit, now, &mut effects),
            Event::Stop => self.begin_to_stop(),
        }
        self.proceed(now, &mut effects);
        effects
    }

    /// Does what has become possible.
    fn proceed(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.stopping {
            self.stop_next(now, effects);
        } else if self.begun {
            self.retire_next(now, effects);
            self.start_next(now, effects);
        }
        self.was_usable |= self.all_ready();
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
        self.units.find(name, UnitKind::Service)
    }

    /// The names of all services.
    pub(crate) fn services(&self) -> Vec<&str> {
        self.units.iter().filter(|unit| unit.is_service()).map(Unit::name).collect()
    }

    /// What the config says of a unit.
    pub(crate) fn definition(&self, unit: UnitId) -> Arc<Definition> {
        Arc::clone(&self.units[unit].definition)
    }

    fn all_ready(&self) -> bool {
        self.begun && self.units.iter().all(|unit| unit.is_ready() || unit.definition.is_late())
    }

    fn waits_for(&self, unit: &Unit) -> Vec<&str> {
        let pending = unit.after.iter().map(|id| &self.units[*id]);
        pending.filter(|after| !after.is_ready()).map(Unit::name).collect()
    }
}
