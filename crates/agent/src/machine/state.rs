//! How processes move units, and in which order units start and stop.

use std::time::Duration;

use bivouac_spec::node::Signal;
use bivouac_spec::node::status::UnitState;

use super::unit::Next;
use super::{Answer, Effect, Machine, UnitId};
use crate::clock;

impl Machine {
    /// Starts every unit that waits for nothing any more.
    pub(super) fn start_next(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in self.units.ids() {
            let unit = &self.units[id];
            let is_ready = |id: &UnitId| self.units[*id].is_ready();
            if unit.state == UnitState::Waiting && unit.after.iter().all(is_ready) {
                self.launch(id, now, effects);
            }
        }
    }

    fn launch(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.renew();
        unit.state = UnitState::Starting;
        unit.stop = unit.definition.stop();
        if unit.is_service() {
            effects.push(Effect::Start(id));
        } else {
            self.ask(id, now, effects);
        }
    }

    pub(super) fn ask(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.wake = None;
        if unit.definition.pace().is_none() {
            unit.become_ready(now);
        } else if !unit.asking {
            unit.asking = true;
            effects.push(Effect::Ask { unit: id, round: unit.round });
        }
    }

    pub(super) fn started(
        &mut self,
        id: UnitId,
        pid: u32,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let unit = &mut self.units[id];
        unit.pid = Some(pid);
        match unit.state {
            UnitState::Stopping => self.signal_to_stop(id, now, effects),
            _ => self.ask(id, now, effects),
        }
    }

    pub(super) fn ended(
        &mut self,
        id: UnitId,
        how: &str,
        last_line: Option<&str>,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        let unit = &mut self.units[id];
        unit.pid = None;
        if self.stopping {
            unit.next = Next::Rest;
        }
        if self.stopping || unit.is_being_stopped() {
            self.settle(id, Some(how), now, effects);
        } else {
            let restart = unit.definition.restart();
            let (initial, max) = (restart.initial.duration(), restart.max.duration());
            if unit.ready_since.is_some_and(|since| now - since >= max) {
                unit.backoff = initial;
            }
            let wait = unit.backoff;
            unit.backoff = (wait * 2).min(max).max(initial);
            unit.renew();
            unit.state = UnitState::Restarting;
            unit.wake = Some(now + wait);
            let mut detail = format!("{how}, again in {}", clock::render(wait));
            if let Some(line) = last_line {
                detail.push_str("; last line: ");
                detail.push_str(line);
            }
            unit.detail = Some(detail);
        }
    }

    /// What was being stopped is stopped.
    fn settle(&mut self, id: UnitId, how: Option<&str>, now: Duration, effects: &mut Vec<Effect>) {
        self.units.release(id);
        let unit = &mut self.units[id];
        unit.retiring = false;
        unit.renew();
        match std::mem::replace(&mut unit.next, Next::Rest) {
            Next::Rest => {
                unit.state = UnitState::Stopped;
                unit.detail = how.map(str::to_owned);
            }
            Next::Launch => self.launch(id, now, effects),
            Next::Wait => unit.state = UnitState::Waiting,
            Next::Leave => {
                self.units.remove(id);
                effects.push(Effect::Forget(id));
            }
        }
    }

    pub(super) fn answered(
        &mut self,
        id: UnitId,
        round: u32,
        answer: Answer,
        now: Duration,
        effects: &mut Vec<Effect>,
    ) {
        if !self.units.contains(id) {
            return;
        }
        let unit = &mut self.units[id];
        // Of a task that became another one: it had to end first.
        let gives_up = unit.state == UnitState::Stopping && unit.asking && unit.round == round;
        if gives_up && !unit.is_service() {
            self.settle(id, None, now, effects);
        } else {
            unit.answered(round, answer, now, self.stopping);
        }
    }

    pub(super) fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in self.units.ids() {
            let unit = &mut self.units[id];
            if unit.wake.is_none_or(|wake| wake > now) {
                continue;
            }
            unit.wake = None;
            match unit.state {
                UnitState::Stopping => effects.push(Effect::Signal(id, Signal::Kill)),
                _ if self.stopping => {}
                UnitState::Starting | UnitState::Ready => self.ask(id, now, effects),
                UnitState::Restarting => {
                    unit.restarts += 1;
                    self.launch(id, now, effects);
                }
                UnitState::Waiting | UnitState::Stopped => {}
            }
        }
    }

    pub(super) fn restart(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        if self.stopping || unit.is_being_stopped() || !unit.is_service() {
            return;
        }
        unit.backoff = unit.definition.restart().initial.duration();
        match unit.state {
            UnitState::Starting | UnitState::Ready => {
                unit.next = Next::Launch;
                self.stop_unit(id, now, effects);
            }
            UnitState::Restarting | UnitState::Stopped => self.launch(id, now, effects),
            UnitState::Waiting | UnitState::Stopping => {}
        }
    }

    /// Everything is stopped from now on: what needs a unit goes before it.
    pub(super) fn begin_to_stop(&mut self) {
        if std::mem::replace(&mut self.stopping, true) {
            return;
        }
        for id in self.units.ids() {
            let mut users = self.units.users(id);
            users.retain(|user| self.units[*user].state != UnitState::Stopped);
            self.units.stop_after(id, users);
        }
    }

    /// Stops every unit that nothing depends on any more, until no further one can be.
    pub(super) fn stop_next(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for id in self.units.ids() {
                let unit = &self.units[id];
                let over = match unit.state {
                    UnitState::Stopped => true,
                    // A task has nothing that would be waited for.
                    UnitState::Stopping => unit.is_service(),
                    _ => false,
                };
                if !over && unit.first.is_empty() {
                    self.stop_unit(id, now, effects);
                    changed = true;
                }
            }
        }
        let all_stopped = self.units.iter().all(|unit| unit.state == UnitState::Stopped);
        if all_stopped && !self.finished {
            self.finished = true;
            effects.push(Effect::Finished);
        }
    }

    /// Stops what another config has otherwise or no more, when nothing that needed it is still being stopped.
    pub(super) fn retire_next(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in self.units.ids() {
            if self.units[id].retiring && self.units[id].first.is_empty() {
                self.stop_unit(id, now, effects);
            }
        }
    }

    fn stop_unit(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        let runs = matches!(unit.state, UnitState::Starting | UnitState::Ready);
        unit.renew();
        unit.retiring = false;
        if unit.is_service() && runs {
            unit.state = UnitState::Stopping;
            if unit.pid.is_some() {
                self.signal_to_stop(id, now, effects);
            }
        } else {
            unit.state = UnitState::Stopped;
            self.units.release(id);
        }
    }

    fn signal_to_stop(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.wake = Some(now + unit.stop.grace.duration());
        effects.push(Effect::Signal(id, unit.stop.signal));
    }
}
