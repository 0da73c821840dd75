//! What the config says of a unit, and what of it the machine needs.

use std::sync::Arc;
use std::time::Duration;

use bivouac_spec::NodeConfig;
use bivouac_spec::node::status::UnitKind;
use bivouac_spec::node::{Check, Condition, Probe, Restart, Run, Service, Stop, Task};
use camino::Utf8PathBuf;

/// First and longest wait between two tries of a task that asks over a connection which is kept: what it waits for is often on the
/// way to a usable cluster.
const REQUEST_PACE: Pace =
    Pace { first: Duration::from_millis(25), max: Duration::from_millis(100), again: false };
/// First and longest wait between two tries of any other task.
const TASK_PACE: Pace =
    Pace { first: Duration::from_millis(50), max: Duration::from_millis(500), again: false };
/// A look at a path or a Unix socket costs microseconds: it is never made less often than this.
const LOOK: Duration = Duration::from_millis(10);

/// How often a unit is asked while the answer is not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) first: Duration,
    pub(super) max: Duration,
    /// Whether it is asked even when it is ready.
    pub(super) again: bool,
}

/// A unit as the config has it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Definition {
    Service(Service),
    Task(Task),
    Condition(Condition),
}

/// What of a unit must be done over when its definition becomes another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: what is done or runs is as the new one wants it.
    Nothing,
    /// The process stays, and whether it is ready is asked in another way.
    Question,
    /// The process or the work.
    Everything,
}

/// All units of a config in its order: services, then tasks, then conditions.
pub(super) fn all_of(config: &NodeConfig) -> Vec<Arc<Definition>> {
    let services = config.services.iter().cloned().map(Definition::Service);
    let tasks = config.tasks.iter().cloned().map(Definition::Task);
    let conditions = config.conditions.iter().cloned().map(Definition::Condition);
    services.chain(tasks).chain(conditions).map(Arc::new).collect()
}

impl Definition {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Service(Service { name, .. })
            | Self::Task(Task { name, .. })
            | Self::Condition(Condition { name, .. }) => name,
        }
    }

    pub(super) fn kind(&self) -> UnitKind {
        match self {
            Self::Service(_) => UnitKind::Service,
            Self::Task(_) => UnitKind::Task,
            Self::Condition(_) => UnitKind::Condition,
        }
    }

    pub(super) fn after(&self) -> &[String] {
        match self {
            Self::Service(Service { after, .. })
            | Self::Task(Task { after, .. })
            | Self::Condition(Condition { after, .. }) => after,
        }
    }

    /// Whether a node is usable without it.
    pub(super) fn is_late(&self) -> bool {
        matches!(self, Self::Task(Task { late: true, .. }))
    }

    /// Absent: ready as soon as it runs.
    pub(super) fn pace(&self) -> Option<Pace> {
        match self {
            Self::Service(service) => service.ready.as_ref().map(pace),
            Self::Task(Task { run: Run::Requests(_), .. }) => Some(REQUEST_PACE),
            Self::Task(_) => Some(TASK_PACE),
            Self::Condition(condition) => Some(pace(&condition.probe)),
        }
    }

    pub(super) fn restart(&self) -> Restart {
        match self {
            Self::Service(service) => service.restart,
            _ => Restart::default(),
        }
    }

    pub(super) fn stop(&self) -> Stop {
        match self {
            Self::Service(service) => service.stop,
            _ => Stop::default(),
        }
    }

    /// What must be done over, if files at these paths changed too.
    pub(super) fn change_to(&self, new: &Self, touched: &[Utf8PathBuf]) -> Change {
        let is_watched =
            |path: &Utf8PathBuf| new.watch().iter().any(|watched| path.starts_with(watched));
        let keeps = match (self, new) {
            (Self::Service(old), Self::Service(new)) => old.runs_as(new),
            (Self::Task(old), Self::Task(new)) => old.run == new.run,
            // A condition has to hold under the new config, not under the one before.
            _ => false,
        };
        match (self, new) {
            _ if !keeps || touched.iter().any(is_watched) => Change::Everything,
            (Self::Service(old), Self::Service(new)) if old.ready != new.ready => Change::Question,
            _ => Change::Nothing,
        }
    }

    fn watch(&self) -> &[Utf8PathBuf] {
        match self {
            Self::Service(Service { watch, .. }) | Self::Task(Task { watch, .. }) => watch,
            Self::Condition(_) => &[],
        }
    }
}

fn pace(probe: &Probe) -> Pace {
    let interval = probe.interval.duration();
    let interval = match probe.check {
        Check::Socket(_) | Check::File(_) => interval.min(LOOK),
        _ => interval,
    };
    Pace { first: interval, max: interval, again: probe.since().is_none() }
}
