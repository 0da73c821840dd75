//! Properties of the machine over random graphs, random fates of processes, random answers and random changes of the config.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Piece, World, config, config_of};
use super::*;

use bivouac_spec::node::status::UnitState;
use camino::Utf8PathBuf;
use proptest::prelude::*;

fn graph() -> impl Strategy<Value = Vec<(u8, Vec<usize>)>> {
    let unit = (0u8..4, proptest::collection::vec(0usize..20, 0..3));
    proptest::collection::vec(unit, 1..12).prop_map(|mut units| {
        units.sort_by_key(|(kind, _)| (*kind).max(1));
        units
    })
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let unit = (0u8..4, proptest::collection::vec(0usize..20, 0..3), 0u8..2);
    proptest::collection::vec(unit, 0..8)
}

/// What of a machine a config decides, by name.
fn shape(machine: &Machine) -> BTreeMap<String, (Definition, Vec<String>, Vec<String>)> {
    let name = |id: &UnitId| machine.units[*id].name().to_owned();
    let names = |ids: &Vec<UnitId>| ids.iter().map(name).collect::<Vec<_>>();
    let units = machine.units.iter().map(|unit| {
        let whole = ((*unit.definition).clone(), names(&unit.after), names(&unit.dependents));
        (unit.name().to_owned(), whole)
    });
    units.collect()
}

proptest! {
    #[test]
    fn after_any_configs_the_machine_is_that_of_the_last_one(
        configs in proptest::collection::vec((pieces(), 0usize..8,
            proptest::collection::vec((0u8..14, 0usize..64), 0..30)), 1..5),
        begins: bool,
        deaf in proptest::collection::vec(0usize..12, 0..3),
    ) {
        let mut world = World::new(&config_of(&configs[0].0));
        world.deaf = deaf;
        if begins {
            world.give(Event::Begin);
        }
        for (pieces, touched, chances) in &configs {
            world.take(&config_of(pieces), &[format!("/etc/u{touched}").into()]);
            for (choice, pick) in chances {
                world.chance(*choice, *pick);
            }
        }
        let last = config_of(&configs[configs.len() - 1].0);
        world.settle();
        prop_assert_eq!(world.machine.phase(), NodePhase::Usable, "{:#?}", world.machine.status());
        let (fresh, _) = Machine::new(&last);
        prop_assert_eq!(shape(&world.machine), shape(&fresh));
        let order = |machine: &Machine| -> Vec<String> {
            machine.units.iter().map(|unit| unit.name().to_owned()).collect()
        };
        prop_assert_eq!(order(&world.machine), order(&fresh));
        let running: BTreeSet<_> = world.running.iter().copied().collect();
        let services: BTreeSet<_> = world.machine.units.ids().into_iter()
            .filter(|id| world.machine.units[*id].is_service()).collect();
        prop_assert_eq!(running, services);
        let prepared: BTreeSet<_> = world.machine.units.ids().into_iter().collect();
        prop_assert_eq!(&world.prepared, &prepared);
        // And the machine of that config still stops as any other.
        world.give(Event::Stop);
        for _ in 0..1000 {
            if world.finished || !world.wait_for_deadline() {
                break;
            }
        }
        prop_assert!(world.finished, "{:?}", world.machine.status());
    }

    #[test]
    fn the_order_of_stops_outlives_configs_that_follow_each_other(
        configs in proptest::collection::vec(
            (pieces(), proptest::collection::vec((0u8..14, 0usize..64), 0..4)), 3..5),
        deaf in proptest::collection::vec(0usize..12, 1..6),
    ) {
        let mut world = World::new(&config_of(&configs[0].0));
        world.deaf = deaf;
        world.give(Event::Begin);
        world.settle();
        // The world sees to the order of every signal.
        for (pieces, chances) in &configs[1..] {
            world.take(&config_of(pieces), &[]);
            for (choice, pick) in chances {
                world.chance(*choice, *pick);
            }
        }
        world.give(Event::Stop);
        while !world.finished && world.wait_for_deadline() {}
        prop_assert!(world.finished, "{:?}", world.machine.status());
        prop_assert!(world.running.is_empty());
    }

    #[test]
    fn what_is_the_same_is_not_touched(graph in pieces(), others in pieces(), touched in 0usize..12) {
        let mut world = World::new(&config_of(&graph));
        world.give(Event::Begin);
        world.settle();
        let before: BTreeMap<_, _> = world.machine.units.iter()
            .map(|unit| (unit.name().to_owned(), (unit.definition.clone(), unit.round, unit.pid)))
            .collect();
        let file: Utf8PathBuf = format!("/etc/u{touched}/file").into();
        world.take(&config_of(&others), &[file]);
        for unit in world.machine.units.iter() {
            let Some((definition, round, pid)) = before.get(unit.name()) else { continue };
            let is_watched = unit.name() == format!("u{touched}");
            let runs_on = match (&**definition, &*unit.definition) {
                (Definition::Service(old), Definition::Service(new)) => {
                    old.runs_as(new) && old.ready == new.ready
                }
                (Definition::Task(old), Definition::Task(new)) => old.run == new.run,
                _ => false,
            };
            if runs_on && !is_watched {
                prop_assert_eq!((&unit.round, &unit.pid), (round, pid));
                prop_assert_eq!(unit.state, UnitState::Ready);
            }
        }
    }

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
