//! A cluster gets another version node by node: whatever ends that at whatever step, it can be finished, and it can be taken back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bivouac_engine::{ClusterState, Event, ImageChoice, Reporter};
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::cluster::{Kubernetes, Stack};
use bivouac_spec::facts::Applied;
use bivouac_spec::{Cluster, Problems};
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, keeping};

const NEW: &str = Kubernetes::VERSIONS[0];
const OLD: &str = Kubernetes::VERSIONS[1];

fn set_version(bench: &mut Bench, version: &str) {
    bench.cluster.set_version(Some(version)).unwrap();
    bench.image = format!("image-{version}");
}

/// Two control planes and two workers of the old version.
async fn old() -> Bench {
    made(2).await
}

/// One control plane and two workers, where very many are made.
async fn small() -> Bench {
    made(1).await
}

async fn made(control_planes: u32) -> Bench {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[0].count = control_planes;
    set_version(&mut bench, OLD);
    bench.up().await.unwrap();
    bench
}

async fn upgrade(bench: &Bench) -> Result<(), Problems> {
    upgrade_telling(bench, &Reporter::silent(), &CancellationToken::new()).await
}

async fn upgrade_telling(
    bench: &Bench,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<(), Problems> {
    bench.up_choosing(ImageChoice::Current, reporter, cancel).await.map(drop)
}

/// The images that nodes have.
async fn images(bench: &Bench) -> BTreeSet<String> {
    let nodes = bench.observed().await.remove(0).nodes;
    nodes.into_values().map(|node| node.record.unwrap().image).collect()
}

/// All of it is as it is when nothing is in between, with this version.
async fn assert_settled(bench: &Bench, about: &str) {
    bench.assert_whole().await;
    assert_eq!(images(bench).await, BTreeSet::from([bench.image.clone()]), "{about}");
    let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    assert_eq!(state.applied.cluster, bench.cluster, "{about}");
    assert_eq!(state.applied.completed.as_deref(), Some(&bench.cluster), "{about}");
    assert_eq!((&state.image, state.remaking), (&bench.image, false), "{about}");
    assert_eq!(state.completed_image.as_ref(), Some(&bench.image), "{about}");
    assert_eq!(bench.up().await.unwrap().actions, [], "{about}");
}

/// What was done to nodes, in order.
fn told(events: &[Event]) -> Vec<String> {
    let word = |event: &Event| match event {
        Event::Working { what } => Some(what.clone()),
        Event::NodeUpdated { node } => Some(format!("{node} is new")),
        _ => None,
    };
    events.iter().filter_map(word).collect()
}

#[tokio::test]
async fn nodes_are_out_of_work_before_and_well_before_the_next() {
    let mut bench = old().await;
    let calls = bench.fake.calls().len();
    set_version(&mut bench, NEW);
    let (reporter, events) = keeping();
    upgrade_telling(&bench, &reporter, &CancellationToken::new()).await.unwrap();
    assert!(bench.fake.calls().len() > calls);
    let told = told(&events.lock().unwrap());
    let one = |node: &str| {
        [
            format!("keep new pods off node {node}"),
            format!("drain node {node}"),
            format!("wait until node {node} is Ready with {NEW}"),
            format!("{node} is new"),
        ]
    };
    let mut expected: Vec<String> =
        ["control-plane-0", "control-plane-1"].into_iter().flat_map(one).collect();
    expected.push("balancer is new".to_owned());
    expected.extend(["worker-0", "worker-1"].into_iter().flat_map(one));
    expected.push(format!("wait until all nodes are Ready with {NEW}"));
    assert_eq!(told, expected);
    assert_settled(&bench, "upgraded").await;
}

#[tokio::test]
async fn the_file_and_the_verb_do_the_same() {
    let mut bench = old().await;
    set_version(&mut bench, NEW);
    let actions = bench.up().await.unwrap().actions;
    assert!(actions.iter().all(|action| action.describe().starts_with("remake node")));
    assert_eq!(actions.len(), 5);
    assert_settled(&bench, "changed").await;
}

/// As when the process is killed: nothing is taken back. Gives whether there were so many calls.
async fn cut_short(bench: &mut Bench, injection: Injection) -> bool {
    set_version(bench, NEW);
    bench.fake.inject(Some(injection));
    let cut = bench.up().await;
    bench.fake.inject(None);
    cut.is_err()
}

#[tokio::test]
async fn what_is_cut_short_at_any_call_is_finished_by_the_same_command() {
    let mut cuts = 0;
    for call in 0.. {
        let mut reached = false;
        for when in [When::Before, When::After] {
            let mut bench = small().await;
            reached |= cut_short(&mut bench, Injection { call, when }).await;
            let about = format!("{call} {when:?}");
            upgrade(&bench).await.unwrap_or_else(|problems| panic!("{about}: {problems}"));
            assert_settled(&bench, &about).await;
        }
        if !reached {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 25, "{cuts} calls");
}

#[tokio::test]
async fn what_is_cut_short_at_any_call_is_taken_back_by_the_file_as_it_was() {
    for call in 0.. {
        let mut bench = small().await;
        if !cut_short(&mut bench, Injection { call, when: When::After }).await {
            break;
        }
        let done = bench.state().read(bench.cluster.name()).unwrap().unwrap();
        let is_new = done.applied.completed.as_deref() == Some(&bench.cluster);
        set_version(&mut bench, OLD);
        // By the file, and by the verb.
        let back = if call % 2 == 0 { bench.up().await.map(drop) } else { upgrade(&bench).await };
        if is_new {
            // Only the user's access was missing: there is no way back from what is whole.
            assert_eq!(back.unwrap_err().as_slice()[0].code, "plan.downgrade");
            continue;
        }
        back.unwrap_or_else(|problems| panic!("{call}: {problems}"));
        assert_settled(&bench, &call.to_string()).await;
    }
}

#[tokio::test]
async fn what_fails_at_any_call_is_taken_back() {
    let mut taken_back = 0;
    for call in 0.. {
        let mut reached = false;
        for when in [When::Before, When::After] {
            let mut bench = small().await;
            set_version(&mut bench, NEW);
            bench.fake.inject(Some(Injection { call, when }));
            let (reporter, events) = keeping();
            let failed = upgrade_telling(&bench, &reporter, &CancellationToken::new()).await;
            bench.fake.inject(None);
            reached |= failed.is_err();
            let about = format!("{call} {when:?}: {failed:?}");
            let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
            if state.applied.completed.as_deref() != Some(&bench.cluster) {
                set_version(&mut bench, OLD);
            }
            if let Err(problems) = failed
                && problems.as_slice()[0].code == "engine.upgrade_taken_back"
            {
                taken_back += 1;
                let [problem] = problems.as_slice() else { panic!("{about}") };
                assert!(problem.message.ends_with(&format!("as it was: Kubernetes {OLD}")));
                assert!(problem.causes[0].contains("was made to fail"), "{about}");
                // Nobody is asked to leave a second time.
                let told = told(&events.lock().unwrap());
                let drains = told.iter().filter(|what| what.starts_with("drain")).count();
                assert!(drains <= 4, "{about}: {told:?}");
            }
            assert_settled(&bench, &about).await;
        }
        if !reached {
            break;
        }
    }
    assert!(taken_back > 40, "{taken_back}");
}

#[tokio::test]
async fn who_interrupts_can_go_on_or_back() {
    for goes_on in [true, false] {
        let mut bench = old().await;
        set_version(&mut bench, NEW);
        let cancel = CancellationToken::new();
        let (stop, seen) = (
            cancel.clone(),
            move |event: &Event| matches!(event, Event::NodeUpdated { node } if node.as_str() == "balancer"),
        );
        let reporter = Reporter::new(move |event| {
            if seen(&event) {
                stop.cancel();
            }
        });
        let problems = upgrade_telling(&bench, &reporter, &cancel).await.unwrap_err();
        assert_eq!(problems.as_slice()[0].code, "engine.interrupted");
        assert_eq!(images(&bench).await.len(), 2, "it is in between");
        set_version(&mut bench, if goes_on { NEW } else { OLD });
        let (reporter, events) = keeping();
        upgrade_telling(&bench, &reporter, &CancellationToken::new()).await.unwrap();
        assert_settled(&bench, "interrupted").await;
        let told = told(&events.lock().unwrap());
        let new: Vec<&String> = told.iter().filter(|what| what.ends_with("is new")).collect();
        // Workers are never newer than control planes.
        let expected: &[&str] = if goes_on {
            &["worker-0 is new", "worker-1 is new"]
        } else {
            &["balancer is new", "control-plane-0 is new", "control-plane-1 is new"]
        };
        assert_eq!(new, expected);
    }
}

#[tokio::test]
async fn another_image_of_the_same_version_is_taken_when_it_is_asked_for() {
    let mut bench = old().await;
    let former = bench.image.clone();
    bench.image = "image-of-a-newer-bivouac".to_owned();
    assert_eq!(bench.up().await.unwrap().actions, [], "`up` leaves it");
    assert_eq!(images(&bench).await, BTreeSet::from([former.clone()]));
    // What fails is taken back here, too: the control planes are new by then.
    bench.fake.inject(None);
    let (reporter, events) = keeping();
    let (failing, broke) = (bench.fake.clone(), AtomicBool::new(false));
    let breaking = Reporter::new(move |event| {
        let reached = matches!(&event, Event::NodeUpdated { node } if node.as_str() == "balancer");
        if reached && !broke.swap(true, Ordering::Relaxed) {
            failing.inject(Some(Injection { call: 0, when: When::Before }));
        }
        reporter.report(event);
    });
    let problems = upgrade_telling(&bench, &breaking, &CancellationToken::new()).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "engine.upgrade_taken_back");
    assert!(told(&events.lock().unwrap()).contains(&"control-plane-1 is new".to_owned()));
    bench.fake.inject(None);
    assert_eq!(images(&bench).await, BTreeSet::from([former]));
    upgrade(&bench).await.unwrap();
    assert_settled(&bench, "renewed").await;
}

#[tokio::test]
async fn what_is_refused_takes_nothing_back() {
    let mut bench = old().await;
    bench.cluster.spec.nodes[1].count = 3;
    bench.fake.inject(Some(Injection { call: 8, when: When::After }));
    bench.up().await.unwrap_err();
    bench.fake.inject(None);
    let begun = bench.state().read(bench.cluster.name()).unwrap();
    assert_ne!(begun.as_ref().unwrap().applied.completed.as_deref(), Some(&bench.cluster));
    set_version(&mut bench, "v1.38.0");
    let problems = upgrade(&bench).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "plan.skips_minor");
    assert_eq!(bench.state().read(bench.cluster.name()).unwrap(), begun);
    // Taking it back would take the new worker away.
    set_version(&mut bench, NEW);
    let problems = upgrade(&bench).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "engine.change_unfinished");
    assert_eq!(bench.state().read(bench.cluster.name()).unwrap(), begun);
    set_version(&mut bench, OLD);
    bench.up().await.unwrap();
    set_version(&mut bench, NEW);
    upgrade(&bench).await.unwrap();
    assert_settled(&bench, "finished, and then upgraded").await;
}

#[tokio::test]
async fn a_cluster_with_nodes_that_are_stopped_is_not_upgraded() {
    let mut bench = old().await;
    let (name, worker) = (bench.cluster.name().clone(), "worker-1".parse().unwrap());
    bench.fake.stop_node(&name, &worker, Duration::ZERO).await.unwrap();
    set_version(&mut bench, NEW);
    let calls = bench.fake.calls().len();
    for outcome in [upgrade(&bench).await, bench.up().await.map(drop)] {
        let problems = outcome.unwrap_err();
        assert_eq!(problems.as_slice()[0].code, "engine.upgrade_of_stopped");
        assert!(problems.as_slice()[0].message.ends_with("are stopped: worker-1"));
    }
    let asks = |call: &String| ["survey", "observe"].contains(&call.as_str());
    assert!(bench.fake.calls()[calls..].iter().all(asks));
    set_version(&mut bench, OLD);
    bench.up().await.unwrap();
    assert_settled(&bench, "started").await;
}

#[tokio::test]
async fn a_control_plane_that_is_lost_is_there_again_before_another_stops() {
    let mut bench = made(3).await;
    let (name, lost) = (bench.cluster.name().clone(), "control-plane-1".parse().unwrap());
    bench.fake.destroy_node(&name, &lost).await.unwrap();
    set_version(&mut bench, NEW);
    let (reporter, events) = keeping();
    upgrade_telling(&bench, &reporter, &CancellationToken::new()).await.unwrap();
    let events = std::mem::take(&mut *events.lock().unwrap());
    let place = |of: &dyn Fn(&Event) -> bool| events.iter().position(of).unwrap();
    let started = place(&|event| matches!(event, Event::NodeStarted { node } if *node == lost));
    let drained =
        place(&|event| matches!(event, Event::Working { what } if what.starts_with("drain")));
    assert!(started < drained, "{events:?}");
    assert_settled(&bench, "upgraded").await;
}

/// All nodes have the new image, and nothing says yet that it is usable.
/// `first` is the first call to try to cut it short at, and becomes the one that did it.
async fn made_and_not_recorded(first: &mut usize) -> Bench {
    for call in *first.. {
        *first = call;
        let mut bench = small().await;
        assert!(cut_short(&mut bench, Injection { call, when: When::After }).await);
        let state = bench.state().read(bench.cluster.name()).unwrap().unwrap();
        let is_new = images(&bench).await == BTreeSet::from([bench.image.clone()]);
        if is_new && state.applied.completed.as_deref() != Some(&bench.cluster) {
            // What the nodes were told last may be missing.
            bench.up().await.unwrap();
            let state = ClusterState {
                completed_image: state.completed_image,
                applied: Applied { completed: state.applied.completed, ..state.applied },
                ..bench.state().read(bench.cluster.name()).unwrap().unwrap()
            };
            bench.state().write(&state).unwrap();
            return bench;
        }
    }
    unreachable!()
}

#[tokio::test]
async fn what_this_run_did_not_begin_is_not_taken_back() {
    let mut cut = 0;
    for call in 0.. {
        let bench = made_and_not_recorded(&mut cut).await;
        bench.fake.inject(Some(Injection { call, when: When::Before }));
        let failed = upgrade(&bench).await;
        bench.fake.inject(None);
        if failed.is_ok() {
            assert!(call > 3, "{call} calls");
            break;
        }
        let code = failed.unwrap_err().as_slice()[0].code.clone();
        assert!(!code.starts_with("engine.upgrade"), "{code}");
        assert_eq!(images(&bench).await, BTreeSet::from([bench.image.clone()]));
        upgrade(&bench).await.unwrap();
        assert_settled(&bench, "finished").await;
    }
}

#[tokio::test]
async fn what_this_bivouac_has_no_image_for_is_started_all_the_same() {
    let mut bench = old().await;
    let (name, worker) = (bench.cluster.name().clone(), "worker-1".parse().unwrap());
    bench.fake.stop_node(&name, &worker, Duration::ZERO).await.unwrap();
    let image = std::mem::take(&mut bench.image);
    assert_eq!(bench.up().await.unwrap().actions.len(), 1);
    let problems = upgrade(&bench).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "test.no_image");
    bench.image = image;
    assert_settled(&bench, "started").await;
}

#[tokio::test]
async fn a_downgrade_is_refused_and_changes_nothing() {
    let mut bench = old().await;
    set_version(&mut bench, NEW);
    upgrade(&bench).await.unwrap();
    let new: Cluster = bench.cluster.clone();
    set_version(&mut bench, OLD);
    let problems = upgrade(&bench).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "plan.downgrade");
    set_version(&mut bench, NEW);
    assert_eq!(bench.cluster, new);
    assert_settled(&bench, "refused").await;
    let Stack::Kubernetes(kubernetes) = &bench.cluster.spec.stack else { panic!("another stack") };
    assert_eq!(kubernetes.version, NEW);
}
