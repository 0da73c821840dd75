//! What is kept of a cluster's life, and what leaves the machine for a bug report.

use std::collections::BTreeMap;
use std::io::Read as _;

use bivouac_engine::{
    ArchiveRequest, Archived, Entry, Event, Events, Ground, NodeWord, add_certificates, archive,
    cluster_status,
};
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::NodeName;
use jiff::{SignedDuration, Timestamp};

use crate::bench::*;

fn entries(bench: &Bench) -> Vec<Entry> {
    Events::of(&bench.state(), bench.cluster.name()).read().unwrap()
}

/// The kinds of events, as JSON names them.
fn kinds(entries: &[Entry]) -> Vec<String> {
    let kind = |entry: &Entry| {
        let event = serde_json::to_value(&entry.event).unwrap();
        format!("{} {}", entry.verb, event["event"].as_str().unwrap())
    };
    entries.iter().map(kind).collect()
}

#[tokio::test]
async fn a_record_tells_what_each_verb_did_and_how_it_ended() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    let first = entries(&bench);
    let kinds = kinds(&first);
    assert_eq!(kinds[..2], ["up started", "up planned"], "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "up ended");
    for (kind, count) in [("up node-started", 3), ("up node-usable", 3), ("up node-status", 0)] {
        assert_eq!(kinds.iter().filter(|one| *one == kind).count(), count, "{kinds:?}");
    }
    bench.fake.inject(Some(Injection { call: 0, when: When::Before }));
    bench.up().await.unwrap_err();
    bench.fake.inject(None);
    let all = entries(&bench);
    let Event::Ended { problems, .. } = &all.last().unwrap().event else { panic!("{all:?}") };
    assert_eq!(problems[0].code, "provider.fake.injected");
    assert!(all.len() > first.len() && all.starts_with(&first));
    bench.down().await.unwrap();
    bench.assert_gone().await;
}

/// The texts of an archive, by their names below its folder.
fn open(bytes: &[u8]) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes));
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        assert_eq!(entry.header().mode().unwrap(), 0o600);
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name.strip_prefix("bivouac-demo/").unwrap().to_owned(), text)
    });
    entries.collect()
}

async fn archived(bench: &Bench) -> (Archived, BTreeMap<String, String>) {
    let settings = bench.cluster.spec.provider.clone();
    let ground = Ground { settings, provider: bench.fake.clone() };
    let request = ArchiveRequest {
        cluster: bench.cluster.name(),
        ground: &ground,
        grounds: &[],
        state: &bench.state(),
        images: &Image,
    };
    let mut bytes = Vec::new();
    let archived = archive(&request, &mut bytes).await.unwrap();
    (archived, open(&bytes))
}

const KEY: &str =
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIFakeFakeFake\n-----END EC PRIVATE KEY-----";

#[tokio::test]
async fn an_archive_has_everything_but_secrets() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    let worker: NodeName = "worker-1".parse().unwrap();
    let name = bench.cluster.name();
    bench.fake.write_log(name, &worker, &format!("before\n{KEY}\ntoken: hunter2\nafter\n"));
    let (archived, texts) = archived(&bench).await;
    assert_eq!((archived.logs, &archived.missing[..]), (3, &[][..]));
    let names: Vec<&str> = texts.keys().map(String::as_str).collect();
    let expected = [
        "README.txt",
        "cluster.json",
        "events.jsonl",
        "nodes/control-plane-0/agent.log",
        "nodes/worker-0/agent.log",
        "nodes/worker-1/agent.log",
        "plan.json",
        "status.json",
        "survey.json",
    ];
    assert_eq!(names, expected);
    let log = &texts["nodes/worker-1/agent.log"];
    assert_eq!(log, "started\nbefore\n[removed]\ntoken: [removed]\nafter\n");
    let whole: String = texts.values().map(String::as_str).collect();
    for secret in ["MHcCAQEE", "PRIVATE KEY", "hunter2"] {
        assert!(!whole.contains(secret), "{secret} is in it");
    }
    let plan: serde_json::Value = serde_json::from_str(&texts["plan.json"]).unwrap();
    assert_eq!(
        (&plan["actions"], &plan["refusals"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    assert!(texts["README.txt"].contains("Nothing is missing."), "{}", texts["README.txt"]);
    assert!(texts["status.json"].contains("\"phase\": \"usable\""));
    assert!(texts["events.jsonl"].contains("\"ended\""));
}

#[tokio::test]
async fn what_does_not_answer_is_missing_and_the_rest_is_there() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    bench.fake.kill(bench.cluster.name(), &"worker-0".parse().unwrap());
    let (archived_, texts) = archived(&bench).await;
    assert_eq!(archived_.missing, ["what node worker-0 says of itself: stopped"]);
    assert!(texts["README.txt"].contains("worker-0 says of itself: stopped"));
    assert!(texts.contains_key("nodes/worker-0/agent.log"), "a stopped node has its logs");
    // Whatever call fails, an archive comes of it.
    let calls = {
        bench.fake.inject(None);
        archived(&bench).await;
        bench.fake.calls().len()
    };
    for call in 0..calls {
        bench.fake.inject(Some(Injection { call, when: When::Before }));
        let (archived, texts) = archived(&bench).await;
        assert!(texts.contains_key("cluster.json") && texts.contains_key("events.jsonl"));
        // A plan that refuses says it itself; a node that cannot be asked is silent.
        let injected = |text: &String| text.contains("was made to fail");
        let is_told = archived.missing.len() > 1
            || archived.missing.iter().any(injected)
            || texts.get("plan.json").is_some_and(injected);
        assert!(is_told, "call {call} failed and nobody says so: {archived:?}");
    }
}

#[tokio::test]
async fn a_status_says_what_is_recorded_and_what_is_wrong() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    let state = bench.state().read(bench.cluster.name()).unwrap();
    let observed = bench.fake.observe().await.unwrap().remove(0);
    let fake = bench.fake.as_ref();
    let status = cluster_status(fake, "fake", &observed, state.as_ref()).await;
    assert!(status.usable && status.problems.is_empty(), "{status:?}");
    let about = status.about.unwrap();
    assert!(about.stack.starts_with("Kubernetes v1."), "{about:?}");
    assert_eq!((about.node_networks.len(), about.image.as_str()), (1, "image"));
    assert!(status.nodes.values().all(|node| node.addresses.len() == 1));

    let directory = bench.state();
    let mut status = cluster_status(fake, "fake", &observed, state.as_ref()).await;
    let known = state.as_ref().unwrap();
    let mut certificates = |now: Timestamp| {
        add_certificates(&mut status, &directory, known, now).unwrap();
        let end = status.about.as_ref().and_then(|about| about.certificates_end).unwrap();
        (end, status.problems.pop().map(|problem| problem.code))
    };
    let (end, problem) = certificates(Timestamp::now());
    assert_eq!(problem, None);
    let (_, problem) = certificates(end - SignedDuration::from_hours(29 * 24));
    assert_eq!(problem.as_deref(), Some("status.certificates_end"));

    let mut unfinished = state.clone().unwrap();
    unfinished.applied.cluster.remove_node(&"worker-0".parse().unwrap()).unwrap();
    let status = cluster_status(fake, "fake", &observed, Some(&unfinished)).await;
    let codes: Vec<&str> = status.problems.iter().map(|problem| problem.code.as_str()).collect();
    assert_eq!(codes, ["status.node_surplus", "status.unfinished"]);
    assert!(status.problems.iter().all(|problem| problem.help.is_some()));

    bench.fake.kill(bench.cluster.name(), &"worker-1".parse().unwrap());
    let observed = bench.fake.observe().await.unwrap().remove(0);
    let status = cluster_status(fake, "fake", &observed, state.as_ref()).await;
    assert!(!status.usable);
    assert_eq!(status.nodes[&"worker-1".parse().unwrap()].word(), NodeWord::Stopped);
    assert_eq!(status.problems.len(), 1);
}
