//! One unit: what the config says of it, how far it is, and how answers move it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bivouac_spec::node::Stop;
use bivouac_spec::node::status::{UnitKind, UnitState, UnitStatus};

use super::definition::Definition;
use super::{Answer, UnitId};

/// How often what is ready is asked again.
const SLOW: Duration = Duration::from_secs(10);
/// How often it is asked after an answer that was not yet.
const SUSPECT: Duration = Duration::from_secs(1);
/// So many such answers in a row, and it does not count as ready any more.
const MISSES: u32 = 3;

/// What comes when a unit is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: the node stops.
    Rest,
    /// It starts at once: a person wants it anew.
    Launch,
    /// It starts when what it waits for is ready: it is another one now.
    Wait,
    /// It is forgotten: the config has it no more.
    Leave,
}

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) definition: Arc<Definition>,
    pub(super) after: Vec<UnitId>,
    pub(super) dependents: Vec<UnitId>,
    /// How the present process is stopped, which another definition may have said.
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
    pub(super) next: Next,
    /// It is to be stopped, but not before [`Self::first`].
    pub(super) retiring: bool,
    /// What is being stopped and needs it: whenever it is stopped itself, these are first.
    pub(super) first: BTreeSet<UnitId>,
    /// The wait before the next start after it ended by itself.
    pub(super) backoff: Duration,
    interval: Duration,
    misses: u32,
    lost: bool,
}

impl Unit {
    pub(super) fn new(definition: Arc<Definition>) -> Self {
        let (stop, backoff) = (definition.stop(), definition.restart().initial.duration());
        Self {
            definition,
            after: Vec::new(),
            dependents: Vec::new(),
            stop,
            state: UnitState::Waiting,
            detail: None,
            pid: None,
            restarts: 0,
            ready_after: None,
            ready_since: None,
            wake: None,
            round: 0,
            asking: false,
            next: Next::Rest,
            retiring: false,
            first: BTreeSet::new(),
            backoff,
            interval: Duration::ZERO,
            misses: 0,
            lost: false,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.definition.name()
    }

    pub(super) fn kind(&self) -> UnitKind {
        self.definition.kind()
    }

    pub(super) fn is_service(&self) -> bool {
        self.kind() == UnitKind::Service
    }

    pub(super) fn is_ready(&self) -> bool {
        self.state == UnitState::Ready && !self.retiring
    }

    /// Whether its process runs or its work is being tried: it cannot become another one before that has ended.
    pub(super) fn is_busy(&self) -> bool {
        match self.kind() {
            UnitKind::Service => self.pid.is_some() || self.state == UnitState::Stopping,
            UnitKind::Task => self.asking,
            UnitKind::Condition => false,
        }
    }

    /// Whether the config wants its process or work as it is.
    pub(super) fn is_wanted(&self) -> bool {
        matches!(self.next, Next::Rest | Next::Launch)
    }

    pub(super) fn is_being_stopped(&self) -> bool {
        self.retiring || self.state == UnitState::Stopping
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
        self.interval = self.definition.pace().map_or(Duration::ZERO, |pace| pace.first);
    }

    pub(super) fn become_ready(&mut self, now: Duration) {
        self.state = UnitState::Ready;
        self.detail = None;
        self.misses = 0;
        self.lost = false;
        self.ready_after.get_or_insert(now);
        self.ready_since = Some(now);
        self.wake = self.definition.pace().filter(|pace| pace.again).map(|_| now + SLOW);
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
        let Some(pace) = self.definition.pace() else { return SUSPECT };
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
        let state = match self.state {
            _ if self.retiring => UnitState::Stopping,
            state => state,
        };
        UnitStatus {
            name: self.name().to_owned(),
            kind: self.kind(),
            state,
            detail,
            pid: self.pid,
            restarts: self.restarts,
            ready_after: self.ready_after.map(super::super::clock::milliseconds),
            late: self.definition.is_late(),
        }
    }
}
