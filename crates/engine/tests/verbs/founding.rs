//! Who founds a cluster and who joins it, whatever is taken back, lost or torn.

use bivouac_engine::Event;
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::cluster::{Incus, NodeGroup, Role, Stack};
use bivouac_spec::{Cluster, NodeName};
use tokio::io::AsyncReadExt as _;

use crate::bench::{Bench, keeping};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// A change of the number of control planes.
fn with_control_planes(bench: &Bench, count: u32) -> Cluster {
    let mut cluster = bench.cluster.clone();
    cluster.spec.nodes[0].count = count;
    cluster
}

/// The members of an Incus cluster.
async fn members(count: u32) -> Bench {
    let mut bench = Bench::new();
    bench.cluster.spec.stack = Stack::Incus(Incus::default());
    bench.cluster.spec.nodes = vec![NodeGroup::new(Role::Member, count)];
    bench.up().await.unwrap();
    bench
}

/// What is done in nodes while it becomes what is asked for.
async fn steps_of(bench: &Bench) -> Vec<String> {
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let events = events.lock().unwrap();
    let step = |event: &Event| match event {
        Event::Working { what } => Some(what.clone()),
        _ => None,
    };
    events.iter().filter_map(step).collect()
}

async fn config(bench: &Bench, node: &str) -> String {
    let opened = bench.fake.open_node(bench.cluster.name(), &name(node)).await.unwrap();
    let members = "/etc/bivouac/etcd-members.sh".into();
    let mut text = String::new();
    opened.get(members).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn whoever_joined_never_founds_when_its_removal_is_taken_back() {
    let mut call = 0;
    loop {
        let mut bench = Bench::new();
        let (one, three) = (with_control_planes(&bench, 1), with_control_planes(&bench, 3));
        for cluster in [&one, &three] {
            bench.cluster = cluster.clone();
            bench.up().await.unwrap();
        }
        bench.cluster = one;
        bench.fake.inject(Some(Injection { call, when: When::After }));
        let is_through = bench.up().await.is_ok();
        bench.fake.inject(None);
        bench.cluster = three;
        bench.up().await.unwrap_or_else(|problems| panic!("{call}: {problems}"));
        bench.assert_whole().await;
        let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
        for node in ["control-plane-1", "control-plane-2"] {
            assert!(state.applied.joined.contains(&name(node)), "call {call}: {node}");
        }
        for node in ["control-plane-0", "control-plane-1", "control-plane-2"] {
            let members = config(&bench, node).await;
            assert!(!members.contains("STATE=new"), "call {call}: {node}: {members}");
        }
        if is_through {
            assert!(call > 5);
            return;
        }
        call += 3;
    }
}

#[tokio::test]
async fn a_cluster_that_never_was_usable_keeps_its_founders() {
    for (before, after) in [(1, 3), (3, 1)] {
        let mut bench = Bench::new();
        bench.cluster = with_control_planes(&bench, before);
        let first = bench.cluster.clone();
        bench.fake.inject(None);
        let mut call = 0;
        // Until a node was made.
        while bench.observed().await.iter().all(|cluster| cluster.nodes.is_empty()) {
            bench.fake.inject(Some(Injection { call, when: When::After }));
            bench.up().await.unwrap_err();
            call += 1;
        }
        bench.fake.inject(None);
        bench.cluster = with_control_planes(&bench, after);
        let refused = bench.up().await.unwrap_err();
        assert_eq!(refused.as_slice()[0].code, "plan.never_usable", "{before} -> {after}");
        bench.cluster = first;
        bench.up().await.unwrap();
        bench.cluster = with_control_planes(&bench, after);
        bench.up().await.unwrap();
        bench.assert_whole().await;
    }
}

#[tokio::test]
async fn only_who_is_gone_comes_anew() {
    let bench = members(3).await;
    let lost = name("member-1");
    bench.fake.destroy_node(bench.cluster.name(), &lost).await.unwrap();
    let steps = steps_of(&bench).await;
    assert!(steps.contains(&"trust member-1".to_owned()), "{steps:?}");
    // Its data is there, and it is the member that it was.
    bench.fake.tear(bench.cluster.name(), &lost);
    assert_eq!(steps_of(&bench).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_member_is_given_up_only_when_it_is_gone() {
    for is_gone in [false, true] {
        let mut bench = members(3).await;
        let (cluster, node) = (bench.cluster.name().clone(), name("member-2"));
        if is_gone {
            bench.fake.destroy_node(&cluster, &node).await.unwrap();
        } else {
            bench.fake.kill(&cluster, &node);
        }
        bench.cluster.spec.nodes[0].count = 2;
        let expected = if is_gone {
            "take member-2 out of the cluster"
        } else {
            "move the instances of member-2 and take it out of the cluster"
        };
        assert_eq!(steps_of(&bench).await, [expected]);
    }
}
