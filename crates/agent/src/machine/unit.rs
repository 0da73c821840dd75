//! One unit: what the config says of it, how far it is, and how answers move it.

use std::collections::BTreeMap;
use std::time::Duration;

use bivouac_spec::NodeConfig;
use bivouac_spec::node::status::{UnitKind, UnitState, UnitStatus};
use bivouac_spec::node::{Check, Probe, Restart, Run, Stop};

use super::{Answer, UnitId};

/// How often what is ready is asked again.
const SLOW: Duration = Duration::from_secs(10);
/// How often it is asked after an answer that was not yet.
const SUSPECT: Duration = Duration::from_secs(1);
/// So many such answers in a row, and it does not count as ready any more.
const MISSES: u32 = 3;
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
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    first: Duration,
    max: Duration,
    again: bool,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) name: String,
    pub(super) kind: UnitKind,
    pub(super) after: Vec<UnitId>,
    pub(super) dependents: Vec<UnitId>,
    /// Absent: ready as soon as it runs.
    pub(super) pace: Option<Pace>,
    pub(super) restart: Restart,
    pub(super) stop: Stop,

    pub(super) state: UnitState,
    pub(super) detail: Option<String>,
    pub(super) pid: Option<u32>,
    pub(super) restarts: u32,
    pub(super) ready_after: Option<Duration>,
    pub(super) ready_since: Option<Duration>,
    /// The next try, start or SIGKILL, as the state says.
    pub(super) wake: Option<Duration>,
    /// Answers to an earlier round come too late to matter.
    pub(super) round: u32,
    pub(super) asking: bool,
    /// Start it anew once it is stopped.
    pub(super) anew: bool,
    /// The wait before the next start after it ended by itself.
    pub(super) backoff: Duration,
    interval: Duration,
    misses: u32,
    lost: bool,
}

/// Every unit of a config, with the graph as numbers.
pub(super) fn all_of(config: &NodeConfig) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut afters = Vec::new();
    for service in &config.services {
        let mut unit =
            Unit::new(&service.name, UnitKind::Service, service.ready.as_ref().map(pace));
        (unit.restart, unit.stop) = (service.restart, service.stop);
        unit.backoff = service.restart.initial.duration();
        units.push(unit);
        afters.push(&service.after);
    }
    for task in &config.tasks {
        let pace = if matches!(task.run, Run::Requests(_)) { REQUEST_PACE } else { TASK_PACE };
        units.push(Unit::new(&task.name, UnitKind::Task, Some(pace)));
        afters.push(&task.after);
    }
    for condition in &config.conditions {
        let pace = pace(&condition.probe);
        units.push(Unit::new(&condition.name, UnitKind::Condition, Some(pace)));
        afters.push(&condition.after);
    }
    let ids: BTreeMap<_, _> =
        units.iter().enumerate().map(|(id, unit)| (unit.name.clone(), id)).collect();
    for (id, after) in afters.into_iter().enumerate() {
        let after: Vec<UnitId> = after.iter().filter_map(|name| ids.get(name).copied()).collect();
        for other in &after {
            units[*other].dependents.push(id);
        }
        units[id].after = after;
    }
    units
}

fn pace(probe: &Probe) -> Pace {
    let interval = probe.interval.duration();
    let interval = match probe.check {
        Check::Socket(_) | Check::File(_) => interval.min(LOOK),
        _ => interval,
    };
    Pace { first: interval, max: interval, again: true }
}

impl Unit {
    fn new(name: &str, kind: UnitKind, pace: Option<Pace>) -> Self {
        Self {
            name: name.to_owned(),
            kind,
            after: Vec::new(),
            dependents: Vec::new(),
            pace,
            restart: Restart::default(),
            stop: Stop::default(),
            state: UnitState::Waiting,
            detail: None,
            pid: None,
            restarts: 0,
            ready_after: None,
            ready_since: None,
            wake: None,
            round: 0,
            asking: false,
            anew: false,
            backoff: Duration::ZERO,
            interval: Duration::ZERO,
            misses: 0,
            lost: false,
        }
    }

    pub(super) fn is_service(&self) -> bool {
        self.kind == UnitKind::Service
    }

    /// Forgets what was answered before, as for a new process.
    pub(super) fn renew(&mut self) {
        self.round += 1;
        self.asking = false;
        self.misses = 0;
        self.lost = false;
        self.wake = None;
        self.ready_since = None;
        self.detail = None;
        self.interval = self.pace.map_or(Duration::ZERO, |pace| pace.first);
    }

    pub(super) fn become_ready(&mut self, now: Duration) {
        self.state = UnitState::Ready;
        self.detail = None;
        self.misses = 0;
        self.lost = false;
        self.ready_after.get_or_insert(now);
        self.ready_since = Some(now);
        self.wake = self.pace.filter(|pace| pace.again).map(|_| now + SLOW);
    }

    pub(super) fn answered(&mut self, round: u32, answer: Answer, now: Duration, stopping: bool) {
        if round != self.round || !self.asking {
            return;
        }
        self.asking = false;
        match (self.state, answer) {
            _ if stopping => {}
            (UnitState::Starting, Answer::Yes) => self.become_ready(now),
            (UnitState::Starting, Answer::NotYet { detail, advanced }) => {
                self.detail = Some(detail);
                self.wake = Some(now + self.next_interval(advanced));
            }
            (UnitState::Ready, Answer::Yes) => {
                self.misses = 0;
                self.wake = Some(now + SLOW);
            }
            (UnitState::Ready, Answer::NotYet { detail, .. }) => {
                self.misses += 1;
                self.wake = Some(now + SUSPECT);
                if self.misses >= MISSES {
                    self.state = UnitState::Starting;
                    self.ready_since = None;
                    self.lost = true;
                    self.detail = Some(format!("not ready any more: {detail}"));
                }
            }
            _ => {}
        }
    }

    fn next_interval(&mut self, advanced: bool) -> Duration {
        let Some(pace) = self.pace else { return SUSPECT };
        if self.lost {
            return pace.first.max(SUSPECT);
        }
        if advanced {
            self.interval = pace.first;
        }
        let interval = self.interval;
        self.interval = (interval * 2).min(pace.max);
        interval
    }

    pub(super) fn noted(&mut self, round: u32, detail: String) {
        if round == self.round && self.asking && self.state == UnitState::Starting {
            self.detail = Some(detail);
        }
    }

    pub(super) fn status(&self, waits_for: &[&str]) -> UnitStatus {
        let detail = match self.state {
            UnitState::Waiting if !waits_for.is_empty() => {
                Some(format!("waits for {}", waits_for.join(", ")))
            }
            _ => self.detail.clone(),
        };
        UnitStatus {
            name: self.name.clone(),
            kind: self.kind,
            state: self.state,
            detail,
            pid: self.pid,
            restarts: self.restarts,
            ready_after: self.ready_after.map(super::super::clock::milliseconds),
        }
    }
}
