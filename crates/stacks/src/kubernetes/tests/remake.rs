//! What is done around nodes that are made anew.

use super::*;

fn names(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| step.name.as_str()).collect()
}

#[test]
fn pods_leave_a_node_that_is_made_anew_if_another_takes_them() {
    let bench = Bench::several();
    let before = bench.steps(&Change::Remakes(&name("worker-0")));
    insta::assert_snapshot!("a_worker_is_remade", format!("{before:#?}"));
    assert_eq!(
        names(&bench.steps(&Change::Remakes(&name("control-plane-0")))),
        ["keep new pods off node control-plane-0", "drain node control-plane-0"]
    );
    assert!(bench.steps(&Change::Remakes(&name("balancer"))).is_empty());
    // The control plane of a cluster with workers takes none of their pods.
    let two = |worker: NodeGroup| Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1), worker]);
    let bench = two(NodeGroup::new(Role::Worker, 1));
    assert!(bench.steps(&Change::Remakes(&name("worker-0"))).is_empty());
    assert_eq!(bench.steps(&Change::Remakes(&name("control-plane-0"))).len(), 2);
    let single = Bench::new(vec![NodeGroup::new(Role::ControlPlane, 1)]);
    assert!(single.steps(&Change::Remakes(&name("control-plane-0"))).is_empty());
}

#[test]
fn a_node_is_back_when_it_is_ready_with_its_version() {
    let bench = Bench::several();
    let [worker, balancer] = ["worker-1", "balancer"].map(name);
    let after = bench.steps(&Change::Remade(&[&worker]));
    insta::assert_snapshot!("a_worker_is_back", format!("{after:#?}"));
    assert!(bench.steps(&Change::Remade(&[&balancer])).is_empty());
    let all: Vec<NodeName> = bench.cluster.nodes().into_iter().map(|node| node.name).collect();
    let all = bench.steps(&Change::Remade(&all.iter().collect::<Vec<_>>()));
    assert_eq!(names(&all), ["wait until all nodes are Ready with v1.36.3"]);
}
