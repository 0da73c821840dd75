//! How processes move units, and in which order units start and stop.

use std::time::Duration;

use bivouac_spec::node::Signal;
use bivouac_spec::node::status::UnitState;

use super::{Effect, Machine, UnitId};
use crate::clock;

impl Machine {
    /// Starts every unit that waits for nothing any more.
    pub(super) fn start_next(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in 0..self.units.len() {
            let unit = &self.units[id];
            let is_ready = |id: &UnitId| self.units[*id].state == UnitState::Ready;
            if unit.state == UnitState::Waiting && unit.after.iter().all(is_ready) {
                self.launch(id, now, effects);
            }
        }
    }

    fn launch(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.renew();
        unit.state = UnitState::Starting;
        if unit.is_service() {
            effects.push(Effect::Start(id));
        } else {
            self.ask(id, now, effects);
        }
    }

    fn ask(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.wake = None;
        if unit.pace.is_none() {
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
        let stopping = self.stopping;
        let unit = &mut self.units[id];
        unit.pid = None;
        if stopping || (unit.state == UnitState::Stopping && !unit.anew) {
            unit.renew();
            unit.state = UnitState::Stopped;
            unit.detail = Some(how.to_owned());
        } else if unit.state == UnitState::Stopping {
            unit.anew = false;
            self.launch(id, now, effects);
        } else {
            let proved =
                unit.ready_since.is_some_and(|since| now - since >= unit.restart.max.duration());
            if proved {
                unit.backoff = unit.restart.initial.duration();
            }
            let wait = unit.backoff;
            unit.backoff =
                (wait * 2).min(unit.restart.max.duration()).max(unit.restart.initial.duration());
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

    pub(super) fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        for id in 0..self.units.len() {
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
        if self.stopping || !unit.is_service() {
            return;
        }
        unit.backoff = unit.restart.initial.duration();
        match unit.state {
            UnitState::Starting | UnitState::Ready => {
                unit.anew = true;
                self.stop_unit(id, now, effects);
            }
            UnitState::Restarting | UnitState::Stopped => self.launch(id, now, effects),
            UnitState::Waiting | UnitState::Stopping => {}
        }
    }

    /// Stops every unit that nothing depends on any more, until no further one can be.
    pub(super) fn stop_next(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for id in 0..self.units.len() {
                let unit = &self.units[id];
                let is_stopped = |id: &UnitId| self.units[*id].state == UnitState::Stopped;
                let over = matches!(unit.state, UnitState::Stopping | UnitState::Stopped);
                if !over && unit.dependents.iter().all(is_stopped) {
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

    fn stop_unit(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        let runs = matches!(unit.state, UnitState::Starting | UnitState::Ready);
        unit.renew();
        if unit.is_service() && runs {
            unit.state = UnitState::Stopping;
            if unit.pid.is_some() {
                self.signal_to_stop(id, now, effects);
            }
        } else {
            unit.state = UnitState::Stopped;
        }
    }

    fn signal_to_stop(&mut self, id: UnitId, now: Duration, effects: &mut Vec<Effect>) {
        let unit = &mut self.units[id];
        unit.wake = Some(now + unit.stop.grace.duration());
        effects.push(Effect::Signal(id, unit.stop.signal));
    }
}
