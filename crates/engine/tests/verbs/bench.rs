//! A cluster on the in-memory provider.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bivouac_engine::kubeconfig::UserFile;
use bivouac_engine::{
    Archive, ContainerImages, DownRequest, Event, Ground, ImageChoice, LoadRequest, Loaded,
    NodeImages, PrepareRequest, Reporter, StateDirectory, StepState, UpOptions, Upped, down, load,
    up,
};
use bivouac_provider::fake::Fake;
use bivouac_provider::{ImagePaths, Provider};
use bivouac_spec::cluster::{NodeGroup, Role};
use bivouac_spec::facts::ObservedState;
use bivouac_spec::{Cluster, ObservedCluster, Problem, Problems};
use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};
use tokio_util::sync::CancellationToken;

/// Images that are always there, by their keys. There is none without a key.
pub(crate) struct Current(pub(crate) String);

/// The image of a cluster that asks for nothing else.
pub(crate) struct Image;

#[async_trait]
impl NodeImages for Image {
    fn current(&self) -> Result<String, Problem> {
        Ok("image".to_owned())
    }

    async fn ensure(
        &self,
        key: &str,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<ImagePaths, Problem> {
        Current(self.current()?).ensure(key, reporter, cancel).await
    }
}

#[async_trait]
impl NodeImages for Current {
    fn current(&self) -> Result<String, Problem> {
        let none = || Problem::failed("test.no_image", "there is none of this version");
        Some(self.0.clone()).filter(|key| !key.is_empty()).ok_or_else(none)
    }

    async fn ensure(
        &self,
        key: &str,
        _: &Reporter,
        _: &CancellationToken,
    ) -> Result<ImagePaths, Problem> {
        let path = || Utf8PathBuf::from("/image");
        let (key, digest) = (key.to_owned(), "sha256:0".to_owned());
        Ok(ImagePaths {
            key,
            digest,
            layout: path(),
            layers: Vec::new(),
            rootfs: path(),
            shared_images: path(),
            shared_cache: path(),
        })
    }
}

/// Images that are their own names.
pub(crate) struct Names;

#[async_trait]
impl ContainerImages for Names {
    async fn unpack(&self, images: &[String], _: &Reporter) -> Result<Vec<String>, Problem> {
        Ok(images.to_vec())
    }

    async fn open(&self, image: &str) -> Result<Archive, Problem> {
        let padding = " ".repeat(if image == "nothing" { 1 } else { 1 << 20 });
        let text = if image == "nothing" { padding } else { format!("{padding}{image}") };
        let size = Some(text.len() as u64);
        let content = std::io::Cursor::new(text.into_bytes());
        if image == "broken" {
            let broken = Broken;
            return Ok(Archive { content: Box::new(content.chain(broken)), size: None });
        }
        Ok(Archive { content: Box::new(content), size })
    }
}

/// A stream that fails.
struct Broken;

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("the disk is on fire")))
    }
}

/// A reporter that keeps what it is told.
pub(crate) fn keeping() -> (Reporter, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    (Reporter::new(move |event| kept.lock().unwrap().push(event)), events)
}

/// Step and state of each step that was told.
pub(crate) fn steps(events: &Mutex<Vec<Event>>) -> Vec<(String, StepState)> {
    let events = events.lock().unwrap();
    let step = |event: &Event| match event {
        Event::Step(progress) => Some((progress.step.clone(), progress.state)),
        _ => None,
    };
    let mut steps: Vec<_> = events.iter().filter_map(step).collect();
    steps.dedup();
    steps
}

pub(crate) struct Bench {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) fake: Arc<Fake>,
    pub(crate) grounds: Vec<Ground>,
    pub(crate) cluster: Cluster,
    /// The key of the node image that it would be made from.
    pub(crate) image: String,
    /// The time that it is for whoever makes certificates.
    pub(crate) now: SystemTime,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 2));
        let (folder, fake) = (tempfile::tempdir().unwrap(), Arc::new(Fake::new()));
        let (grounds, image) = (Vec::new(), "image".to_owned());
        Self { folder, fake, grounds, cluster, image, now: SystemTime::now() }
    }

    /// The same with nodes that do not see the files of this host and are not reached from it.
    pub(crate) async fn remote() -> Self {
        let bench = Self::new();
        let mut survey = bench.fake.survey().await.unwrap();
        (survey.facts.shares_images, survey.facts.reaches_nodes) = (false, false);
        bench.fake.set_survey(survey);
        bench.fake.inject(None);
        bench
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8Path::from_path(self.folder.path()).unwrap().join(name)
    }

    pub(crate) fn kubeconfig(&self) -> UserFile {
        UserFile { path: self.path("kubeconfig"), owner: None }
    }

    pub(crate) fn state(&self) -> StateDirectory {
        StateDirectory::open(self.path("state"))
    }

    pub(crate) async fn up(&self) -> Result<Upped, Problems> {
        self.up_telling(&Reporter::silent()).await
    }

    pub(crate) async fn up_telling(&self, reporter: &Reporter) -> Result<Upped, Problems> {
        self.up_choosing(ImageChoice::Own, reporter, &CancellationToken::new()).await
    }

    pub(crate) async fn up_choosing(
        &self,
        node_image: ImageChoice,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<Upped, Problems> {
        self.up_with(&self.state(), node_image, reporter, cancel).await
    }

    /// With what is known in another folder.
    pub(crate) async fn up_in(&self, state: &StateDirectory) -> Result<Upped, Problems> {
        let (own, cancel) = (ImageChoice::Own, CancellationToken::new());
        self.up_with(state, own, &Reporter::silent(), &cancel).await
    }

    async fn up_with(
        &self,
        state: &StateDirectory,
        node_image: ImageChoice,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<Upped, Problems> {
        let stack = bivouac_stacks::open(&self.cluster.spec.stack);
        let provider: Arc<dyn Provider> = self.fake.clone();
        let request = PrepareRequest {
            cluster: &self.cluster,
            provider,
            grounds: &self.grounds,
            stack: stack.as_ref(),
            images: &Current(self.image.clone()),
            state,
            node_image,
            now: self.now,
        };
        let options = UpOptions {
            agent: "/agent".into(),
            kubeconfig: Some(self.kubeconfig()),
            remotes: None,
            verb: "up",
            only: BTreeSet::new(),
            timeout: Duration::from_secs(120),
        };
        up(&request, &options, reporter, cancel).await
    }

    pub(crate) async fn load(
        &self,
        images: &[&str],
        reporter: &Reporter,
    ) -> Result<Loaded, Problems> {
        let (state, asked) = (self.state(), images.iter().map(ToString::to_string));
        let request = LoadRequest {
            cluster: self.cluster.name(),
            provider: self.fake.clone(),
            state: &state,
            images: &Names,
            asked: &asked.collect::<Vec<_>>(),
        };
        load(&request, reporter, &CancellationToken::new()).await
    }

    pub(crate) async fn down(&self) -> Result<(), Problems> {
        let provider: Arc<dyn Provider> = self.fake.clone();
        let state = self.state();
        let request =
            DownRequest { cluster: self.cluster.name(), provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await.map(drop)
    }

    pub(crate) async fn observed(&self) -> Vec<ObservedCluster> {
        self.fake.inject(None);
        self.fake.observe().await.unwrap()
    }

    /// All nodes run, under the addresses that were recorded, and the user has a context.
    pub(crate) async fn assert_whole(&self) {
        let observed = self.observed().await;
        let [cluster] = &observed[..] else { panic!("one cluster is expected: {observed:?}") };
        let mut nodes: Vec<_> = self.cluster.nodes().into_iter().map(|node| node.name).collect();
        nodes.sort();
        assert_eq!(cluster.nodes.keys().cloned().collect::<Vec<_>>(), nodes);
        let recorded = self.state().read(self.cluster.name()).unwrap().unwrap().applied.addresses;
        for (name, node) in &cluster.nodes {
            assert_eq!(node.state, ObservedState::Running, "{name}");
            assert_eq!(node.address, Some(recorded.nodes[name].primary()), "{name}");
        }
        assert!(self.kubeconfig().read().unwrap().unwrap().contains("bivouac-demo"));
    }

    /// Nothing of the cluster is anywhere.
    pub(crate) async fn assert_gone(&self) {
        assert_eq!(self.observed().await, []);
        assert!(!self.path("state").exists(), "the state folder is left");
        assert_eq!(self.kubeconfig().read().unwrap(), None, "the kubeconfig file is left");
    }
}
