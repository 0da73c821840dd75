//! The verbs over the in-memory provider: crash at every step, run again, and the same world is reached.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bivouac_engine::kubeconfig::UserFile;
use bivouac_engine::{
    DownRequest, NodeImages, Reporter, StateDirectory, UpRequest, Upped, down, up,
};
use bivouac_provider::fake::{Fake, Injection, When};
use bivouac_provider::{ImagePaths, Provider};
use bivouac_spec::cluster::{NodeGroup, Role};
use bivouac_spec::facts::ObservedState;
use bivouac_spec::{Class, Cluster, ObservedCluster, Problem, Problems};
use camino::{Utf8Path, Utf8PathBuf};
use tokio_util::sync::CancellationToken;

/// An image that is always there.
struct Image;

#[async_trait]
impl NodeImages for Image {
    fn current(&self) -> Result<String, Problem> {
        Ok("image".to_owned())
    }

    async fn ensure(
        &self,
        key: &str,
        _: &Reporter,
        _: &CancellationToken,
    ) -> Result<ImagePaths, Problem> {
        let path = || Utf8PathBuf::from("/image");
        let (key, digest) = (key.to_owned(), "sha256:0".to_owned());
        Ok(ImagePaths { key, digest, layout: path(), rootfs: path(), shared_images: path() })
    }
}

struct Bench {
    folder: tempfile::TempDir,
    fake: Arc<Fake>,
    cluster: Cluster,
}

impl Bench {
    fn new() -> Self {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 2));
        Self { folder: tempfile::tempdir().unwrap(), fake: Arc::new(Fake::new()), cluster }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    fn kubeconfig(&self) -> UserFile {
        UserFile { path: self.path("kubeconfig"), owner: None }
    }

    fn state(&self) -> StateDirectory {
        StateDirectory::open(self.path("state"))
    }

    async fn up(&self) -> Result<Upped, Problems> {
        let stack = bivouac_stacks::open(&self.cluster.spec.stack);
        let provider: Arc<dyn Provider> = self.fake.clone();
        let request = UpRequest {
            cluster: &self.cluster,
            provider,
            stack: stack.as_ref(),
            images: &Image,
            agent: "/agent".into(),
            state: &self.state(),
            kubeconfig: Some(self.kubeconfig()),
            timeout: Duration::from_secs(10),
        };
        up(&request, &Reporter::silent(), &CancellationToken::new()).await
    }

    async fn down(&self) -> Result<(), Problems> {
        let provider: Arc<dyn Provider> = self.fake.clone();
        let state = self.state();
        let request =
            DownRequest { cluster: self.cluster.name(), provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await.map(drop)
    }

    async fn observed(&self) -> Vec<ObservedCluster> {
        self.fake.inject(None);
        self.fake.observe().await.unwrap()
    }

    /// All nodes run, under the addresses that were recorded, and the user has a context.
    async fn assert_whole(&self) {
        let observed = self.observed().await;
        let [cluster] = &observed[..] else { panic!("one cluster is expected: {observed:?}") };
        assert_eq!(cluster.nodes.len(), 3);
        let recorded = self.state().read(self.cluster.name()).unwrap().unwrap().applied.addresses;
        for (name, node) in &cluster.nodes {
            assert_eq!(node.state, ObservedState::Running, "{name}");
            assert_eq!(node.address, Some(recorded.nodes[name].address), "{name}");
        }
        assert!(self.kubeconfig().read().unwrap().unwrap().contains("bivouac-demo"));
    }

    /// Nothing of the cluster is anywhere.
    async fn assert_gone(&self) {
        assert_eq!(self.observed().await, []);
        assert!(!self.path("state").exists(), "the state folder is left");
        assert_eq!(self.kubeconfig().read().unwrap(), None, "the kubeconfig file is left");
    }
}

#[tokio::test]
async fn up_twice_changes_nothing_and_down_leaves_nothing() {
    let bench = Bench::new();
    assert!(!bench.up().await.unwrap().actions.is_empty());
    bench.assert_whole().await;
    assert_eq!(bench.up().await.unwrap().actions, []);
    bench.down().await.unwrap();
    bench.assert_gone().await;
    bench.down().await.unwrap();
}

#[tokio::test]
async fn an_up_that_fails_at_any_step_is_finished_by_the_next() {
    let calls = {
        let bench = Bench::new();
        bench.up().await.unwrap();
        bench.fake.calls().len()
    };
    assert!(calls > 5, "an up asks the provider for more than {calls} things");
    for call in 0..calls {
        for when in [When::Before, When::After] {
            let bench = Bench::new();
            bench.fake.inject(Some(Injection { call, when }));
            // Some calls may fail without harm, such as asking for what is not needed any more.
            let _ = bench.up().await;
            bench.fake.inject(None);
            bench
                .up()
                .await
                .unwrap_or_else(|problems| panic!("after a failure at call {call}: {problems}"));
            bench.assert_whole().await;
            bench.down().await.unwrap();
            bench.assert_gone().await;
        }
    }
}

#[tokio::test]
async fn a_down_that_fails_at_any_step_is_finished_by_the_next() {
    let calls = {
        let bench = Bench::new();
        bench.up().await.unwrap();
        bench.fake.inject(None);
        bench.down().await.unwrap();
        bench.fake.calls().len()
    };
    assert!(calls >= 2, "a down looks and destroys");
    for call in 0..calls {
        for when in [When::Before, When::After] {
            let bench = Bench::new();
            bench.up().await.unwrap();
            bench.fake.inject(Some(Injection { call, when }));
            bench.down().await.unwrap_err();
            bench.fake.inject(None);
            bench.down().await.unwrap();
            bench.assert_gone().await;
        }
    }
}

#[tokio::test]
async fn a_node_that_died_is_brought_back_with_its_address() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    bench.fake.kill(bench.cluster.name(), &"worker-1".parse().unwrap());
    let upped = bench.up().await.unwrap();
    assert_eq!(upped.actions.len(), 1, "{:?}", upped.actions);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_applied_changes_nothing() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let (world, calls) = (bench.observed().await, bench.fake.calls().len());
    bench.cluster.spec.nodes[1].count = 3;
    let refused = bench.up().await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage);
    assert_eq!(refused.as_slice()[0].code, "plan.change_unsupported");
    assert!(bench.fake.calls()[calls..].iter().all(|call| !call.contains("ensure")));
    assert_eq!(bench.observed().await, world);
}

#[tokio::test]
async fn a_first_up_that_made_nothing_may_be_tried_with_another_file() {
    let mut bench = Bench::new();
    // Calls 0 and 1 are the survey and the look; the network is the next.
    bench.fake.inject(Some(Injection { call: 2, when: When::Before }));
    bench.up().await.unwrap_err();
    bench.fake.inject(None);
    bench.cluster.spec.network.pod_cidr = vec!["10.200.0.0/16".parse().unwrap()];
    bench.up().await.unwrap();
    bench.assert_whole().await;
}
