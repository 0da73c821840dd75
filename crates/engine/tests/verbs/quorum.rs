//! Control planes that are lost, that go and that are stopped; and nodes that were to go and stay.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bivouac_engine::{Event, Reporter, StopRequest, stop};
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::{Cluster, NodeName};

use crate::bench::{Bench, keeping};

async fn made(control_planes: u32) -> Bench {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[0].count = control_planes;
    bench.cluster.spec.nodes[1].count = 1;
    bench.up().await.unwrap();
    bench
}

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

async fn lose(bench: &Bench, node: &str) {
    bench.fake.destroy_node(bench.cluster.name(), &name(node)).await.unwrap();
}

/// What was done, in order.
fn told(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Working { what } => Some(what.clone()),
        Event::NodeStarted { node } => Some(format!("start {node}")),
        Event::NodeRemoved { node } => Some(format!("remove {node}")),
        _ => None,
    };
    events.iter().filter_map(word).collect()
}

/// A reporter that lets the next call fail when a step begins, once.
fn breaking_at(bench: &Bench, step: &'static str) -> Reporter {
    breaking_after(bench, step, 0)
}

/// The same of a later call.
fn breaking_after(bench: &Bench, step: &'static str, call: usize) -> Reporter {
    let (fake, broke) = (bench.fake.clone(), AtomicBool::new(false));
    Reporter::new(move |event| {
        let is_it = matches!(&event, Event::Working { what } if what == step);
        if is_it && !broke.swap(true, Ordering::Relaxed) {
            fake.inject(Some(Injection { call, when: When::Before }));
        }
    })
}

async fn assert_settled(bench: &Bench) {
    bench.assert_whole().await;
    let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    assert_eq!(state.applied.cluster, bench.cluster);
    assert_eq!(state.applied.completed.as_deref(), Some(&bench.cluster));
    let members: Vec<_> = state.applied.members.into_keys().collect();
    let mut nodes: Vec<_> = bench.cluster.nodes().into_iter().map(|node| node.name).collect();
    nodes.sort();
    assert_eq!((members, state.remaking), (nodes, false));
}

/// One of three is lost, and another one is to go.
async fn one_lost_and_one_goes() -> Bench {
    let mut bench = made(3).await;
    lose(&bench, "control-plane-0").await;
    bench.cluster.remove_node(&name("control-plane-2")).unwrap();
    bench
}

#[tokio::test]
async fn who_is_lost_is_back_before_another_goes() {
    let bench = one_lost_and_one_goes().await;
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let told = told(&events.lock().unwrap());
    let expected = [
        "take control-plane-0 out of etcd",
        "start control-plane-0",
        "drain node control-plane-2",
        "take control-plane-2 out of etcd",
        "remove Node control-plane-2",
        "remove control-plane-2",
    ];
    assert_eq!(told, expected);
    assert_settled(&bench).await;
}

#[tokio::test]
async fn that_fails_anywhere_and_is_finished_by_the_same_command() {
    for call in 0.. {
        let bench = one_lost_and_one_goes().await;
        bench.fake.inject(Some(Injection { call, when: When::After }));
        let failed = bench.up().await.is_err();
        bench.fake.inject(None);
        bench.up().await.unwrap_or_else(|problems| panic!("{call}: {problems}"));
        assert_settled(&bench).await;
        if !failed {
            assert!(call > 10, "{call} calls");
            break;
        }
    }
}

#[tokio::test]
async fn all_who_are_lost_are_forgotten_before_the_first_is_back() {
    let bench = made(5).await;
    for node in ["control-plane-0", "control-plane-3"] {
        lose(&bench, node).await;
    }
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let told = told(&events.lock().unwrap());
    let started = told.iter().position(|what| what.starts_with("start")).unwrap();
    for node in ["control-plane-0", "control-plane-3"] {
        let forgotten = format!("take {node} out of etcd");
        assert!(told[..started].contains(&forgotten), "{told:?}");
    }
    assert_settled(&bench).await;
}

#[tokio::test]
async fn who_does_not_run_goes_before_others_are_made() {
    let mut bench = made(5).await;
    for node in ["control-plane-0", "control-plane-3"] {
        lose(&bench, node).await;
    }
    bench.cluster.remove_node(&name("control-plane-3")).unwrap();
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let told = told(&events.lock().unwrap());
    let place = |what: &str| told.iter().position(|told| told == what).unwrap();
    assert!(place("remove control-plane-3") < place("start control-plane-0"), "{told:?}");
    assert_settled(&bench).await;
}

#[tokio::test]
async fn a_node_that_could_not_be_drained_gets_pods_again_when_it_stays() {
    let mut bench = made(1).await;
    bench.cluster.spec.nodes[1].count = 2;
    bench.up().await.unwrap();
    let before: Cluster = bench.cluster.clone();
    bench.cluster.remove_node(&name("worker-1")).unwrap();
    let breaking = breaking_at(&bench, "drain node worker-1");
    bench.up_telling(&breaking).await.unwrap_err();
    bench.fake.inject(None);
    bench.cluster = before;
    // Whatever ends that, it is not forgotten.
    for step in ["wait until all nodes are Ready with v1.36.3", ""] {
        let (reporter, events) = keeping();
        let outcome = if step.is_empty() {
            bench.up_telling(&reporter).await
        } else {
            bench.up_telling(&breaking_at(&bench, step)).await
        };
        bench.fake.inject(None);
        assert_eq!(outcome.is_ok(), step.is_empty(), "{outcome:?}");
        if outcome.is_ok() {
            let told = told(&events.lock().unwrap());
            let known = "make Node worker-1 unless it is there";
            assert_eq!(told, [known, "wait until all nodes are Ready with v1.36.3"]);
        }
    }
    assert_settled(&bench).await;
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    assert_eq!(told(&events.lock().unwrap()), Vec::<String>::new(), "once is enough");
}

#[tokio::test]
async fn a_majority_that_is_stopped_is_told() {
    let bench = made(3).await;
    let state = bench.state();
    let stopped = async |nodes: &[&str]| {
        let (reporter, events) = keeping();
        let request = StopRequest {
            cluster: bench.cluster.name(),
            nodes: &nodes.iter().map(|node| name(node)).collect::<BTreeSet<_>>(),
            provider: Arc::clone(&bench.fake) as _,
            state: &state,
        };
        stop(&request, &reporter).await.unwrap();
        let events = events.lock().unwrap();
        let note = |event: &Event| match event {
            Event::Noted { note } => Some(note.clone()),
            _ => None,
        };
        events.iter().filter_map(note).collect::<Vec<_>>()
    };
    assert_eq!(stopped(&["control-plane-1", "worker-0"]).await, Vec::<String>::new());
    let notes = stopped(&["control-plane-2"]).await;
    let numbers = "1 of 3 control planes of cluster `demo` run then, and 2 must";
    assert!(notes[0].starts_with(numbers) && notes.len() == 1, "{notes:?}");
    bench.up().await.unwrap();
    assert_eq!(stopped(&[]).await, Vec::<String>::new());
}

/// What lets go of the second of two control planes is done, and the node is still there: it may come back to the first.
#[tokio::test]
async fn who_was_let_go_and_is_there_is_let_go_again() {
    let mut bench = made(2).await;
    bench.cluster.remove_node(&name("control-plane-1")).unwrap();
    let breaking = breaking_after(&bench, "remove Node control-plane-1", 2);
    bench.up_telling(&breaking).await.unwrap_err();
    bench.fake.inject(None);
    let recorded = bench.state().read(bench.cluster.name()).unwrap().unwrap().applied.members;
    assert!(recorded[&name("control-plane-1")].left);
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let told = told(&events.lock().unwrap());
    assert!(told.iter().any(|what| what == "take control-plane-1 out of etcd"), "{told:?}");
    assert_settled(&bench).await;
}

/// The same, and then the node is gone, too: nobody is asked to agree with one that is no member.
#[tokio::test]
async fn who_was_let_go_and_is_gone_is_not_missed() {
    let mut bench = made(2).await;
    bench.cluster.remove_node(&name("control-plane-1")).unwrap();
    let breaking = breaking_after(&bench, "remove Node control-plane-1", 2);
    bench.up_telling(&breaking).await.unwrap_err();
    bench.fake.inject(None);
    lose(&bench, "control-plane-1").await;
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let told = told(&events.lock().unwrap());
    assert!(!told.iter().any(|what| what.contains("etcd")), "{told:?}");
    assert_settled(&bench).await;
}

/// One worker is gone with its Node when another one cannot go, and then both are wanted again.
#[tokio::test]
async fn nodes_that_are_back_are_known_again() {
    let mut bench = made(1).await;
    bench.cluster.spec.nodes[1].count = 3;
    bench.up().await.unwrap();
    let before = bench.cluster.clone();
    for node in ["worker-1", "worker-2"] {
        bench.cluster.remove_node(&name(node)).unwrap();
    }
    bench.up_telling(&breaking_at(&bench, "drain node worker-2")).await.unwrap_err();
    bench.fake.inject(None);
    bench.cluster = before;
    let known = |told: &[String]| {
        let nodes = ["worker-1", "worker-2"];
        nodes.iter().all(|node| told.contains(&format!("make Node {node} unless it is there")))
    };
    // Whatever ends that, it is not forgotten.
    let (reporter, events) = keeping();
    let follow = breaking_at(&bench, "make Node worker-2 unless it is there");
    bench.up_telling(&follow).await.unwrap_err();
    bench.fake.inject(None);
    bench.up_telling(&reporter).await.unwrap();
    let first = told(&events.lock().unwrap());
    assert!(known(&first), "{first:?}");
    let started = first.iter().position(|what| what == "start worker-1").unwrap();
    assert!(known(&first[..started]), "{first:?}");
    assert_settled(&bench).await;
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    assert_eq!(told(&events.lock().unwrap()), Vec::<String>::new(), "once is enough");
}
