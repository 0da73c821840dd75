//! Disks of nodes.

use bivouac_spec::Class;

use super::*;

/// A cluster whose workers have disks of this size.
fn with_disks(gibibytes: Option<u64>) -> Cluster {
    let mut cluster = cluster(2);
    cluster.spec.nodes[1].resources.disk = gibibytes.map(|number| Bytes(number << 30));
    cluster
}

#[test]
fn a_disk_grows_and_the_node_stops_for_it() {
    let (mut world, before) = (World::new(), with_disks(Some(2)));
    let plan = world.plan(&before);
    world.run(&before, &plan, usize::MAX);
    let mut larger = with_disks(Some(3));
    larger.spec.nodes[1].resources.cpus = Some(Cpus(1000));
    world.node("worker-1").state = ObservedState::Stopped;
    let plan = world.plan(&larger);
    insta::assert_snapshot!(render(&plan));
    let Action::UpdateNode { aspects, remakes: true, .. } = &plan.actions[1] else {
        panic!("{plan:?}")
    };
    assert_eq!(*aspects, [Aspect::Resources, Aspect::Disk]);
    world.run(&larger, &plan, usize::MAX);
    assert!(world.plan(&larger).is_empty());
}

#[test]
fn a_disk_does_not_shrink_come_or_go() {
    for (before, now) in [(Some(3), Some(2)), (Some(3), None), (None, Some(2))] {
        let (mut world, first) = (World::new(), with_disks(before));
        let plan = world.plan(&first);
        world.run(&first, &plan, usize::MAX);
        world.node("worker-1").state = ObservedState::Stopped;
        let plan = world.plan(&with_disks(now));
        assert!(plan.actions.is_empty());
        insta::assert_snapshot!(render(&plan));
        // A node that is gone is made as the file says.
        world.observed.as_mut().unwrap().nodes.retain(|name, _| !name.as_str().starts_with('w'));
        assert_eq!(world.plan(&with_disks(now)).refusals, []);
    }
}

#[test]
fn a_node_that_was_never_made_takes_any_disk() {
    let (mut world, first) = (World::new(), with_disks(Some(3)));
    let plan = world.plan(&first);
    world.run(&first, &plan, usize::MAX);
    for name in ["worker-0", "worker-1"] {
        let node = world.node(name);
        (node.state, node.record) = (ObservedState::Stopped, None);
    }
    for disk in [Some(2), Some(4), None] {
        let plan = world.plan(&with_disks(disk));
        assert_eq!((&*plan.refusals, plan.actions.len()), (&[][..], 2));
    }
}

#[test]
fn a_ground_without_disks_says_why() {
    let mut world = World::new();
    let reason = Problem::new(Class::Unfit, "provider.linux.no_disks", "there is no `mkfs.ext4`");
    world.facts.no_disks = Some(reason.help("install it with `apt-get install e2fsprogs`"));
    let plan = world.plan(&with_disks(Some(2)));
    assert_eq!(plan.refusals[0].causes, ["there is no `mkfs.ext4`"]);
    insta::assert_snapshot!(render(&plan));
    assert_eq!(world.plan(&with_disks(None)).refusals, []);
}

#[test]
fn disks_that_may_come_to_fill_the_ground_are_told() {
    let mut world = World::new();
    world.facts.disk_free = Bytes(5 << 30);
    assert_eq!(world.plan(&with_disks(Some(2))).notes, [""; 0]);
    let cluster = with_disks(Some(3));
    let plan = world.plan(&cluster);
    insta::assert_snapshot!(plan.notes.join("\n"));
    world.run(&cluster, &plan, usize::MAX);
    // What is there has its room, or not.
    assert_eq!(world.plan(&with_disks(Some(5))).notes, [""; 0]);
    assert_eq!(world.plan(&with_disks(Some(6))).notes.len(), 1);
}
