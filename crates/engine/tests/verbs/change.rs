//! A cluster changes: whatever ends a verb at whatever step, running it again reaches the same world.

use std::collections::BTreeSet;
use std::sync::Arc;

use bivouac_engine::{Event, Reporter, StopRequest, stop};
use bivouac_plan::Action;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::Cluster;
use bivouac_spec::cluster::{NodeGroup, Role};
use bivouac_spec::quantity::Bytes;

use crate::bench::{Bench, keeping};

/// One cluster becomes another.
struct Case {
    name: &'static str,
    /// Whether the other becomes that one, too.
    both_ways: bool,
    change: fn(&mut Cluster),
}

const CASES: [Case; 4] = [
    Case {
        name: "more workers",
        both_ways: true,
        change: |cluster| cluster.spec.nodes[1].count = 2,
    },
    Case {
        name: "other limits and labels",
        both_ways: false,
        change: |cluster| {
            cluster.spec.nodes[1].resources.memory = Some(Bytes(1 << 30));
            cluster.spec.nodes[1].labels.insert("disk".to_owned(), "fast".to_owned());
        },
    },
    Case {
        name: "another group in place of one",
        both_ways: false,
        change: |cluster| {
            let group = NodeGroup::new(Role::Worker, 1);
            cluster.spec.nodes[1] = NodeGroup { name: Some("gpu".to_owned()), ..group };
        },
    },
    Case {
        name: "three control planes and no worker",
        both_ways: true,
        change: |cluster| {
            cluster.spec.nodes[0].count = 3;
            cluster.spec.nodes.truncate(1);
        },
    },
];

async fn world(bench: &Bench) -> String {
    let observed = bench.observed().await;
    let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    // Processes differ, and which run they belong to means nothing.
    let nodes = observed.into_iter().flat_map(|cluster| cluster.nodes);
    let nodes = nodes.map(|(name, node)| format!("{name} {:?} {:?}", node.state, node.record));
    format!("{:?}\n{:?}", nodes.collect::<Vec<_>>(), state.applied)
}

#[tokio::test]
async fn a_change_that_fails_at_any_call_is_finished_by_the_next_run() {
    for case in &CASES {
        // Certificates are made anew in each world, so what is compared is within one.
        for reverse in [false, true].into_iter().filter(|reverse| case.both_ways || !reverse) {
            let calls = changed(case, reverse, None).await;
            assert!(calls > 5, "{}: {calls} calls", case.name);
            for call in 0..calls {
                for when in [When::Before, When::After] {
                    changed(case, reverse, Some(Injection { call, when })).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_change_that_fails_can_be_taken_back() {
    for case in CASES.iter().filter(|case| case.both_ways) {
        let calls = changed(case, false, None).await;
        for call in 0..calls {
            let mut bench = Bench::new();
            bench.cluster.spec.nodes[1].count = 1;
            let before = bench.cluster.clone();
            bench.up().await.unwrap();
            (case.change)(&mut bench.cluster);
            bench.fake.inject(Some(Injection { call, when: When::After }));
            let failed = bench.up().await.is_err();
            bench.fake.inject(None);
            let made: BTreeSet<_> = bench.observed().await.remove(0).nodes.into_keys().collect();
            bench.cluster = before;
            let (reporter, events) = keeping();
            bench
                .up_telling(&reporter)
                .await
                .unwrap_or_else(|problems| panic!("{call}: {problems}"));
            bench.assert_whole().await;
            // Whoever was made may be a member, and is let go before it is removed.
            let events = events.lock().unwrap();
            let told = |word: &str, node: &str| {
                events.iter().any(|event| match event {
                    Event::Working { what } => what.contains(word) && what.ends_with(node),
                    _ => false,
                })
            };
            let made =
                made.iter().filter(|node| failed && node.as_str().starts_with("control-plane-"));
            for node in made.filter(|node| node.as_str() != "control-plane-0") {
                assert!(told("drain", node.as_str()), "call {call}: {node}: {events:?}");
            }
        }
    }
}

/// Makes a cluster, changes it with this failure, and finishes that. Gives the number of calls.
async fn changed(case: &Case, reverse: bool, injection: Option<Injection>) -> usize {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[1].count = 1;
    let mut after = bench.cluster.clone();
    (case.change)(&mut after);
    if reverse {
        std::mem::swap(&mut bench.cluster, &mut after);
    }
    bench.up().await.unwrap();
    let name = format!("{} {reverse} {injection:?}", case.name);
    bench.cluster = after;
    bench.fake.inject(injection);
    let first = bench.up().await;
    let calls = bench.fake.calls().len();
    bench.fake.inject(None);
    if injection.is_none() {
        assert!(!first.unwrap_or_else(|problems| panic!("{name}: {problems}")).actions.is_empty());
    }
    bench.up().await.unwrap_or_else(|problems| panic!("{name}: {problems}"));
    bench.assert_whole().await;
    let whole = world(&bench).await;
    assert_eq!(bench.up().await.unwrap().actions, [], "{name}");
    assert_eq!(world(&bench).await, whole, "{name}");
    let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    assert_eq!(*state.applied.completed.unwrap(), bench.cluster, "{name}");
    bench.down().await.unwrap();
    bench.assert_gone().await;
    calls
}

#[tokio::test]
async fn only_what_differs_is_touched() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    bench.cluster.spec.nodes[1].count = 3;
    bench.fake.inject(None);
    let upped = bench.up().await.unwrap();
    let created: Vec<_> = upped
        .actions
        .iter()
        .filter(|action| matches!(action, Action::CreateNode { .. }))
        .filter_map(Action::node)
        .map(ToString::to_string)
        .collect();
    assert_eq!(created, ["worker-2"]);
    let pids = |bench: Vec<bivouac_spec::ObservedCluster>| -> Vec<_> {
        bench[0].nodes.values().map(|node| node.pid).collect()
    };
    let before = pids(bench.observed().await);
    bench.cluster.spec.nodes[1].resources.memory = Some(Bytes(1 << 30));
    bench.up().await.unwrap();
    assert_eq!(pids(bench.observed().await), before, "nodes run on");
}

#[tokio::test]
async fn what_was_stopped_starts_again() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    let stop_some = async |nodes: BTreeSet<_>| {
        let state = bench.state();
        let request = StopRequest {
            cluster: bench.cluster.name(),
            nodes: &nodes,
            provider: Arc::clone(&bench.fake) as _,
            state: &state,
        };
        stop(&request, &Reporter::silent()).await
    };
    let one = BTreeSet::from(["worker-1".parse().unwrap()]);
    assert_eq!(stop_some(one.clone()).await.unwrap().len(), 1);
    assert_eq!(stop_some(one).await.unwrap(), [], "it does not run any more");
    assert_eq!(stop_some(BTreeSet::new()).await.unwrap().len(), 2);
    let problems = stop_some(BTreeSet::from(["worker-7".parse().unwrap()])).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "engine.unknown_node");
    let started = bench.up().await.unwrap().actions;
    assert!(started.iter().all(|action| matches!(action, Action::StartNode { .. })), "{started:?}");
    bench.assert_whole().await;
}
