//! The in-memory provider: nodes that are values. For tests of whatever uses a provider, and of the conformance suite itself.
//!
//! A node runs a handful of programs (see `program`), and its agent says that it is usable. Any call can be made to fail, before
//! or after it had its effect, so that a test can go through every place at which trouble can come.

mod data;
mod node;
mod program;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bivouac_spec::facts::{
    Aspect, CgroupVersion, Need, NodeRecord, ObservedState, Outcome, Survey,
};
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::node::FileKind;
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{
    Addresses, ClusterName, Facts, NodeConfig, NodeName, ObservedCluster, ObservedNode, Problem,
};
use camino::Utf8PathBuf;
use ipnet::IpNet;

use crate::{ImageRequest, NetworkRequest, Node, NodeRequest, Progress, Provider};
use node::FakeNode;

/// The in-memory provider. Clones share one world.
#[derive(Debug, Clone, Default)]
pub struct Fake {
    world: Arc<Mutex<World>>,
}

/// Told of each call, before it has its effect and after. It need not come back: whoever called ends there, as if it had been killed.
pub type Watching = Arc<dyn Fn(&str) + Send + Sync>;

#[derive(Clone)]
struct Watch(Watching);

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch(..)")
    }
}

/// A call that is to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Injection {
    /// Which call, from 0. Calls of the provider and of its nodes are counted together.
    pub call: usize,
    /// Whether the call has its effect.
    pub when: When,
}

/// When a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before it did anything.
    Before,
    /// After it did everything: as when the connection breaks just before the answer.
    After,
}

#[derive(Debug, Clone, Default)]
struct World {
    clusters: BTreeMap<ClusterName, FakeCluster>,
    injection: Option<Injection>,
    watch: Option<Watch>,
    data: u64,
    calls: Vec<String>,
    next_pid: u32,
    survey: Option<Survey>,
}

#[derive(Debug, Clone, Default)]
struct FakeCluster {
    addresses: Option<Addresses>,
    nodes: BTreeMap<NodeName, FakeState>,
}

/// Files by their paths, each with its mode.
type Files = BTreeMap<Utf8PathBuf, (u32, Vec<u8>)>;

/// What a node is.
#[derive(Debug, Clone)]
struct FakeState {
    pid: Option<u32>,
    is_torn: bool,
    request: NodeRequest,
    /// Of the request.
    record: NodeRecord,
    files: Files,
    log: String,
}

impl Fake {
    /// An empty world in which nothing fails.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes one call fail; `None` lets all succeed again. Counting starts anew.
    pub fn inject(&self, injection: Option<Injection>) {
        let mut world = self.world();
        world.injection = injection;
        world.calls.clear();
    }

    /// How much data each node says that it has, beside its files.
    pub fn set_data(&self, bytes: u64) {
        self.world().data = bytes;
    }

    /// The same world, apart from this one from now on.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.world().clone())) }
    }

    /// Makes everything as it was when it was copied.
    pub fn restore(&self, copied: &Self) {
        let world = copied.world().clone();
        *self.world() = world;
    }

    /// Has this told of each call, before it has its effect and after. It may unwind: then the caller never hears the answer.
    pub fn watch(&self, watch: Option<Watching>) {
        self.world().watch = watch.map(Watch);
    }

    /// The calls since the last [`Self::inject`], such as `ensure_node demo/worker-0`.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.world().calls.clone()
    }

    /// What [`Provider::survey`] finds from now on.
    pub fn set_survey(&self, survey: Survey) {
        self.world().survey = Some(survey);
    }

    /// Ends a node as if its first process had been killed from outside.
    pub fn kill(&self, cluster: &ClusterName, node: &NodeName) {
        if let Some(state) = self.world().node(cluster, node) {
            state.pid = None;
        }
    }

    /// Leaves only parts of a node, as when its container is removed and its data is not.
    pub fn tear(&self, cluster: &ClusterName, node: &NodeName) {
        if let Some(state) = self.world().node(cluster, node) {
            (state.pid, state.is_torn) = (None, true);
        }
    }

    /// Adds to the log of a node's agent.
    pub fn write_log(&self, cluster: &ClusterName, node: &NodeName, text: &str) {
        if let Some(state) = self.world().node(cluster, node) {
            state.log.push_str(text);
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call, has its effect unless it is to fail before that, and fails where it is to fail.
    fn call<T>(
        &self,
        name: &str,
        effect: impl FnOnce(&mut World) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.reached(name);
        let done = self.done(name, effect);
        self.reached(name);
        done
    }

    fn reached(&self, name: &str) {
        let watch = self.world().watch.clone();
        if let Some(Watch(watch)) = watch {
            watch(name);
        }
    }

    fn done<T>(
        &self,
        name: &str,
        effect: impl FnOnce(&mut World) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let mut world = self.world();
        let number = world.calls.len();
        let failure = world.injection.filter(|injection| injection.call == number);
        let problem = Problem::failed("provider.fake.injected", format!("{name} was made to fail"));
        world.calls.push(name.to_owned());
        match failure.map(|injection| injection.when) {
            None => effect(&mut world),
            Some(When::Before) => Err(problem),
            Some(When::After) => effect(&mut world).and(Err(problem)),
        }
    }

    fn node(&self, cluster: &ClusterName, name: &NodeName, state: &FakeState) -> Arc<dyn Node> {
        let address = state.request.addresses.nodes.get(name).map(NodeAddresses::primary);
        Arc::new(FakeNode {
            fake: self.clone(),
            cluster: cluster.clone(),
            name: name.clone(),
            address: address.unwrap_or(state.request.addresses.primary().gateway),
        })
    }
}

impl World {
    fn node(&mut self, cluster: &ClusterName, node: &NodeName) -> Option<&mut FakeState> {
        self.clusters.get_mut(cluster)?.nodes.get_mut(node)
    }

    fn ensure(&mut self, request: &NodeRequest) -> Result<FakeState, Problem> {
        let (cluster, node) = (&request.cluster, &request.node);
        self.next_pid += 1;
        let pid = 100 + self.next_pid;
        let network = self.clusters.get_mut(cluster).filter(|cluster| cluster.addresses.is_some());
        let Some(network) = network else {
            let message = format!("cluster {cluster} has no network");
            return Err(Problem::failed("provider.fake.no_network", message));
        };
        let record = request.record();
        let fresh = || FakeState {
            pid: None,
            is_torn: false,
            request: request.clone(),
            record: record.clone(),
            files: BTreeMap::new(),
            log: String::new(),
        };
        let state = network.nodes.entry(node.clone()).or_insert_with(fresh);
        if state.pid.is_some() && state.request.image.key != request.image.key {
            state.pid = None;
            state.log.push_str("stopped\n");
        }
        if state.pid.is_none() {
            state.pid = Some(pid);
            state.log.push_str("started\n");
        }
        (state.request, state.is_torn) = (request.clone(), false);
        state.record = record;
        state.deliver(&request.config);
        Ok(state.clone())
    }
}

impl FakeCluster {
    fn networks(&self) -> Vec<IpNet> {
        let networks = self.addresses.iter().flat_map(|addresses| addresses.node_networks.iter());
        networks.map(|own| own.network).collect()
    }
}

impl FakeState {
    fn deliver(&mut self, config: &NodeConfig) {
        for file in &config.files {
            if let FileKind::Regular(content) = &file.kind {
                let content = content.0.clone().into_bytes();
                self.files.insert(file.path.clone(), (file.mode, content));
            }
        }
        let text = serde_json::to_vec(config).unwrap_or_default();
        self.files.insert(bivouac_spec::node::paths::CONFIG.into(), (0o600, text));
    }

    fn observe(&self, name: &NodeName) -> ObservedNode {
        if self.is_torn {
            let state = ObservedState::Broken;
            return ObservedNode { state, address: None, record: None, pid: None };
        }
        let running = self.pid.is_some();
        ObservedNode {
            state: if running { ObservedState::Running } else { ObservedState::Stopped },
            address: self.request.addresses.nodes.get(name).map(NodeAddresses::primary),
            record: Some(self.record.clone()),
            pid: self.pid,
        }
    }
}

#[async_trait]
impl Provider for Fake {
    async fn survey(&self) -> Result<Survey, Problem> {
        self.call("survey", |world| Ok(world.survey.clone().unwrap_or_else(fit)))
    }

    async fn observe(&self) -> Result<Vec<ObservedCluster>, Problem> {
        self.call("observe", |world| {
            let clusters = world.clusters.iter().map(|(name, cluster)| ObservedCluster {
                name: name.clone(),
                networks: cluster.networks(),
                nodes: cluster
                    .nodes
                    .iter()
                    .map(|(n, state)| (n.clone(), state.observe(n)))
                    .collect(),
                remains: if cluster.nodes.is_empty() {
                    vec!["network".to_owned()]
                } else {
                    Vec::new()
                },
            });
            Ok(clusters.collect())
        })
    }

    async fn ensure_image(
        &self,
        request: &ImageRequest,
        on_progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Problem> {
        self.call(&format!("ensure_image {}", request.image.key), |_| {
            on_progress(Progress { done: 1, total: 1 });
            Ok(())
        })
    }

    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem> {
        self.call(&format!("ensure_network {}", request.cluster), |world| {
            let cluster = world.clusters.entry(request.cluster.clone()).or_default();
            cluster.addresses = Some(request.addresses.clone());
            Ok(())
        })
    }

    async fn ensure_node(&self, request: &NodeRequest) -> Result<Arc<dyn Node>, Problem> {
        let name = format!("ensure_node {}/{}", request.cluster, request.node);
        let state = self.call(&name, |world| world.ensure(request))?;
        Ok(self.node(&request.cluster, &request.node, &state))
    }

    async fn open_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<Arc<dyn Node>, Problem> {
        let state = self.call(&format!("open_node {cluster}/{node}"), |world| {
            let absent = || {
                let message = format!("cluster {cluster} has no node {node}");
                Problem::usage("provider.fake.no_node", message)
            };
            world.node(cluster, node).cloned().ok_or_else(absent)
        })?;
        Ok(self.node(cluster, node, &state))
    }

    async fn stop_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        _grace: Duration,
    ) -> Result<(), Problem> {
        self.call(&format!("stop_node {cluster}/{node}"), |world| {
            if let Some(state) = world.node(cluster, node) {
                state.pid = None;
                state.log.push_str("stopped\n");
            }
            Ok(())
        })
    }

    async fn destroy_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        self.call(&format!("destroy_node {cluster}/{node}"), |world| {
            if let Some(cluster) = world.clusters.get_mut(cluster) {
                cluster.nodes.remove(node);
            }
            Ok(())
        })
    }

    async fn destroy_cluster(&self, cluster: &ClusterName) -> Result<(), Problem> {
        self.call(&format!("destroy_cluster {cluster}"), |world| {
            world.clusters.remove(cluster);
            Ok(())
        })
    }
}

/// A ground that lacks nothing.
fn fit() -> Survey {
    let facts = Facts {
        kernel: "6.12.0".to_owned(),
        architecture: "amd64".to_owned(),
        cpus: 8,
        memory: Bytes(32 << 30),
        disk_free: Bytes(500 << 30),
        cgroup: CgroupVersion::V2,
        raises_limits: true,
        shares_kernel: true,
        shares_images: true,
        open_files: 1 << 20,
        occupied: BTreeMap::new(),
        reaches_nodes: true,
        shares_network: true,
        file_systems: ["ext4".to_owned()].into(),
        identity: String::new(),
        place: "memory".to_owned(),
        remakes_for: vec![Aspect::Image, Aspect::Disk],
        remote: false,
        no_disks: None,
    };
    let outcome = Outcome::Met("it is in memory".to_owned());
    Survey { facts, needs: vec![Need { name: "exist".to_owned(), outcome }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Outcome, run, samples};

    #[tokio::test(start_paused = true)]
    async fn conforms() {
        let report = run(&Fake::new(), &samples::ground("demo")).await;
        let failed: Vec<_> = report.failures().collect();
        assert!(failed.is_empty(), "{failed:?}");
        assert_eq!(report.count(|outcome| matches!(outcome, Outcome::Skipped(_))), 0);
    }

    #[tokio::test]
    async fn fails_where_it_is_told_to_and_only_there() {
        let ground = samples::ground("demo");
        for when in [When::Before, When::After] {
            let fake = Fake::new();
            fake.inject(Some(Injection { call: 1, when }));
            fake.ensure_network(&ground.network).await.unwrap();
            let Err(problem) = fake.ensure_node(&ground.nodes[0]).await else {
                panic!("it was to fail")
            };
            assert_eq!(problem.code, "provider.fake.injected");
            let observed = fake.observe().await.unwrap();
            assert_eq!(observed[0].nodes.len(), usize::from(when == When::After));
            fake.ensure_node(&ground.nodes[0]).await.unwrap();
            let calls = [
                "ensure_network demo",
                "ensure_node demo/node-0",
                "observe",
                "ensure_node demo/node-0",
            ];
            assert_eq!(fake.calls(), calls);
        }
    }
}
