//! The world around a machine in tests: random configs, processes, questions and a clock.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::status::UnitState;
use camino::Utf8PathBuf;
use serde_json::json;

/// A unit of a random config: its kind, what it waits for, and which of several definitions it has.
pub(super) type Piece = (u8, Vec<usize>, u8);

pub(super) fn config(afters: &[(u8, Vec<usize>)]) -> NodeConfig {
    let pieces: Vec<_> = afters.iter().map(|(kind, after)| (*kind, after.clone(), 0)).collect();
    config_of(&pieces)
}

pub(super) fn config_of(afters: &[Piece]) -> NodeConfig {
    // Kinds are sorted, because units are numbered services first.
    let (mut services, mut tasks, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (kind, after, variant)) in afters.iter().enumerate() {
        let name = format!("u{index}");
        let after: Vec<_> = after
            .iter()
            .map(|a| a % index.max(1))
            .filter(|a| *a < index)
            .map(|a| format!("u{a}"))
            .collect();
        let probe = json!({"check": {"file": "/x"}});
        let command = [format!("/x{variant}")];
        let watch = [format!("/etc/u{index}")];
        match kind {
            0 => services
                .push(json!({"name": name, "command": command, "after": after, "watch": watch})),
            1 => services.push(json!({"name": name, "command": command, "after": after,
                "watch": watch, "ready": probe})),
            2 => tasks.push(json!({"name": name, "after": after, "watch": watch,
                "run": {"command": command}})),
            _ => conditions.push(json!({"name": name, "after": after, "probe": probe})),
        }
    }
    let whole = json!({"format": FORMAT, "cluster": "c", "node": "n",
        "services": services, "tasks": tasks, "conditions": conditions});
    serde_json::from_value(whole).unwrap()
}

/// The world around a machine: processes that run, questions that are open, and a clock.
pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) now: Duration,
    pub(super) running: Vec<UnitId>,
    pub(super) open: Vec<(UnitId, u32)>,
    pub(super) prepared: BTreeSet<UnitId>,
    pub(super) ever: BTreeSet<UnitId>,
    pub(super) finished: bool,
    pub(super) deaf: Vec<UnitId>,
    /// Whether no two configs contradict each other, so that the order of stops is sure.
    pub(super) orderly: bool,
    /// What each process needs, by the last config that wanted it as it is.
    needs: BTreeMap<UnitId, Vec<UnitId>>,
}

impl World {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let (machine, effects) = Machine::new(config);
        let (running, open, deaf) = (Vec::new(), Vec::new(), Vec::new());
        let (prepared, ever) = (BTreeSet::new(), BTreeSet::new());
        let now = Duration::ZERO;
        let finished = false;
        let (needs, orderly) = (BTreeMap::new(), true);
        let mut world =
            Self { machine, now, running, open, prepared, ever, finished, deaf, orderly, needs };
        let mut none = VecDeque::new();
        effects.into_iter().for_each(|effect| world.see(effect, &mut none));
        world
    }

    pub(super) fn take(&mut self, config: &NodeConfig, touched: &[Utf8PathBuf]) {
        self.note_needs();
        let effects = self.machine.update(self.now, config, touched);
        let mut pending = VecDeque::new();
        effects.into_iter().for_each(|effect| self.see(effect, &mut pending));
        pending.into_iter().for_each(|event| self.give(event));
    }

    /// Lets everything end that is asked to, answers every question with yes, and waits for what is only a matter of time.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if let Some((unit, round)) = self.open.pop() {
                self.give(Event::Answered { unit, round, answer: Answer::Yes });
            } else if self.machine.phase() == NodePhase::Usable || !self.wait_for_deadline() {
                return;
            }
        }
    }

    pub(super) fn unit(&self, name: &str) -> &Unit {
        self.machine.units.iter().find(|unit| unit.name() == name).unwrap()
    }

    pub(super) fn end(&mut self, name: &str, how: &str) {
        let id = self.machine.service(name).unwrap();
        self.running.retain(|other| *other != id);
        self.give(Event::Ended { unit: id, how: how.to_owned(), last_line: None });
    }

    fn note_needs(&mut self) {
        let ids = self.machine.units.ids().into_iter();
        for id in ids.filter(|id| self.machine.units[*id].is_wanted()) {
            self.needs.insert(id, self.machine.units[id].after.clone());
        }
    }

    /// Nothing that runs, is stopped too and needs this one is left.
    fn check_order(&self, id: UnitId) {
        let unit = &self.machine.units[id];
        if unit.next == unit::Next::Launch {
            return;
        }
        for other in self.running.iter().filter(|other| **other != id) {
            let user = &self.machine.units[*other];
            let needs = if user.is_wanted() { &user.after } else { &self.needs[other] };
            // One that a person starts anew is stopped for itself.
            let is_stopped_too =
                self.machine.stopping || (user.is_being_stopped() && !user.is_wanted());
            assert!(!is_stopped_too || !needs.contains(&id), "{id} is stopped before {other}");
        }
    }

    pub(super) fn give(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let effects = self.machine.handle(self.now, event);
            for effect in effects {
                self.see(effect, &mut pending);
            }
        }
    }

    fn see(&mut self, effect: Effect, pending: &mut VecDeque<Event>) {
        assert!(!self.finished, "{effect:?} after everything was stopped");
        let state = |id: &UnitId| self.machine.units[*id].state;
        match effect {
            Effect::Start(unit) | Effect::Ask { unit, .. } => {
                assert!(self.prepared.contains(&unit), "{unit} is not prepared");
                let is_start = effect == Effect::Start(unit);
                let after = &self.machine.units[unit].after;
                assert!(
                    self.machine.units[unit].is_service() != is_start
                        || !self.ever.insert(unit)
                        || after.iter().all(|id| state(id) == UnitState::Ready),
                    "{unit} started too early"
                );
            }
            _ => {}
        }
        match effect {
            Effect::Prepare(unit) => {
                self.prepared.insert(unit);
                // It starts as another one, and what it waits for now counts; unless only its probe is another one.
                let unit_now = &self.machine.units[unit];
                let stays = unit_now.is_service()
                    && (unit_now.state == UnitState::Restarting
                        || unit_now.next == unit::Next::Launch
                        || (unit_now.pid.is_some() && !unit_now.is_being_stopped()));
                if !stays {
                    self.ever.remove(&unit);
                }
            }
            Effect::Cancel(unit) => assert!(self.prepared.contains(&unit)),
            Effect::Forget(unit) => {
                assert!(!self.machine.units.contains(unit) && !self.running.contains(&unit));
                assert!(self.prepared.remove(&unit));
            }
            Effect::Start(unit) => {
                assert!(!self.running.contains(&unit), "{unit} runs already");
                self.running.push(unit);
                let pid = u32::try_from(unit).unwrap() + 100;
                pending.push_back(Event::Started { unit, pid });
            }
            Effect::Ask { unit, round } => self.open.push((unit, round)),
            Effect::Signal(unit, signal) => {
                if self.orderly && signal != Signal::Kill {
                    self.check_order(unit);
                }
                if signal == Signal::Kill || !self.deaf.contains(&unit) {
                    self.running.retain(|id| *id != unit);
                    let how = "ended".to_owned();
                    pending.push_back(Event::Ended { unit, how, last_line: None });
                }
            }
            Effect::Finished => self.finished = true,
        }
    }

    pub(super) fn wait_for_deadline(&mut self) -> bool {
        let Some(deadline) = self.machine.deadline() else { return false };
        self.now = self.now.max(deadline);
        self.give(Event::Tick);
        true
    }

    pub(super) fn chance(&mut self, choice: u8, pick: usize) {
        match choice {
            0..=3 => _ = self.wait_for_deadline(),
            4..=9 if !self.open.is_empty() => {
                let (unit, round) = self.open.remove(pick % self.open.len());
                let answer = if choice < 8 { Answer::Yes } else { Answer::not_yet("no") };
                self.give(Event::Answered { unit, round, answer });
            }
            10 | 11 if !self.running.is_empty() => {
                let unit = self.running.remove(pick % self.running.len());
                self.give(Event::Ended { unit, how: "exited with 1".into(), last_line: None });
            }
            12 if !self.prepared.is_empty() => {
                let unit = *self.prepared.iter().nth(pick % self.prepared.len()).unwrap();
                self.give(Event::Restart(unit));
            }
            _ => self.now += Duration::from_millis(7),
        }
    }
}
