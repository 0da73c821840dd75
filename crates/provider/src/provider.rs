//! Where nodes run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::Survey;
use bivouac_spec::{
    Addresses, ClusterName, NodeConfig, NodeName, NodeRecord, ObservedCluster, Problem,
    PublishedPort,
};
use camino::Utf8PathBuf;

use crate::Node;

/// A ground on which nodes can run. All methods can be called again after any failure, and by several clusters at once.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What the ground is like, and every need tried by doing it. Leaves nothing behind.
    ///
    /// # Errors
    /// Only when nothing can be said of the ground at all. What is unfit is part of the survey.
    async fn survey(&self) -> Result<Survey, Problem>;

    /// Every cluster that exists on the ground, asked of the ground itself.
    ///
    /// # Errors
    /// When the ground cannot be asked.
    async fn observe(&self) -> Result<Vec<ObservedCluster>, Problem>;

    /// Brings the node image to the ground, unless it is there.
    ///
    /// # Errors
    /// When it cannot be brought there.
    async fn ensure_image(
        &self,
        request: &ImageRequest,
        on_progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Problem>;

    /// Makes the network of a cluster, or makes it what the request says. Refuses before anything is made what would fail later: a name or a host
    /// port that somebody else has.
    ///
    /// # Errors
    /// When it cannot be made. What was made so far is found and used by the next call.
    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem>;

    /// Makes a node and starts its agent. A stopped node starts again with its data, and as this request says. One that runs is made
    /// what the request says: where [`NodeRequest::record`] differs from the recorded one only in what does not need it (see
    /// [`Facts::remakes_for`](bivouac_spec::Facts::remakes_for)), the node runs on; otherwise it is stopped and made anew around its
    /// data. Returns as soon as the node's first process runs and has the config: the agent's status tells the rest.
    ///
    /// # Errors
    /// When it cannot be made or started.
    async fn ensure_node(&self, request: &NodeRequest) -> Result<Arc<dyn Node>, Problem>;

    /// A node that exists.
    ///
    /// # Errors
    /// When there is no such node; the help names the nearest.
    async fn open_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<Arc<dyn Node>, Problem>;

    /// Stops a node and keeps its data. After `grace` it is killed. An absent or stopped node is success.
    ///
    /// # Errors
    /// When it still runs afterwards.
    async fn stop_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        grace: Duration,
    ) -> Result<(), Problem>;

    /// Removes a node and its data, running or not. An absent node is success.
    ///
    /// # Errors
    /// When something of it is left.
    async fn destroy_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem>;

    /// Removes everything of a cluster, whole or in part: nodes, network, remains. An absent cluster is success.
    ///
    /// # Errors
    /// When something of it is left.
    async fn destroy_cluster(&self, cluster: &ClusterName) -> Result<(), Problem>;
}

/// What nodes are made from.
#[derive(Debug, Clone)]
pub struct ImageRequest {
    /// The node image.
    pub image: ImagePaths,
    /// The static binary that becomes the nodes' agent.
    pub agent: Utf8PathBuf,
}

/// How far something long is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is done.
    pub done: u64,
    /// All that there is to do.
    pub total: u64,
}

/// The network of a cluster.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its addresses. The ground must route each node's pod networks to the node's address; where something else does that, they
    /// are empty here.
    pub addresses: Addresses,
    /// The ports of its nodes that are reached at the host.
    pub ports: Vec<PublishedPort>,
}

/// A node.
#[derive(Debug, Clone)]
pub struct NodeRequest {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// All addresses of the cluster, this node's among them. Nodes know each other by name.
    pub addresses: Addresses,
    /// Its ports that are reached at the host.
    pub ports: Vec<PublishedPort>,
    /// Limits of the node.
    pub resources: Resources,
    /// The node image.
    pub image: ImagePaths,
    /// The static binary that becomes the node's agent.
    pub agent: Utf8PathBuf,
    /// What the agent makes of the node. Holds keys: nobody but root may read it where it is kept.
    pub config: NodeConfig,
}

impl NodeRequest {
    /// What the node is made from, for its ground to keep and for plans to compare.
    #[must_use]
    pub fn record(&self) -> NodeRecord {
        let Self { config, image, resources, ports, addresses, .. } = self;
        NodeRecord::of(config, &image.key, *resources, ports, addresses)
    }
}

/// A node image in the store.
#[derive(Debug, Clone)]
pub struct ImagePaths {
    /// Its key in the store.
    pub key: String,
    /// The digest of its OCI manifest.
    pub digest: String,
    /// The OCI image layout.
    pub layout: Utf8PathBuf,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerPath>,
    /// The same unpacked. Read-only.
    pub rootfs: Utf8PathBuf,
    /// The container image directory that nodes of this host share.
    pub shared_images: Utf8PathBuf,
    /// The folder of this host that all its nodes can write to, and that is nothing to anybody else.
    pub shared_cache: Utf8PathBuf,
}

/// A layer of a node image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerPath {
    /// The blob: a tar, compressed with zstd.
    pub blob: Utf8PathBuf,
    /// The digest of the plain tar: `sha256:HEX`.
    pub diff_id: String,
    /// Bytes of the plain tar.
    pub size: u64,
}
