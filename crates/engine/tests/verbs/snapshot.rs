//! Snapshots and forks: whatever ends a verb at whatever call, running it again reaches the same world.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bivouac_engine::{
    DeleteRequest, DownRequest, Event, ForkRequest, NodeImages, Reporter, RestoreRequest,
    SaveRequest, Snapshot, Snapshots, UpOptions, Upped, delete_snapshots, down, fork, restore,
    save,
};
use bivouac_provider::fake::{Injection, When};
use bivouac_provider::{ImagePaths, Provider as _};
use bivouac_spec::cluster::{self, Bootstrap, DockerProvider, NodeGroup, Port, Protocol, Role};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Cluster, ClusterName, NodeName, Problem, Problems, SnapshotName};
use camino::Utf8Path;
use tokio::io::AsyncReadExt as _;
use tokio_util::sync::CancellationToken;

use crate::bench::{Bench, Image, keeping};

const DATA: &str = "/var/lib/data";

fn named(name: &str) -> SnapshotName {
    name.parse().unwrap()
}

pub(crate) fn cluster_named(name: &str) -> ClusterName {
    name.parse().unwrap()
}

fn options(bench: &Bench, verb: &'static str) -> UpOptions {
    UpOptions {
        agent: "/agent".into(),
        kubeconfig: Some(bench.kubeconfig()),
        remotes: None,
        verb,
        only: BTreeSet::new(),
        timeout: Duration::from_secs(120),
    }
}

impl Bench {
    /// One control plane and one worker: few calls.
    pub(crate) async fn small() -> Self {
        let mut bench = Self::new();
        bench.cluster.spec.nodes[1].count = 1;
        bench.up().await.unwrap();
        bench.fill("as saved").await;
        bench
    }

    /// Puts data into each node.
    pub(crate) async fn fill(&self, text: &str) {
        for node in self.cluster.nodes() {
            let opened = self.fake.open_node(self.cluster.name(), &node.name).await.unwrap();
            let content = format!("{text} in {}", node.name);
            opened.put(DATA.into(), 0o644, Box::new(Cursor::new(content))).await.unwrap();
        }
    }

    /// The data of each node of a cluster.
    pub(crate) async fn data(&self, cluster: &ClusterName) -> BTreeMap<NodeName, String> {
        let observed = self.observed().await;
        let mut data = BTreeMap::new();
        for cluster in observed.iter().filter(|observed| observed.name == *cluster) {
            for node in cluster.nodes.keys() {
                let opened = self.fake.open_node(&cluster.name, node).await.unwrap();
                let mut text = String::new();
                let path = Utf8Path::new(DATA);
                if let Ok(mut content) = opened.get(path).await {
                    content.read_to_string(&mut text).await.unwrap();
                }
                data.insert(node.clone(), text);
            }
        }
        data
    }

    pub(crate) async fn save(&self, name: &str) -> Result<Snapshot, Problems> {
        let (state, name) = (self.state(), named(name));
        let request = SaveRequest {
            cluster: self.cluster.name(),
            name: &name,
            provider: self.fake.clone(),
            state: &state,
        };
        save(&request, &Reporter::silent(), &CancellationToken::new()).await
    }

    pub(crate) async fn restore(&self, name: &str) -> Result<Upped, Problems> {
        self.restore_with(name, &Image).await
    }

    async fn restore_with(&self, name: &str, images: &dyn NodeImages) -> Result<Upped, Problems> {
        let (state, name) = (self.state(), named(name));
        let request = RestoreRequest {
            cluster: self.cluster.name(),
            name: &name,
            provider: self.fake.clone(),
            grounds: &self.grounds,
            images,
            state: &state,
        };
        let options = options(self, "snapshot restore");
        restore(&request, &options, &Reporter::silent(), &CancellationToken::new()).await
    }

    pub(crate) async fn fork(
        &self,
        snapshot: Option<&str>,
        reporter: &Reporter,
    ) -> Result<Upped, Problems> {
        self.fork_named("second", snapshot, reporter).await
    }

    pub(crate) async fn fork_named(
        &self,
        name: &str,
        snapshot: Option<&str>,
        reporter: &Reporter,
    ) -> Result<Upped, Problems> {
        let (state, snapshot) = (self.state(), snapshot.map(named));
        let request = ForkRequest {
            name: &cluster_named(name),
            before: self.cluster.name(),
            snapshot: snapshot.as_ref(),
            provider: self.fake.clone(),
            grounds: &self.grounds,
            images: &Image,
            state: &state,
        };
        fork(&request, &options(self, "fork"), reporter, &CancellationToken::new()).await
    }

    pub(crate) async fn remove(&self, cluster: &ClusterName, reporter: &Reporter) {
        let state = self.state();
        let (provider, kubeconfig) = (Arc::clone(&self.fake) as _, None);
        let request = DownRequest { cluster, provider, state: &state, kubeconfig };
        down(&request, reporter).await.unwrap();
    }

    pub(crate) fn snapshots(&self) -> Snapshots {
        Snapshots::of(&self.state())
    }

    /// What is there of a cluster, but for processes, which differ.
    async fn world(&self, cluster: &ClusterName) -> String {
        let observed = self.observed().await.into_iter().find(|found| found.name == *cluster);
        let nodes = observed.into_iter().flat_map(|cluster| cluster.nodes);
        let nodes = nodes.map(|(name, node)| format!("{name} {:?} {:?}", node.state, node.record));
        let nodes: Vec<String> = nodes.collect();
        let state = self.state().read(cluster).unwrap();
        let state = state.map(|state| (state.applied, state.restoring, state.image));
        format!("{nodes:?}\n{state:?}\n{:?}", self.data(cluster).await)
    }
}

fn both_moments(calls: usize) -> impl Iterator<Item = Injection> {
    let at = |call| [When::Before, When::After].map(|when| Injection { call, when });
    (0..calls).flat_map(at)
}

#[tokio::test]
async fn a_restore_brings_back_what_was_saved_and_nothing_else() {
    let mut bench = Bench::small().await;
    let before = bench.world(bench.cluster.name()).await;
    let keys = bench.state().read_keys(bench.cluster.name()).unwrap();
    let snapshot = bench.save("first").await.unwrap();
    assert_eq!(
        (snapshot.stack.starts_with("Kubernetes"), snapshot.provider.as_str()),
        (true, "linux")
    );
    assert!(snapshot.size > 0);
    assert_eq!(bench.world(bench.cluster.name()).await, before, "saving changes nothing");
    // Everything changes: data, nodes, labels.
    bench.fill("changed").await;
    let saved = bench.cluster.clone();
    bench.cluster.spec.nodes[1].count = 2;
    bench.cluster.spec.nodes[1].labels.insert("disk".to_owned(), "fast".to_owned());
    bench.up().await.unwrap();
    bench.restore("first").await.unwrap();
    bench.cluster = saved;
    assert_eq!(bench.world(bench.cluster.name()).await, before);
    assert_eq!(bench.state().read_keys(bench.cluster.name()).unwrap(), keys);
    assert_eq!(bench.up().await.unwrap().actions, [], "it is as it was asked for");
    bench.assert_whole().await;

    // It is there when the cluster is gone, until it is deleted.
    let (reporter, events) = keeping();
    bench.remove(&bench.cluster.name().clone(), &reporter).await;
    let told = events.lock().unwrap().iter().any(|event| match event {
        Event::Noted { note } => note.contains("`bivouac snapshot delete -c demo first`"),
        _ => false,
    });
    assert!(told, "{events:?}");
    bench.restore("first").await.unwrap();
    assert_eq!(bench.data(bench.cluster.name()).await.len(), 2);
    bench.down().await.unwrap();
    let state = bench.state();
    let names = [named("first")];
    let request = DeleteRequest { cluster: bench.cluster.name(), names: &names, state: &state };
    delete_snapshots(&request).unwrap();
    assert_eq!(bench.snapshots().clusters().unwrap(), []);
    bench.assert_gone().await;
}

#[tokio::test]
async fn a_save_that_fails_at_any_call_leaves_nothing_of_it() {
    let bench = Bench::small().await;
    let before = bench.world(bench.cluster.name()).await;
    bench.fake.inject(None);
    bench.save("first").await.unwrap();
    let calls = bench.fake.calls().len();
    assert!(calls >= 5, "{calls}");
    for injection in both_moments(calls) {
        bench.fake.inject(Some(injection));
        let problems = bench.save("second").await.unwrap_err();
        assert_eq!(problems.as_slice()[0].code, "provider.fake.injected", "{injection:?}");
        let names = bench.snapshots().names(bench.cluster.name()).unwrap();
        assert_eq!(names, [named("first")], "{injection:?}");
    }
    assert_eq!(bench.world(bench.cluster.name()).await, before);
    bench.fake.inject(None);
    bench.save("second").await.unwrap();
}

#[tokio::test]
async fn a_restore_that_fails_at_any_call_is_finished_by_the_same_command() {
    let calls = restored(None).await;
    assert!(calls > 10, "{calls} calls");
    for injection in both_moments(calls) {
        restored(Some(injection)).await;
    }
}

/// Restores a cluster with this failure, and finishes that. Gives the number of calls.
async fn restored(injection: Option<Injection>) -> usize {
    let bench = Bench::small().await;
    let name = bench.cluster.name();
    bench.save("first").await.unwrap();
    let wanted = bench.world(name).await;
    bench.fill("changed").await;
    bench.fake.inject(injection);
    let first = bench.restore("first").await;
    let calls = bench.fake.calls().len();
    bench.fake.inject(None);
    let known = bench.state().read(name).unwrap().unwrap();
    if first.is_err() && known.restoring.is_some() {
        // Nodes that are half filled are no cluster.
        for refused in [bench.up().await.map(drop), bench.save("other").await.map(drop)] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.as_slice()[0].code, "engine.restoring");
            let help = refused.as_slice()[0].help.clone().unwrap();
            assert!(help.contains("`bivouac snapshot restore first demo`"), "{help}");
        }
    } else {
        assert!(first.is_ok() || bench.data(name).await.values().all(|it| it.contains("changed")));
    }
    bench.restore("first").await.unwrap_or_else(|problems| panic!("{injection:?}: {problems}"));
    assert_eq!(bench.world(name).await, wanted, "{injection:?}");
    assert_eq!(bench.up().await.unwrap().actions, [], "{injection:?}");
    bench.assert_whole().await;
    calls
}

#[tokio::test]
async fn a_restore_that_fails_can_be_given_up() {
    let calls = restored(None).await;
    for injection in both_moments(calls) {
        let bench = Bench::small().await;
        bench.save("first").await.unwrap();
        bench.fake.inject(Some(injection));
        let _ = bench.restore("first").await;
        bench.fake.inject(None);
        bench.down().await.unwrap();
        assert_eq!(bench.observed().await, []);
        assert_eq!(bench.state().read(bench.cluster.name()).unwrap(), None);
        assert_eq!(bench.snapshots().names(bench.cluster.name()).unwrap(), [named("first")]);
    }
}

#[tokio::test]
async fn a_fork_that_fails_is_finished_by_the_same_command() {
    for snapshot in [None, Some("first")] {
        let calls = forked(snapshot, None).await;
        assert!(calls > 10, "{calls} calls");
        // Any call without a snapshot: one is saved first, and then all is the same. So only a sample of that.
        let step = if snapshot.is_none() { 1 } else { 7 };
        for injection in both_moments(calls).step_by(step) {
            forked(snapshot, Some(injection)).await;
        }
    }
}

/// Forks a cluster with this failure, and finishes that. Gives the number of calls.
async fn forked(snapshot: Option<&str>, injection: Option<Injection>) -> usize {
    let what = format!("{snapshot:?} {injection:?}");
    let bench = Bench::small().await;
    let (first, second) = (bench.cluster.name(), cluster_named("second"));
    if let Some(name) = snapshot {
        bench.save(name).await.unwrap();
    }
    let before = bench.world(first).await;
    let data = bench.data(first).await;
    bench.fake.inject(injection);
    let forked = bench.fork(snapshot, &Reporter::silent()).await;
    let calls = bench.fake.calls().len();
    bench.fake.inject(None);
    if let Err(problems) = forked {
        assert_eq!(problems.as_slice()[0].code, "provider.fake.injected", "{what}");
        bench
            .fork(snapshot, &Reporter::silent())
            .await
            .unwrap_or_else(|problems| panic!("{what}: {problems}"));
    }
    assert_eq!(bench.world(first).await, before, "{what}: the first is untouched");
    assert_eq!(bench.data(&second).await, data, "{what}");
    let known = bench.state().read(&second).unwrap().unwrap();
    assert_eq!(known.restoring, None, "{what}");
    let mut wanted = bench.cluster.clone();
    wanted.metadata.name = second.clone();
    assert_eq!(known.applied.completed.as_deref(), Some(&wanted), "{what}");
    let firsts = bench.state().read(first).unwrap().unwrap().applied.addresses;
    let seconds = &known.applied.addresses;
    assert_eq!(seconds.service_networks, firsts.service_networks);
    assert!(seconds.networks().all(|network| !firsts.networks().any(|other| other == network)));
    let keys = |name| bench.state().read_keys(name).unwrap().unwrap();
    assert_ne!(keys(&second), keys(first), "addresses are in certificates");
    // What was saved for it only is gone.
    let left = if snapshot.is_some() { 1 } else { 0 };
    let folder = bench.path("state").join("snapshots/demo");
    assert_eq!(std::fs::read_dir(folder).map_or(0, Iterator::count), left, "{what}");
    let refused = bench.fork(snapshot, &Reporter::silent()).await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "engine.name_taken", "{what}");
    assert_eq!(up_again(&bench, wanted).await, [], "{what}");
    bench.remove(&second, &Reporter::silent()).await;
    assert_eq!(bench.world(first).await, before, "{what}");
    calls
}

async fn up_again(bench: &Bench, cluster: Cluster) -> Vec<bivouac_plan::Action> {
    let folder = tempfile::tempdir().unwrap();
    let grounds = Vec::new();
    let image = bench.image.clone();
    let other =
        Bench { folder, fake: Arc::clone(&bench.fake), grounds, cluster, image, now: bench.now };
    let state = bench.state();
    other.up_in(&state).await.unwrap().actions
}

#[tokio::test]
async fn a_fork_that_fails_can_be_given_up() {
    let calls = forked(None, None).await;
    for injection in both_moments(calls) {
        let bench = Bench::small().await;
        let before = bench.world(bench.cluster.name()).await;
        bench.fake.inject(Some(injection));
        let _ = bench.fork(None, &Reporter::silent()).await;
        bench.fake.inject(None);
        bench.remove(&cluster_named("second"), &Reporter::silent()).await;
        assert_eq!(bench.state().clusters().unwrap(), [bench.cluster.name().clone()]);
        assert_eq!(bench.observed().await.len(), 1, "{injection:?}");
        assert!(!bench.path("state").join("snapshots").exists(), "{injection:?}");
        assert_eq!(bench.world(bench.cluster.name()).await, before, "{injection:?}");
    }
}

#[tokio::test]
async fn control_planes_of_a_fork_join_its_first() {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[0].count = 3;
    bench.up().await.unwrap();
    bench.fill("as saved").await;
    bench.fake.inject(None);
    bench.fork(None, &Reporter::silent()).await.unwrap();
    let known = bench.state().read(&cluster_named("second")).unwrap().unwrap();
    let joined: Vec<&str> = known.applied.joined.iter().map(NodeName::as_str).collect();
    assert_eq!(joined, ["control-plane-1", "control-plane-2"]);
    // Bare all at once, then the others, then who joins, one after another.
    let calls = bench.fake.calls();
    let made = calls.iter().filter_map(|call| call.strip_prefix("ensure_node second/"));
    let made: Vec<&str> = made.collect();
    assert_eq!(made.len(), 2 * known.applied.cluster.nodes().len(), "{made:?}");
    assert_eq!(made[made.len() - 2..], joined);
}

#[tokio::test]
async fn ports_of_the_host_belong_to_the_first() {
    let mut bench = Bench::new();
    let host_ip = "127.0.0.1".parse().unwrap();
    bench.cluster.spec.ports.push(Port {
        host_port: 38_080,
        port: 30_080,
        node: None,
        host_ip,
        protocol: Protocol::Tcp,
    });
    bench.up().await.unwrap();
    let (reporter, events) = keeping();
    bench.fork(None, &reporter).await.unwrap();
    let known = bench.state().read(&cluster_named("second")).unwrap().unwrap();
    let port = known.applied.cluster.spec.ports[0].host_port;
    assert_ne!(port, 38_080);
    let note = format!("tcp port 30080 is at 127.0.0.1:{port}");
    let told = events.lock().unwrap().iter().any(|event| match event {
        Event::Noted { note: told } => told.starts_with(&note),
        _ => false,
    });
    assert!(told, "{events:?}");
}

fn code(outcome: Result<impl Sized, Problems>) -> String {
    outcome.map(drop).unwrap_err().as_slice()[0].code.clone()
}

#[tokio::test]
async fn what_cannot_be_saved_is_refused() {
    let bench = Bench::new();
    assert_eq!(code(bench.save("first").await), "engine.no_cluster");
    bench.assert_gone().await;
    bench.up().await.unwrap();
    bench.save("first").await.unwrap();
    assert_eq!(code(bench.save("first").await), "snapshot.name_taken");
    bench.fake.kill(bench.cluster.name(), &"worker-1".parse().unwrap());
    let refused = bench.save("second").await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "snapshot.not_running");
    assert!(refused.to_string().contains("`worker-1` does not run"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_restored_is_refused_before_anything_is_lost() {
    let mut bench = Bench::small().await;
    bench.save("monday").await.unwrap();
    let before = bench.world(bench.cluster.name()).await;
    let refused = bench.restore("munday").await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "snapshot.unknown");
    assert_eq!(refused.as_slice()[0].help.as_deref(), Some("name `monday` if you mean that"));

    let path = bench.path("state").join("snapshots/demo/monday/snapshot.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let edit = |from: &str, to: &str| {
        assert!(text.contains(from));
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    };
    edit("\"format\": 1", "\"format\": 2");
    let refused = bench.restore("monday").await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "snapshot.format");
    assert!(refused.to_string().contains("has format 2"), "{refused}");
    let size = bench.snapshots();
    std::fs::write(&path, &text).unwrap();
    let size = size.read(bench.cluster.name(), &named("monday")).unwrap().size;
    edit(&format!("\"size\": {size}"), "\"size\": 999999999999999");
    assert_eq!(code(bench.restore("monday").await), "snapshot.no_room");
    assert_eq!(code(bench.fork(Some("monday"), &Reporter::silent()).await), "snapshot.no_room");
    std::fs::write(&path, &text).unwrap();
    // A half of one is none.
    std::fs::remove_file(&path).unwrap();
    assert_eq!(code(bench.restore("monday").await), "snapshot.unknown");
    assert_eq!(bench.snapshots().clusters().unwrap(), []);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(bench.world(bench.cluster.name()).await, before);
    assert_eq!(bench.state().clusters().unwrap().len(), 1);

    // The name is on another ground now.
    let mut known = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    known.applied.cluster.spec.provider = cluster::Provider::Docker(DockerProvider::default());
    bench.state().write(&known).unwrap();
    let refused = bench.restore("monday").await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "snapshot.other_provider");
    assert!(refused.to_string().contains("saved on linux, and cluster `demo` is on docker now"));

    // Somebody else has its networks.
    bench.state().remove(bench.cluster.name()).unwrap();
    bench.fake.destroy_cluster(bench.cluster.name()).await.unwrap();
    let saved = std::mem::replace(&mut bench.cluster, Cluster::named(cluster_named("other")));
    bench.up().await.unwrap();
    bench.cluster = saved;
    let refused = bench.restore("monday").await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "snapshot.network_occupied");
    assert!(refused.to_string().contains("cluster other"), "{refused}");
    bench.fork(Some("monday"), &Reporter::silent()).await.unwrap();
}

/// Images that cannot be had.
struct NoImages;

#[async_trait]
impl NodeImages for NoImages {
    fn current(&self) -> Result<String, Problem> {
        Err(Problem::failed("image.gone", "there are none"))
    }

    async fn ensure(
        &self,
        _: &str,
        _: &Reporter,
        _: &CancellationToken,
    ) -> Result<ImagePaths, Problem> {
        Err(Problem::failed("image.gone", "there are none"))
    }
}

#[tokio::test]
async fn a_restore_that_cannot_begin_changes_nothing() {
    let mut bench = Bench::small().await;
    bench.save("first").await.unwrap();
    let name = bench.cluster.name().clone();
    bench.cluster.spec.nodes[1].labels.insert("disk".to_owned(), "fast".to_owned());
    bench.up().await.unwrap();
    bench.fill("changed").await;
    let record = |bench: &Bench| {
        let state = bench.state();
        (state.read(&name).unwrap(), state.read_keys(&name).unwrap())
    };
    let (before, recorded) = (bench.world(&name).await, record(&bench));
    assert_eq!(code(bench.restore_with("first", &NoImages).await), "image.gone");

    let folder = bench.path("state").join("snapshots/demo/first");
    let data = folder.join("worker-0.tar");
    let content = std::fs::read(&data).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&data.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    for damage in [Some(&content[1..]), None] {
        match damage {
            Some(short) => std::fs::write(&data, short).unwrap(),
            None => std::fs::remove_file(&data).unwrap(),
        }
        for refused in [
            bench.restore("first").await.unwrap_err(),
            bench.fork(Some("first"), &Reporter::silent()).await.unwrap_err(),
        ] {
            assert_damaged(&refused);
        }
    }
    std::fs::write(&data, content).unwrap();
    for file in ["keys.json", "snapshot.json"] {
        std::fs::write(folder.join(file), "{").unwrap();
        assert_damaged(&bench.restore("first").await.unwrap_err());
    }
    assert_eq!((bench.world(&name).await, record(&bench)), (before, recorded));
    assert_eq!(bench.up().await.unwrap().actions, []);
    let (state, names) = (bench.state(), [named("first")]);
    delete_snapshots(&DeleteRequest { cluster: &name, names: &names, state: &state }).unwrap();
    assert_eq!(bench.snapshots().clusters().unwrap(), []);
}

fn assert_damaged(problems: &Problems) {
    let problem = &problems.as_slice()[0];
    let help = problem.help.as_deref().unwrap_or_default();
    assert_eq!(problem.code, "snapshot.damaged", "{problems}");
    assert!(help.contains("`bivouac snapshot delete first -c demo`"), "{help}");
}

#[tokio::test]
async fn what_cannot_be_forked_is_refused_before_anything_is_made() {
    let mut bench = Bench::small().await;
    let none = Reporter::silent();
    assert_eq!(code(bench.fork_named("demo", None, &none).await), "fork.same_name");
    assert_eq!(code(bench.fork(Some("no"), &none).await), "snapshot.unknown");
    bench.cluster.metadata.name = cluster_named("absent");
    assert_eq!(code(bench.fork(None, &none).await), "engine.no_cluster");
    bench.cluster.metadata.name = cluster_named("demo");
    let mut survey = bench.fake.survey().await.unwrap();
    let fit = survey.clone();
    survey.facts.memory = Bytes(1150 << 20);
    bench.cluster.spec.nodes[1].resources.memory = Some(Bytes(600 << 20));
    bench.up().await.unwrap();
    bench.fake.set_survey(survey.clone());
    assert_eq!(code(bench.fork(None, &none).await), "fork.no_memory");
    // Who does not run needs none beside the fork.
    bench.fake.set_survey(fit.clone());
    bench.save("kept").await.unwrap();
    bench.down().await.unwrap();
    bench.fake.set_survey(survey);
    bench.fork(Some("kept"), &none).await.unwrap();
    bench.fake.set_survey(fit);
    bench.remove(&cluster_named("second"), &none).await;
    bench.up().await.unwrap();
    bench.fake.kill(bench.cluster.name(), &"worker-0".parse().unwrap());
    assert_eq!(code(bench.fork(None, &none).await), "snapshot.not_running");
    assert_eq!(bench.state().clusters().unwrap().len(), 1);
    assert_eq!(bench.observed().await.len(), 1);

    let mut kubeadm = Bench::new();
    let cluster::Stack::Kubernetes(settings) = &mut kubeadm.cluster.spec.stack else { panic!() };
    settings.bootstrap = Bootstrap::Kubeadm;
    kubeadm.up().await.unwrap();
    kubeadm.fake.inject(None);
    assert_eq!(code(kubeadm.fork(None, &none).await), "stack.kubernetes.fork_kubeadm");
    let calls = kubeadm.fake.calls();
    assert!(calls.iter().all(|call| call == "observe" || call == "survey"), "{calls:?}");
    assert_eq!(kubeadm.state().clusters().unwrap().len(), 1);
}

#[tokio::test]
async fn a_snapshot_that_a_cluster_is_made_from_is_not_deleted() {
    let bench = Bench::small().await;
    bench.save("first").await.unwrap();
    bench.save("other").await.unwrap();
    bench.fake.inject(None);
    bench.fork(Some("first"), &Reporter::silent()).await.unwrap();
    let calls = bench.fake.calls().len();
    bench.remove(&cluster_named("second"), &Reporter::silent()).await;
    bench.fake.inject(Some(Injection { call: calls - 1, when: When::Before }));
    bench.fork(Some("first"), &Reporter::silent()).await.unwrap_err();
    bench.fake.inject(None);
    let state = bench.state();
    let delete = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| named(name)).collect();
        let request = DeleteRequest { cluster: bench.cluster.name(), names: &names, state: &state };
        delete_snapshots(&request)
    };
    assert_eq!(code(delete(&["first"])), "snapshot.in_use");
    assert_eq!(code(delete(&["other", "nothing"])), "snapshot.unknown");
    assert_eq!(bench.snapshots().names(bench.cluster.name()).unwrap().len(), 2, "all or none");
    delete(&["other"]).unwrap();
    bench.fork(Some("first"), &Reporter::silent()).await.unwrap();
    delete(&["first"]).unwrap();
}

#[tokio::test]
async fn nodes_without_a_role_of_their_own_are_copied_too() {
    let mut bench = Bench::remote().await;
    bench.cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 1));
    bench.cluster.spec.nodes[2].name = Some("gpu".to_owned());
    bench.cluster.spec.nodes[0].count = 3;
    bench.up().await.unwrap();
    let nodes = bench.cluster.nodes().len();
    assert_eq!(nodes, 7, "three control planes, three workers, a balancer");
    bench.fill("as saved").await;
    bench.fork(None, &Reporter::silent()).await.unwrap();
    assert_eq!(bench.data(&cluster_named("second")).await, bench.data(bench.cluster.name()).await);
}
