//! Two worlds are the same when all that anybody could see in them is.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bivouac_provider::Provider as _;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::node::paths;
use bivouac_spec::{ClusterName, NodeName};
use camino::Utf8Path;
use tokio::io::AsyncReadExt as _;

use crate::bench::Bench;

/// All that is anywhere, but for processes, times and what keys are made of.
pub(super) async fn world(bench: &Bench) -> String {
    let mut told = String::new();
    for cluster in bench.observed().await {
        writeln!(told, "{} {:?} {:?}", cluster.name, cluster.networks, cluster.remains).unwrap();
        let data = bench.data_of_running(&cluster.name).await;
        for (name, node) in &cluster.nodes {
            let (state, address, record) = (node.state, node.address, &node.record);
            let config = if state == ObservedState::Running {
                read(bench, &cluster.name, name, paths::CONFIG).await
            } else {
                String::new()
            };
            let data = data.get(name);
            writeln!(told, "{name} {state:?} {address:?} {record:?} {data:?} {config}").unwrap();
        }
    }
    let state = bench.state();
    for name in state.clusters().unwrap() {
        let mut known = state.read(&name).unwrap().unwrap();
        known.created = jiff::Timestamp::UNIX_EPOCH;
        writeln!(told, "{known:?}").unwrap();
    }
    for cluster in bench.snapshots().clusters().unwrap() {
        for name in bench.snapshots().names(&cluster).unwrap() {
            let nodes = bench.snapshots().read(&cluster, &name).unwrap().nodes;
            writeln!(told, "{cluster} {name} {:?}", nodes.into_keys()).unwrap();
        }
    }
    let folder = Utf8Path::from_path(bench.folder.path()).unwrap();
    list(folder, folder, &mut told);
    writeln!(told, "{:?}", bench.kubeconfig().read().unwrap()).unwrap();
    without_secrets(&told).replace(folder.as_str(), "HERE")
}

impl Bench {
    async fn data_of_running(&self, cluster: &ClusterName) -> BTreeMap<NodeName, String> {
        let observed = self.observed().await;
        let runs = observed.iter().filter(|one| one.name == *cluster).flat_map(|one| &one.nodes);
        let all = runs.into_iter().all(|(_, node)| node.state == ObservedState::Running);
        if all { self.data(cluster).await } else { Default::default() }
    }
}

async fn read(bench: &Bench, cluster: &ClusterName, node: &NodeName, path: &str) -> String {
    let node = bench.fake.open_node(cluster, node).await.unwrap();
    let mut text = String::new();
    node.get(path.into()).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

/// The names of all files below a folder.
fn list(root: &Utf8Path, folder: &Utf8Path, told: &mut String) {
    let mut entries: Vec<_> = folder.read_dir_utf8().unwrap().map(Result::unwrap).collect();
    entries.sort_by(|one, other| one.path().cmp(other.path()));
    for entry in entries {
        writeln!(told, "{}", entry.path().strip_prefix(root).unwrap()).unwrap();
        if entry.file_type().unwrap().is_dir() {
            list(root, entry.path(), told);
        }
    }
}

/// The same without certificates, keys and digests.
fn without_secrets(text: &str) -> String {
    let mut told = String::new();
    let mut rest = text;
    while let Some(begin) = rest.find("-----BEGIN") {
        told.push_str(&rest[..begin]);
        rest = &rest[begin..];
        let end = rest.find("-----END").unwrap();
        rest = &rest[end + "-----END".len()..];
        told.push_str("PEM");
    }
    told.push_str(rest);
    let is_inside =
        |letter: u8| matches!(letter, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'+' | b'/' | b'=');
    let is_secret =
        |word: &str| word.len() >= 43 && word.bytes().any(|letter| letter.is_ascii_digit());
    let words = told.split_inclusive(|letter| !u8::try_from(letter).is_ok_and(is_inside));
    let mut whole = String::new();
    for word in words {
        let inside = word.trim_end_matches(|letter| !u8::try_from(letter).is_ok_and(is_inside));
        whole.push_str(if is_secret(inside) { "SECRET" } else { inside });
        whole.push_str(&word[inside.len()..]);
    }
    whole
}

#[test]
fn worlds_are_compared_without_what_is_random() {
    let (key, word) = ("-----BEGIN KEY-----\nabc\n-----END KEY-----", "a1".repeat(30));
    let text = format!("one {key} two {word}= three/{} four", "a".repeat(50));
    let expected = format!("one PEM KEY----- two SECRET three/{} four", "a".repeat(50));
    assert_eq!(without_secrets(&text), expected);
}
