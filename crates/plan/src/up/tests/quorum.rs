//! Majorities, and what nodes cost that are made anew.

use bivouac_spec::cluster::Incus;

use super::*;
use crate::{note_of_minority, refuse_no_keeper};

fn made(control_planes: u32) -> (World, Cluster) {
    let (mut world, mut cluster) = (World::new(), cluster(0));
    cluster.spec.nodes[0].count = control_planes;
    let plan = world.plan(&cluster);
    world.run(&cluster, &plan, usize::MAX);
    (world, cluster)
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn lose(world: &mut World, node: &str) {
    world.observed.as_mut().unwrap().nodes.remove(&name(node));
}

#[test]
fn one_that_runs_may_go_while_another_is_lost_and_comes_back() {
    let (mut world, mut cluster) = made(3);
    lose(&mut world, "control-plane-0");
    cluster.remove_node(&name("control-plane-2")).unwrap();
    let plan = world.plan(&cluster);
    insta::assert_snapshot!(render(&plan));
    world.run(&cluster, &plan, usize::MAX);
    assert!(world.plan(&cluster).is_empty());
}

#[test]
fn those_who_do_not_run_go_first() {
    let (mut world, mut cluster) = made(5);
    for node in ["control-plane-1", "control-plane-3"] {
        cluster.remove_node(&name(node)).unwrap();
    }
    world.node("control-plane-3").state = ObservedState::Stopped;
    let plan = world.plan(&cluster);
    let removed = plan.actions.iter().filter(|one| matches!(one, Action::DestroyNode { .. }));
    let removed: Vec<&str> = removed.filter_map(Action::node).map(NodeName::as_str).collect();
    assert_eq!(removed, ["control-plane-3", "control-plane-1"]);
}

#[test]
fn what_a_cluster_knows_stays_with_one_of_those_who_have_it() {
    let (mut world, mut cluster) = made(2);
    let before = cluster.clone();
    lose(&mut world, "control-plane-0");
    cluster.remove_node(&name("control-plane-1")).unwrap();
    let plan = world.plan(&cluster);
    assert!(plan.actions.is_empty());
    let mut told = render(&plan);
    // The plan is not asked about a file without any.
    cluster.remove_node(&name("control-plane-0")).unwrap();
    let refusal = refuse_no_keeper(&before, &cluster).unwrap();
    writeln!(told, "{refusal}").unwrap();
    cluster.spec.stack = Stack::Incus(Incus::default());
    cluster.spec.nodes = vec![NodeGroup::new(Role::Member, 1)];
    let before = cluster.clone();
    cluster.spec.nodes[0].count = 0;
    writeln!(told, "{}", refuse_no_keeper(&before, &cluster).unwrap()).unwrap();
    assert_eq!(refuse_no_keeper(&before, &before), None);
    assert_eq!(refuse_no_keeper(&cluster, &cluster), None, "nothing is taken away");
    insta::assert_snapshot!(told);
}

#[test]
fn a_majority_that_is_stopped_is_told() {
    let (mut world, _) = made(3);
    let note = |world: &World, nodes: &[&str]| {
        let nodes = nodes.iter().map(|node| name(node)).collect();
        note_of_minority(world.applied.as_ref().unwrap(), world.observed.as_ref().unwrap(), &nodes)
    };
    assert_eq!(note(&world, &["control-plane-0"]), None);
    let both = note(&world, &["control-plane-0", "control-plane-2"]).unwrap();
    world.node("control-plane-0").state = ObservedState::Stopped;
    assert_eq!(note(&world, &["balancer", "control-plane-0"]), None);
    assert_eq!(note(&world, &["control-plane-2"]).as_ref(), Some(&both));
    // Who has none already loses none.
    world.node("control-plane-1").state = ObservedState::Stopped;
    assert_eq!(note(&world, &["control-plane-2"]), None);
    let (lone, _) = made(1);
    let lone = note(&lone, &["control-plane-0"]).unwrap();
    insta::assert_snapshot!(format!("{both}\n{lone}"));
}

#[test]
fn a_node_that_is_made_anew_says_what_stops() {
    let (mut world, mut cluster) = (World::new(), cluster(1));
    let mut told = String::new();
    for control_planes in [1, 3] {
        cluster.spec.nodes[0].count = control_planes;
        let plan = world.plan(&cluster);
        world.run(&cluster, &plan, usize::MAX);
        world.node_image = format!("image-for-{control_planes}");
        told.push_str(&render(&world.plan(&cluster)));
        let plan = world.plan(&cluster);
        world.run(&cluster, &plan, usize::MAX);
    }
    world.node("worker-0").record = None;
    let plan = world.plan(&cluster);
    told.push_str(&render(&plan));
    insta::assert_snapshot!(told);
    // What runs on costs nothing.
    cluster.spec.nodes[1].resources.memory = Some(Bytes(1 << 30));
    world.node("worker-0").record = Some(world.records(&cluster)[&name("worker-0")].clone());
    cluster.spec.nodes[1].resources.memory = Some(Bytes(2 << 30));
    assert!(!render(&world.plan(&cluster)).contains("meanwhile"));
}
