//! Properties of the machine over random graphs, random fates of processes and random answers.

use std::collections::VecDeque;

use super::*;

use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::status::UnitKind;
use proptest::prelude::*;
use serde_json::json;

fn config(afters: &[(u8, Vec<usize>)]) -> NodeConfig {
    // Kinds are sorted, because units are numbered services first.
    let (mut services, mut tasks, mut conditions) = (Vec::new(), Vec::new(), Vec::new());
    for (index, (kind, after)) in afters.iter().enumerate() {
        let name = format!("u{index}");
        let after: Vec<_> = after
            .iter()
            .map(|a| a % index.max(1))
            .filter(|a| *a < index)
            .map(|a| format!("u{a}"))
            .collect();
        let probe = json!({"check": {"file": "/x"}});
        match kind {
            0 => services.push(json!({"name": name, "command": ["/x"], "after": after})),
            1 => services
                .push(json!({"name": name, "command": ["/x"], "after": after, "ready": probe})),
            2 => tasks.push(json!({"name": name, "after": after, "run": {"command": ["/x"]}})),
            _ => conditions.push(json!({"name": name, "after": after, "probe": probe})),
        }
    }
    let whole = json!({"format": FORMAT, "cluster": "c", "node": "n",
        "services": services, "tasks": tasks, "conditions": conditions});
    serde_json::from_value(whole).unwrap()
}

/// The world around a machine: processes that run, questions that are open, and a clock.
struct World {
    machine: Machine,
    now: Duration,
    running: Vec<UnitId>,
    open: Vec<(UnitId, u32)>,
    ever: Vec<bool>,
    finished: bool,
    deaf: Vec<UnitId>,
}

impl World {
    fn new(config: &NodeConfig) -> Self {
        let machine = Machine::new(config);
        let ever = vec![false; machine.units.len()];
        let (running, open, deaf) = (Vec::new(), Vec::new(), Vec::new());
        Self { machine, now: Duration::ZERO, running, open, ever, finished: false, deaf }
    }

    fn give(&mut self, event: Event) {
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
            Effect::Start(unit) | Effect::Ask { unit, .. } if !self.ever[unit] => {
                let after = &self.machine.units[unit].after;
                assert!(
                    after.iter().all(|id| state(id) == UnitState::Ready),
                    "{unit} started too early"
                );
                self.ever[unit] = true;
            }
            _ => {}
        }
        match effect {
            Effect::Start(unit) => {
                assert!(!self.running.contains(&unit), "{unit} runs already");
                self.running.push(unit);
                let pid = u32::try_from(unit).unwrap() + 100;
                pending.push_back(Event::Started { unit, pid });
            }
            Effect::Ask { unit, round } => self.open.push((unit, round)),
            Effect::Signal(unit, signal) => {
                if self.machine.stopping && signal != Signal::Kill {
                    let dependents = &self.machine.units[unit].dependents;
                    assert!(dependents.iter().all(|id| state(id) == UnitState::Stopped));
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

    fn wait_for_deadline(&mut self) -> bool {
        let Some(deadline) = self.machine.deadline() else { return false };
        self.now = self.now.max(deadline);
        self.give(Event::Tick);
        true
    }

    fn chance(&mut self, choice: u8, pick: usize) {
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
            12 => self.give(Event::Restart(pick % self.ever.len())),
            _ => self.now += Duration::from_millis(7),
        }
    }
}

fn graph() -> impl Strategy<Value = Vec<(u8, Vec<usize>)>> {
    let unit = (0u8..4, proptest::collection::vec(0usize..20, 0..3));
    proptest::collection::vec(unit, 1..12).prop_map(|mut units| {
        units.sort_by_key(|(kind, _)| (*kind).max(1));
        units
    })
}

proptest! {
    #[test]
    fn order_is_kept_and_everything_stops(
        graph in graph(),
        before in proptest::collection::vec((0u8..14, 0usize..64), 0..150),
        after in proptest::collection::vec((0u8..14, 0usize..64), 0..40),
        deaf in proptest::collection::vec(0usize..12, 0..4),
    ) {
        let mut world = World::new(&config(&graph));
        world.deaf = deaf;
        world.give(Event::Begin);
        before.into_iter().for_each(|(choice, pick)| world.chance(choice, pick));
        world.give(Event::Stop);
        after.into_iter().for_each(|(choice, pick)| if !world.finished { world.chance(choice, pick) });
        for _ in 0..1000 {
            if world.finished || !world.wait_for_deadline() {
                break;
            }
        }
        prop_assert!(world.finished, "{:?}", world.machine.status());
        prop_assert!(world.running.is_empty());
        prop_assert_eq!(world.machine.deadline(), None);
    }

    #[test]
    fn with_good_answers_every_graph_becomes_usable(graph in graph()) {
        let mut world = World::new(&config(&graph));
        world.give(Event::Begin);
        while let Some((unit, round)) = world.open.pop() {
            world.give(Event::Answered { unit, round, answer: Answer::Yes });
        }
        prop_assert_eq!(world.machine.phase(), NodePhase::Usable);
    }
}

#[test]
fn a_restart_storm_backs_off_and_a_good_while_forgives() {
    let mut world = World::new(&config(&[(0, vec![])]));
    world.give(Event::Begin);
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.running.clear();
        world.give(Event::Ended {
            unit: 0,
            how: "exited with 1".into(),
            last_line: Some("no such table".into()),
        });
        waits.push((world.machine.deadline().unwrap() - world.now).as_millis());
        world.wait_for_deadline();
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert_eq!(world.machine.status()[0].restarts, 9);
    world.now += Duration::from_secs(10);
    world.running.clear();
    world.give(Event::Ended {
        unit: 0,
        how: "exited with 1".into(),
        last_line: Some("bye".into()),
    });
    let status = &world.machine.status()[0];
    assert_eq!(status.state, UnitState::Restarting);
    assert_eq!(status.detail.as_deref(), Some("exited with 1, again in 100 ms; last line: bye"));
}

#[test]
fn what_is_ready_is_asked_slowly_and_given_up_after_three_misses() {
    let mut world = World::new(&config(&[(1, vec![]), (3, vec![0])]));
    world.give(Event::Begin);
    assert_eq!(world.machine.phase(), NodePhase::Starting);
    assert_eq!(world.machine.status()[1].detail.as_deref(), Some("waits for u0"));
    for _ in 0..2 {
        let (unit, round) = world.open.pop().unwrap();
        world.give(Event::Answered { unit, round, answer: Answer::Yes });
    }
    assert_eq!(world.machine.phase(), NodePhase::Usable);
    for miss in 1..=3 {
        world.wait_for_deadline();
        for (unit, round) in std::mem::take(&mut world.open) {
            let answer = if unit == 0 { Answer::not_yet("HTTP 503") } else { Answer::Yes };
            world.give(Event::Answered { unit, round, answer });
        }
        let phase = if miss < 3 { NodePhase::Usable } else { NodePhase::Degraded };
        assert_eq!(world.machine.phase(), phase, "after {miss} misses");
    }
    let status = &world.machine.status()[0];
    assert_eq!(status.detail.as_deref(), Some("not ready any more: HTTP 503"));
    assert_eq!(
        (status.kind, status.pid),
        (UnitKind::Service, Some(100)),
        "it is never killed for it"
    );
    world.wait_for_deadline();
    let (unit, round) = world.open.pop().unwrap();
    world.give(Event::Answered { unit, round, answer: Answer::Yes });
    assert_eq!(world.machine.phase(), NodePhase::Usable);
}

#[test]
fn a_task_is_tried_again_at_growing_intervals_until_it_gets_further() {
    let mut world = World::new(&config(&[(2, vec![])]));
    world.give(Event::Begin);
    let mut waits = Vec::new();
    for advanced in [false, false, false, false, false, true, false] {
        let (unit, round) = world.open.pop().unwrap();
        let answer = Answer::NotYet { detail: "HTTP 500".into(), advanced };
        world.give(Event::Answered { unit, round, answer });
        waits.push((world.machine.deadline().unwrap() - world.now).as_millis());
        world.wait_for_deadline();
    }
    assert_eq!(waits, [50, 100, 200, 400, 500, 50, 100]);
}
