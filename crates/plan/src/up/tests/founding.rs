//! Who founds a cluster, and who joins it.

use super::*;

fn with_control_planes(count: u32) -> Cluster {
    let mut cluster = cluster(1);
    cluster.spec.nodes[0].count = count;
    cluster
}

/// Carries out as many actions of the plan.
fn run(world: &mut World, cluster: &Cluster, steps: usize) {
    let plan = world.plan(cluster);
    assert_eq!(plan.refusals, []);
    world.run(cluster, &plan, steps);
}

fn joined_of(world: &World, cluster: &Cluster) -> Vec<String> {
    let joined = joined(cluster, world.applied.as_ref(), world.observed.as_ref());
    joined.iter().map(ToString::to_string).collect()
}

#[test]
fn who_founds_is_settled_when_the_first_is_made() {
    for (before, after) in [(1, 3), (3, 1)] {
        let (mut world, first) = (World::new(), with_control_planes(before));
        // The network and a node.
        run(&mut world, &first, 2);
        let changed = with_control_planes(after);
        let refused = world.plan(&changed);
        assert_eq!(refused.actions, []);
        let codes: Vec<_> = refused.refusals.iter().map(|refusal| &*refusal.code).collect();
        assert_eq!(codes, ["plan.never_usable"], "{before} -> {after}");
        if before == 1 {
            insta::assert_snapshot!(render(&refused));
        }
        // Workers are no founders, and who did not begin is forgotten.
        let mut workers = first.clone();
        workers.spec.nodes[1].count = 3;
        assert_eq!(world.plan(&workers).refusals, []);
        let mut nobody = world.clone();
        nobody.observed.as_mut().unwrap().nodes.clear();
        assert_eq!(nobody.plan(&changed).refusals, []);
        run(&mut world, &first, usize::MAX);
        assert_eq!(world.plan(&changed).refusals, []);
    }
}

#[test]
fn who_was_to_be_removed_and_is_wanted_again_joins() {
    let (one, three) = (with_control_planes(1), with_control_planes(3));
    // Some founded it, or joined it.
    for grows in [false, true] {
        let mut world = World::new();
        if grows {
            run(&mut world, &one, usize::MAX);
        }
        run(&mut world, &three, usize::MAX);
        run(&mut world, &one, 0);
        let wanted = ["balancer", "control-plane-1", "control-plane-2"];
        assert_eq!(joined_of(&world, &three), wanted, "grows: {grows}");
        run(&mut world, &three, usize::MAX);
        assert_eq!(joined_of(&world, &three), wanted, "it stays so");
        assert!(world.plan(&three).is_empty());
    }
}
