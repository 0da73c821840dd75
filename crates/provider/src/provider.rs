//! Where nodes run.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::Survey;
use bivouac_spec::{Addresses, ClusterName, NodeConfig, NodeName, ObservedCluster, Problem};
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

    /// Makes the network of a cluster, unless it is there.
    ///
    /// # Errors
    /// When it cannot be made. What was made so far is found and used by the next call.
    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem>;

    /// Makes a node and starts its agent, unless it runs. A stopped node starts again with its data, and with this config.
    /// Returns as soon as the node's first process runs: the agent's status tells the rest.
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

/// The network of a cluster.
#[derive(Debug, Clone)]
pub struct NetworkRequest {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its addresses. The ground must route each node's pod networks to the node's address.
    pub addresses: Addresses,
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
    /// Limits of the node.
    pub resources: Resources,
    /// The node image.
    pub image: ImagePaths,
    /// The static binary that becomes the node's agent.
    pub agent: Utf8PathBuf,
    /// What the agent makes of the node. Holds keys: nobody but root may read it where it is kept.
    pub config: NodeConfig,
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
    /// The same unpacked. Read-only.
    pub rootfs: Utf8PathBuf,
    /// The container image directory that nodes of this host share.
    pub shared_images: Utf8PathBuf,
}
