//! Certificates come near their end while a cluster lives.

use std::collections::BTreeMap;
use std::time::Duration;

use bivouac_engine::{Event, add_certificates, cluster_status};
use bivouac_plan::Action;
use bivouac_provider::Provider as _;
use bivouac_provider::fake::{Injection, When};
use bivouac_spec::NodeName;
use jiff::Timestamp;
use serde_json::Value;

use crate::bench::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The keys, as they are kept.
fn keys(bench: &Bench) -> Value {
    let keys = bench.state().read_keys(bench.cluster.name()).unwrap().unwrap();
    serde_json::to_value(keys).unwrap()
}

/// What each node was made from.
async fn configs(bench: &Bench) -> BTreeMap<NodeName, String> {
    let nodes = bench.observed().await.remove(0).nodes.into_iter();
    nodes.map(|(name, node)| (name, node.record.unwrap().config)).collect()
}

/// What is wrong with the certificates, as a status has it.
async fn warning(bench: &Bench) -> Option<(String, String)> {
    let observed = bench.fake.observe().await.unwrap().remove(0);
    let state = bench.state().read(bench.cluster.name()).unwrap();
    let mut status = cluster_status(bench.fake.as_ref(), "fake", &observed, state.as_ref()).await;
    let now = Timestamp::try_from(bench.now).unwrap();
    add_certificates(&mut status, &bench.state(), &state.unwrap(), now).unwrap();
    let problem = status.problems.pop()?;
    Some((problem.code, problem.help.unwrap()))
}

/// Brings it up; what was done to which node, and what a user was told.
async fn up(bench: &Bench) -> (Vec<NodeName>, Vec<String>) {
    let (reporter, events) = keeping();
    let upped = bench.up_telling(&reporter).await.unwrap();
    let updated = upped.actions.iter().map(|action| match action {
        Action::UpdateNode { node, .. } => node.clone(),
        other => panic!("certificates make no difference to {other:?}"),
    });
    let events = events.lock().unwrap();
    let notes = events.iter().filter_map(|event| match event {
        Event::Noted { note } => Some(note.clone()),
        _ => None,
    });
    (updated.collect(), notes.collect())
}

#[tokio::test]
async fn certificates_near_their_end_are_renewed_with_a_word() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let (first, made_from, access) = (keys(&bench), configs(&bench).await, access(&bench));

    bench.now += 334 * DAY;
    assert_eq!(up(&bench).await, (vec![], vec![]));
    assert_eq!((warning(&bench).await, keys(&bench)), (None, first.clone()));

    bench.now += 2 * DAY;
    let (code, help) = warning(&bench).await.unwrap();
    assert_eq!(code, "status.certificates_end");
    assert!(help.contains("bivouac up demo"), "{help}");
    let (mut updated, notes) = up(&bench).await;
    updated.sort();
    assert_eq!(updated, made_from.keys().cloned().collect::<Vec<_>>());
    assert!(notes.len() == 1 && notes[0].contains("are renewed"), "{notes:?}");
    let renewed = keys(&bench);
    assert!(renewed != first && renewed["authorities"] == first["authorities"]);
    for (node, config) in configs(&bench).await {
        assert_ne!(config, made_from[&node], "{node}");
    }
    assert_ne!(self::access(&bench), access, "the user's certificate is among them");

    assert_eq!(warning(&bench).await, None);
    assert_eq!(up(&bench).await, (vec![], vec![]));
    bench.now += 300 * DAY;
    assert_eq!(up(&bench).await, (vec![], vec![]));
}

fn access(bench: &Bench) -> String {
    bench.kubeconfig().read().unwrap().unwrap()
}

/// A node that joins late has younger certificates than the others.
#[tokio::test]
async fn what_is_young_stays_as_it_is() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    bench.now += 200 * DAY;
    bench.cluster.spec.nodes[1].count += 1;
    bench.up().await.unwrap();
    let young = |keys: &Value| keys["leaves"]["worker-2/kubelet"].clone();
    let before = keys(&bench);
    assert!(young(&before).is_object());

    bench.now += 150 * DAY;
    let (_, notes) = up(&bench).await;
    assert_eq!(notes.len(), 1, "{notes:?}");
    let after = keys(&bench);
    assert_eq!(young(&after), young(&before));
    let old = |keys: &Value| keys["leaves"]["worker-1/kubelet"].clone();
    assert_ne!(old(&after), old(&before));
}

/// What was made and did not come to the nodes is no news, and comes to them.
#[tokio::test]
async fn a_renewal_that_is_cut_short_goes_on() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let made_from = configs(&bench).await;
    bench.now += 340 * DAY;
    for call in 0..8 {
        bench.fake.inject(Some(Injection { call, when: When::Before }));
        let _ = bench.up().await;
    }
    bench.fake.inject(None);
    bench.up().await.unwrap();
    bench.assert_whole().await;
    for (node, config) in configs(&bench).await {
        assert_ne!(config, made_from[&node], "{node}");
    }
}
