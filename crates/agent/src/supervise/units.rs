//! What the machine decides is done here: processes, questions, and what goes with each unit.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bivouac_spec::node::{Probe, Run};
use bivouac_sys::process::PidFd;
use jiff::Timestamp;

use super::{Supervisor, service};
use crate::clock;
use crate::logs::Log;
use crate::machine::{Answer, Definition, Effect, Event, UnitId};
use crate::probe::ask;
use crate::task::Work;

/// What goes with a unit.
pub(super) struct Companion {
    name: String,
    /// Absent for a service without a probe.
    question: Option<Question>,
    log: Option<Arc<Log>>,
    /// Limits that the process of a service did not get.
    pub(super) shortfalls: Vec<String>,
    /// When the process of a service was started last.
    started: Option<Start>,
}

/// When something was started.
#[derive(Clone, Copy)]
struct Start {
    wall: Timestamp,
    steady: Instant,
}

impl Start {
    fn now() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }

    /// The moment for what was said since. Who sets the clock back lets others say earlier moments from then on; of what was said before it
    /// was set forward, the moments are still those of then.
    fn moment(self) -> Timestamp {
        self.moment_at(Timestamp::now(), Instant::now())
    }

    fn moment_at(self, wall: Timestamp, steady: Instant) -> Timestamp {
        let elapsed = steady.saturating_duration_since(self.steady);
        wall.checked_sub(elapsed).map_or(self.wall, |moment| moment.min(self.wall))
    }
}

/// How a unit is asked.
enum Question {
    Probe(Arc<Probe>),
    Task(Work),
}

impl Supervisor {
    /// Gives the event to the machine and does what it decides, until nothing is left to do.
    pub(super) fn handle(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let now = self.now();
            for effect in self.machine.handle(now, event) {
                pending.extend(self.perform(effect));
            }
        }
    }

    /// Does what the machine decided of itself, and what comes of it.
    pub(super) fn perform_all(&mut self, effects: Vec<Effect>) {
        let events: Vec<_> =
            effects.into_iter().filter_map(|effect| self.perform(effect)).collect();
        events.into_iter().for_each(|event| self.handle(event));
    }

    pub(super) fn end(&mut self, unit: UnitId, how: String) {
        let companion = self.companions.get(&unit);
        let name = companion.map_or("", |companion| &companion.name);
        let last_line = companion.and_then(|companion| companion.log.as_ref()?.last_line());
        self.logs.note(&format!("{name}: {how}"));
        self.handle(Event::Ended { unit, how, last_line });
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Prepare(unit) => self.prepare(unit),
            Effect::Cancel(unit) => self.cancel(unit),
            Effect::Forget(unit) => {
                if let Some(companion) = self.companions.remove(&unit) {
                    self.logs.note(&format!("{}: is no part of the node any more", companion.name));
                }
            }
            Effect::Start(unit) => return Some(self.start(unit)),
            Effect::Signal(unit, signal) => {
                let running = self.running.iter().find(|(_, of)| **of == unit);
                if let Some(process) = running.and_then(|(pid, _)| PidFd::open(*pid).ok()) {
                    let _ = process.send_signal(service::kernel_signal(signal));
                }
            }
            Effect::Ask { unit, round } => self.ask(unit, round),
            Effect::Finished => self.stopped = true,
        }
        None
    }

    fn prepare(&mut self, unit: UnitId) {
        self.cancel(unit);
        let definition = self.machine.definition(unit);
        let open_log = |name: &str| self.logs.open_log(name).ok();
        let asked = |probe: &Probe| Question::Probe(Arc::new(probe.clone()));
        let (question, log) = match &*definition {
            Definition::Service(service) => {
                (service.ready.as_ref().map(asked), open_log(&service.name))
            }
            Definition::Task(task) => {
                let is_command = matches!(task.run, Run::Command(_));
                let log = is_command.then(|| open_log(&task.name.replace('/', "_"))).flatten();
                (Some(Question::Task(Work::new(task.run.clone(), log.clone()))), log)
            }
            Definition::Condition(condition) => (Some(asked(&condition.probe)), None),
        };
        let before = self.companions.remove(&unit);
        let (shortfalls, started) =
            before.map_or_else(Default::default, |before| (before.shortfalls, before.started));
        let name = definition.name().to_owned();
        self.companions.insert(unit, Companion { name, question, log, shortfalls, started });
    }

    fn cancel(&self, unit: UnitId) {
        let question = self.companions.get(&unit).and_then(|one| one.question.as_ref());
        if let Some(Question::Task(work)) = question {
            work.cancel();
        }
    }

    fn start(&mut self, unit: UnitId) -> Event {
        let definition = self.machine.definition(unit);
        let (Definition::Service(service), Some(companion)) =
            (&*definition, self.companions.get_mut(&unit))
        else {
            let how = "is no service".to_owned();
            return Event::Ended { unit, how, last_line: None };
        };
        companion.started = Some(Start::now());
        match service::start(service, companion.log.as_ref(), &self.tools.processes) {
            Ok(pid) => {
                self.logs.note(&format!("{}: started as process {pid}", service.name));
                companion.shortfalls = service::shortfalls(service, pid);
                self.running.insert(pid, unit);
                self.show_warnings();
                Event::Started { unit, pid }
            }
            Err(how) => {
                self.logs.note(&format!("{}: {how}", service.name));
                Event::Ended { unit, how, last_line: None }
            }
        }
    }

    /// The probe as it is asked now: it may be about a service since that started.
    fn since(&self, probe: &Arc<Probe>) -> Result<Arc<Probe>, String> {
        let Some(service) = probe.since() else { return Ok(Arc::clone(probe)) };
        let unit = self.machine.service(service);
        let started = unit.and_then(|unit| self.companions.get(&unit)?.started);
        let started = started.ok_or_else(|| format!("{service} was not started yet"))?;
        Ok(Arc::new(Probe::clone(probe).since_moment(&clock::moment(started.moment()))))
    }

    fn ask(&self, unit: UnitId, round: u32) {
        let (tools, sender) = (self.tools.clone(), self.inbox.sender());
        match self.companions.get(&unit).and_then(|one| one.question.as_ref()) {
            None => sender.send(Event::Answered { unit, round, answer: Answer::Yes }),
            Some(Question::Probe(probe)) => {
                let probe = self.since(probe);
                self.pool.run(move || {
                    let answer = probe.and_then(|probe| ask(&probe, &tools));
                    let answer = answer.map_or_else(Answer::not_yet, |()| Answer::Yes);
                    sender.send(Event::Answered { unit, round, answer });
                });
            }
            Some(Question::Task(work)) => {
                let work = work.clone();
                self.pool.run(move || {
                    let note = |detail| sender.send(Event::Noted { unit, round, detail });
                    let answer = work.attempt(&tools, &note);
                    sender.send(Event::Answered { unit, round, answer });
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_moment_of_a_start_is_none_that_the_clock_has_yet_to_reach() {
        let start = Start::now();
        let later = start.steady + Duration::from_secs(60);
        let set_by = |hours: i64| {
            let wall =
                start.wall + Duration::from_secs(60) + jiff::SignedDuration::from_hours(hours);
            start.moment_at(wall, later) - jiff::SignedDuration::from_hours(hours.min(0))
        };
        assert_eq!([-1, 0, 1].map(set_by), [start.wall; 3]);
    }
}
