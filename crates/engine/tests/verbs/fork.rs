//! Forks: what they are made from, and what they have no room for.

use std::collections::BTreeMap;
use std::io::Cursor;

use bivouac_engine::Reporter;
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::Class;
use bivouac_spec::quantity::Bytes;
use camino::Utf8Path;
use tokio::io::AsyncReadExt as _;

use crate::bench::{Bench, keeping};
use crate::snapshot::cluster_named;

/// etcd's data of a node in memory: how far its log goes, and what it says.
const LOG_END: &str = "/var/lib/etcd/log-end";
const LOG: &str = "/var/lib/etcd/log";

async fn put(bench: &Bench, node: &str, path: &str, text: &str) {
    let node = bench.fake.open_node(bench.cluster.name(), &node.parse().unwrap()).await.unwrap();
    let content = Cursor::new(text.to_owned());
    node.put(path.into(), 0o600, Box::new(content)).await.unwrap();
}

/// Three control planes whose logs end like that.
async fn several(ends: [&str; 3]) -> Bench {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[0].count = 3;
    bench.cluster.spec.nodes.truncate(1);
    bench.up().await.unwrap();
    bench.fill("as saved").await;
    for (index, end) in ends.iter().enumerate() {
        let node = format!("control-plane-{index}");
        put(&bench, &node, LOG_END, end).await;
        put(&bench, &node, LOG, &format!("log of {node}")).await;
    }
    bench
}

async fn log(bench: &Bench, node: &str) -> String {
    let node =
        bench.fake.open_node(&cluster_named("second"), &node.parse().unwrap()).await.unwrap();
    let mut text = String::new();
    node.get(Utf8Path::new(LOG)).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_fork_is_founded_by_the_log_that_goes_furthest() {
    for (ends, furthest) in [
        (["3 9", "3 9", "3 9"], "control-plane-0"),
        (["3 9", "3 10", "3 9"], "control-plane-1"),
        (["3 9", "2 100", "4 8"], "control-plane-2"),
        (["3 10", "3 9", "2 11"], "control-plane-0"),
    ] {
        let bench = several(ends).await;
        bench.fork(None, &Reporter::silent()).await.unwrap();
        assert_eq!(log(&bench, "control-plane-0").await, format!("log of {furthest}"), "{ends:?}");
        assert_eq!(log(&bench, "control-plane-1").await, "log of control-plane-1");
        // Nothing else of it comes along.
        let own: BTreeMap<_, _> = bench.data(bench.cluster.name()).await;
        assert_eq!(bench.data(&cluster_named("second")).await, own);
    }
}

#[tokio::test]
async fn a_fork_whose_logs_cannot_be_told_apart_is_not_founded() {
    let bench = several(["3 9", "nothing", "3 9"]).await;
    let problems = bench.fork(None, &Reporter::silent()).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, "fork.unclear");
    assert!(problems.to_string().contains("control-plane-1"), "{problems}");
    // What is as it was before founds it.
    bench.remove(&cluster_named("second"), &Reporter::silent()).await;
    put(&bench, "control-plane-1", LOG_END, "3 10").await;
    bench.fork(None, &Reporter::silent()).await.unwrap();
    assert_eq!(log(&bench, "control-plane-0").await, "log of control-plane-1");
}

#[tokio::test]
async fn a_fork_that_fails_while_it_learns_who_knows_most_is_finished_by_the_same_command() {
    let calls = {
        let bench = several(["3 9", "3 10", "3 9"]).await;
        bench.fake.inject(None);
        bench.fork(None, &Reporter::silent()).await.unwrap();
        bench.fake.calls()
    };
    let filled =
        calls.iter().rposition(|call| call == "ensure_node second/control-plane-0").unwrap();
    let made = calls.iter().position(|call| call == "ensure_node second/control-plane-0").unwrap();
    assert!(made < filled);
    for call in made..filled {
        for when in [When::Before, When::After] {
            let bench = several(["3 9", "3 10", "3 9"]).await;
            bench.fake.inject(Some(Injection { call, when }));
            bench.fork(None, &Reporter::silent()).await.unwrap_err();
            bench.fake.inject(None);
            bench.fork(None, &Reporter::silent()).await.unwrap();
            assert_eq!(log(&bench, "control-plane-0").await, "log of control-plane-1", "{call}");
        }
    }
}

/// Nothing was made, nothing was saved, nothing is known of it.
async fn assert_refused(bench: &Bench, code: &str) {
    bench.fake.inject(None);
    let (reporter, events) = keeping();
    let problems = bench.fork(None, &reporter).await.unwrap_err();
    assert_eq!(problems.as_slice()[0].code, code, "{problems}");
    assert_eq!(problems.class(), Class::Unfit, "{problems}");
    assert!(problems.as_slice()[0].help.is_some());
    let calls = bench.fake.calls();
    assert!(calls.iter().all(|call| !call.contains("ensure")), "{calls:?}");
    let told = format!("{:?}", events.lock().unwrap());
    assert!(!told.contains("Saved"), "{told}");
    assert_eq!(bench.observed().await.len(), 1);
    assert_eq!(bench.state().clusters().unwrap(), [bench.cluster.name().clone()]);
    assert!(!bench.path("state/snapshots").exists());
}

#[tokio::test]
async fn a_fork_without_room_is_refused_before_anything_is_copied() {
    let bench = Bench::small().await;
    // There is room for new nodes, and not for what these two have.
    let mut survey = bench.fake.survey().await.unwrap();
    survey.facts.disk_free = Bytes(1 << 30);
    bench.fake.set_survey(survey);
    bench.fake.set_data(600 << 20);
    assert_refused(&bench, "snapshot.no_room").await;
    bench.fake.set_data(400 << 20);
    bench.fork(None, &Reporter::silent()).await.unwrap();
}

#[tokio::test]
async fn a_fork_without_networks_is_refused() {
    let bench = Bench::small().await;
    let mut fit = bench.fake.survey().await.unwrap();
    let all = ["10.0.0.0/8", "172.16.0.0/12", "198.18.0.0/15"]
        .map(|all| (all.parse().unwrap(), "a VPN".to_owned()));
    fit.facts.occupied.extend(all);
    bench.fake.set_survey(fit);
    assert_refused(&bench, "plan.no_free_network").await;
}
