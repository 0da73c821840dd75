//! What the machine does, by example.

use super::world::{World, config, config_of};
use super::*;

use bivouac_spec::node::status::UnitState;

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
fn what_was_asked_of_a_start_is_not_asked_again() {
    let probe = serde_json::json!({"check": {"http": {"request": {"method": "GET", "url": "http://a/"},
        "expect": {"json": {"select": "$", "atLeast": 1, "what": "reports", "since": "u0"}}}}});
    let mut config = config(&[(0, vec![]), (3, vec![0])]);
    config.conditions[0].probe = serde_json::from_value(probe).unwrap();
    let mut world = World::new(&config);
    world.give(Event::Begin);
    let (unit, round) = world.open.pop().unwrap();
    world.give(Event::Answered { unit, round, answer: Answer::Yes });
    assert_eq!(world.machine.phase(), NodePhase::Usable);
    assert_eq!(world.machine.deadline(), None);
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

#[test]
fn what_is_removed_ends_before_what_it_needed_and_a_task_before_its_successor() {
    // u1 needs u0, and u2 is a task that needs u0.
    let first = config(&[(0, vec![]), (0, vec![0]), (2, vec![0])]);
    let mut world = World::new(&first);
    world.deaf = vec![1];
    world.give(Event::Begin);
    let old_task = world.open.pop().unwrap();
    let second = config_of(&[(0, vec![], 1)]);
    world.take(&second, &[]);
    assert_eq!(world.running, [0, 1], "u1 takes its time, and u0 waits for its end");
    assert_eq!(world.machine.phase(), NodePhase::Starting);
    let states: Vec<_> = world.machine.status().iter().map(|unit| unit.state).collect();
    assert_eq!(states, [UnitState::Stopping; 3]);
    world.end("u1", "was terminated (SIGTERM)");
    assert_eq!(world.machine.phase(), NodePhase::Starting, "the task is still being tried");
    assert_eq!(world.unit("u0").state, UnitState::Ready);
    // It comes back as another one while the old one is under way.
    let third = config_of(&[(0, vec![], 1), (0, vec![], 0), (2, vec![0], 1)]);
    world.take(&third, &[]);
    assert_eq!(world.open, [], "two tries of one task never run side by side");
    let (unit, round) = old_task;
    world.give(Event::Answered { unit, round, answer: Answer::Yes });
    assert_eq!(world.unit("u2").state, UnitState::Starting, "the yes was to another work");
    world.settle();
    assert_eq!(world.machine.phase(), NodePhase::Usable);
}

#[test]
fn a_new_probe_is_asked_and_the_process_stays() {
    let mut world = World::new(&config(&[(0, vec![]), (2, vec![0])]));
    world.give(Event::Begin);
    world.settle();
    let pid = world.unit("u0").pid;
    world.take(&config(&[(1, vec![]), (2, vec![0])]), &[]);
    assert_eq!(world.machine.phase(), NodePhase::Starting);
    assert_eq!((world.unit("u0").state, world.unit("u0").pid), (UnitState::Starting, pid));
    assert_eq!(world.unit("u1").state, UnitState::Ready, "a task that is done stays done");
    world.settle();
    assert_eq!(world.machine.phase(), NodePhase::Usable);
}

#[test]
fn a_service_that_keeps_failing_starts_at_once_as_another_one() {
    let mut world = World::new(&config(&[(0, vec![])]));
    world.give(Event::Begin);
    for _ in 0..5 {
        world.end("u0", "exited with 1");
        world.wait_for_deadline();
    }
    world.end("u0", "exited with 1");
    assert_eq!(world.running, [] as [UnitId; 0]);
    world.take(&config_of(&[(0, vec![], 1)]), &[]);
    let status = &world.machine.status()[0];
    assert_eq!((status.state, status.restarts), (UnitState::Ready, 0));
    assert_eq!(world.machine.phase(), NodePhase::Usable);
}

#[test]
fn another_config_or_the_stop_keeps_what_leaves_ahead_of_what_it_needed() {
    // u1 needs u0 and does not hear.
    let leaving = |second: &[(u8, Vec<usize>, u8)]| {
        let mut world = World::new(&config(&[(0, vec![]), (0, vec![0])]));
        world.deaf = vec![1];
        world.give(Event::Begin);
        world.take(&config_of(second), &[]);
        assert_eq!(world.running, [0, 1]);
        world
    };
    let [same, changed, other] = [0, 1, 2].map(|variant| [(0, vec![], variant)]);
    for (second, third) in [(&changed, &other), (&same, &changed), (&changed, &same)] {
        let mut world = leaving(second);
        world.take(&config_of(third), &[]);
        assert_eq!(world.running, [0, 1], "u0 waits for the end of u1");
        world.end("u1", "was terminated (SIGTERM)");
        assert_eq!(world.machine.phase(), NodePhase::Usable);
        assert_eq!(world.running, [0], "as another one");
    }
    for second in [&changed, &same] {
        let mut world = leaving(second);
        world.give(Event::Stop);
        assert_eq!(world.running, [0, 1], "u0 waits for the end of u1");
        world.end("u1", "was terminated (SIGTERM)");
        assert!(world.finished);
    }
}

#[test]
fn nothing_late_is_waited_for() {
    let mut config = config(&[(1, vec![]), (2, vec![0])]);
    config.tasks[0].late = true;
    let mut world = World::new(&config);
    world.give(Event::Begin);
    let (unit, round) = world.open.pop().unwrap();
    world.give(Event::Answered { unit, round, answer: Answer::Yes });
    assert_eq!(world.machine.phase(), NodePhase::Usable);
    let status = &world.machine.status()[1];
    assert_eq!((status.state, status.late), (UnitState::Starting, true));
    // It is done all the same, and its trouble is not the node's.
    let (unit, round) = world.open.pop().unwrap();
    world.give(Event::Answered { unit, round, answer: Answer::not_yet("HTTP 503") });
    assert_eq!(world.machine.phase(), NodePhase::Usable);
    world.wait_for_deadline();
    let (unit, round) = world.open.iter().copied().find(|(unit, _)| *unit == 1).unwrap();
    world.give(Event::Answered { unit, round, answer: Answer::Yes });
    assert_eq!(world.machine.status()[1].state, UnitState::Ready);
}

#[test]
fn configs_that_contradict_each_other_do_not_hinder_each_other() {
    // u1 needs u0, and u2, which does not hear, needs u1.
    let first = config(&[(0, vec![]), (0, vec![0]), (0, vec![1])]);
    // Then u0 needs u1.
    let reversed = |variants: [u8; 2]| {
        let mut config = config_of(&variants.map(|variant| (0, vec![], variant)));
        config.services[0].after = vec!["u1".to_owned()];
        config
    };
    for stops in [false, true] {
        let mut world = World::new(&first);
        world.deaf = vec![2];
        world.orderly = false;
        world.give(Event::Begin);
        world.take(&reversed([0, 1]), &[]);
        world.take(&reversed([1, 1]), &[]);
        if stops {
            world.give(Event::Stop);
        }
        assert_eq!(world.running, [0, 1, 2], "u0 waits for u1, and u1 for u2");
        world.end("u2", "was terminated (SIGTERM)");
        assert_eq!(world.finished, stops);
        assert_eq!(world.machine.phase() == NodePhase::Usable, !stops);
    }
}
