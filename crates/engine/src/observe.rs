//! What there is, for `status` and `list`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bivouac_provider::{ExecRequest, Provider, Stdio};
use bivouac_spec::facts::ObservedState;
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::node::{NodePhase, paths};
use bivouac_spec::{ClusterName, NodeName, NodeStatus, ObservedCluster, Problem};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use crate::ClusterState;
use crate::trouble::problems;

/// How long a node may take to say how it is: on a busy machine a command in it takes seconds to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A cluster as it is now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Its name.
    pub name: ClusterName,
    /// The ground that it is on.
    pub provider: String,
    /// Whether every node that was asked for is usable.
    pub usable: bool,
    /// Whether the ground answered. Where not, nothing is known of the nodes, and a problem says why.
    pub ground_answers: bool,
    /// What is recorded of it; absent where only the ground has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<About>,
    /// Its nodes, those that are missing among them.
    pub nodes: BTreeMap<NodeName, NodeReport>,
    /// Things of the cluster that belong to no node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<String>,
    /// What is wrong, with the command that mends it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// What is recorded of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// What runs on it: `Kubernetes v1.36.3`.
    pub stack: String,
    /// The version of bivouac that made it.
    pub bivouac: String,
    /// When it was made.
    pub created: Timestamp,
    /// The key of its node image.
    pub image: String,
    /// The networks between its nodes.
    pub node_networks: Vec<IpNet>,
    /// The networks of its pods.
    pub pod_networks: Vec<IpNet>,
    /// The networks of its Services.
    pub service_networks: Vec<IpNet>,
    /// When the first of its certificates ends; see [`add_certificates`](crate::add_certificates).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_end: Option<Timestamp>,
}

impl About {
    fn of(state: &ClusterState) -> Self {
        let addresses = &state.applied.addresses;
        Self {
            stack: bivouac_stacks::open(&state.applied.cluster.spec.stack).describe(),
            bivouac: state.bivouac.clone(),
            created: state.created,
            image: state.image.clone(),
            node_networks: addresses.node_networks.iter().map(|own| own.network).collect(),
            pod_networks: addresses.pod_networks.clone(),
            service_networks: addresses.service_networks.clone(),
            certificates_end: None,
        }
    }
}

/// A node as it is now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// `control-plane`, `worker`, …; absent for a node that is not part of the cluster as it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Its address, of the family that is preferred.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Its addresses, one of each family, that one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What the ground says; absent for a node that is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ObservedState>,
    /// What the node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

/// How a node is, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeWord {
    /// It was asked for, and the ground has nothing of it.
    Missing,
    /// It was made, and does not run.
    Stopped,
    /// Only parts of it are there.
    Broken,
    /// It runs and says nothing.
    Silent,
    /// It is not usable yet.
    Starting,
    /// All that was asked of it holds.
    Usable,
    /// It was usable, and something of it is not any more.
    Degraded,
    /// It is ending.
    Stopping,
    /// It cannot become what its config says.
    Failed,
}

impl NodeWord {
    /// The word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Stopped => "stopped",
            Self::Broken => "broken",
            Self::Silent => "silent",
            Self::Starting => "starting",
            Self::Usable => "usable",
            Self::Degraded => "degraded",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

impl NodeReport {
    /// How the node is: what the ground says and what the node says, together.
    #[must_use]
    pub fn word(&self) -> NodeWord {
        match (self.state, self.status.as_ref().map(|status| status.phase)) {
            (None, _) => NodeWord::Missing,
            (Some(ObservedState::Stopped), _) => NodeWord::Stopped,
            (Some(ObservedState::Broken), _) => NodeWord::Broken,
            (Some(ObservedState::Running), None) => NodeWord::Silent,
            (Some(ObservedState::Running), Some(phase)) => match phase {
                NodePhase::Applying | NodePhase::Starting => NodeWord::Starting,
                NodePhase::Usable => NodeWord::Usable,
                NodePhase::Degraded => NodeWord::Degraded,
                NodePhase::Stopping => NodeWord::Stopping,
                NodePhase::Failed => NodeWord::Failed,
            },
        }
    }
}

/// A cluster whose ground does not answer, and why.
#[must_use]
pub fn unknown_status(name: &ClusterName, provider_name: &str, why: Problem) -> ClusterStatus {
    ClusterStatus {
        name: name.clone(),
        provider: provider_name.to_owned(),
        usable: false,
        ground_answers: false,
        about: None,
        nodes: BTreeMap::new(),
        remains: Vec::new(),
        problems: vec![why],
    }
}

/// How a cluster is now: what the ground says, and what each running node says, asked all at once.
pub async fn cluster_status(
    provider: &dyn Provider,
    provider_name: &str,
    observed: &ObservedCluster,
    state: Option<&ClusterState>,
) -> ClusterStatus {
    let mut nodes = state.map(recorded_nodes).unwrap_or_default();
    let asked = futures::future::join_all(observed.nodes.iter().map(|(name, node)| async move {
        let running = node.state == ObservedState::Running;
        let status = if running { node_status(provider, &observed.name, name).await } else { None };
        (name.clone(), node.address, node.state, status)
    }));
    for (name, address, node_state, status) in asked.await {
        let report = nodes.entry(name).or_default();
        report.address = address.or(report.address);
        if report.addresses.is_empty() {
            report.addresses.extend(address);
        }
        (report.state, report.status) = (Some(node_state), status);
    }
    // Nodes in which nothing runs yet have all that they are asked for.
    let is_whole = state.is_none_or(|state| state.restoring.is_none());
    let are_usable = |node: &NodeReport| node.word() == NodeWord::Usable;
    let usable = is_whole && !nodes.is_empty() && nodes.values().all(are_usable);
    let mut status = ClusterStatus {
        name: observed.name.clone(),
        provider: provider_name.to_owned(),
        usable,
        ground_answers: true,
        about: state.map(About::of),
        nodes,
        remains: observed.remains.clone(),
        problems: Vec::new(),
    };
    status.problems = problems(&status, state);
    status
}

/// The nodes that were asked for.
fn recorded_nodes(state: &ClusterState) -> BTreeMap<NodeName, NodeReport> {
    let addresses = &state.applied.addresses.nodes;
    let nodes = state.applied.cluster.nodes().into_iter().map(|node| {
        let own = addresses.get(&node.name);
        let report = NodeReport {
            role: Some(node.role.name().to_owned()),
            address: own.map(NodeAddresses::primary),
            addresses: own.iter().flat_map(|own| own.addresses.iter().copied()).collect(),
            state: None,
            status: None,
        };
        (node.name, report)
    });
    nodes.collect()
}

pub(crate) async fn node_status(
    provider: &dyn Provider,
    cluster: &ClusterName,
    node: &NodeName,
) -> Option<NodeStatus> {
    let ask = async {
        let node = provider.open_node(cluster, node).await.ok()?;
        let mut request = ExecRequest::piped([paths::AGENT, "agent", "status"]);
        request.stdio = Stdio::NoInput;
        let mut process = node.exec(&request).await.ok()?;
        let mut text = String::new();
        process.stdout.take()?.read_to_string(&mut text).await.ok()?;
        serde_json::from_str(&text).ok()
    };
    tokio::time::timeout(PATIENCE, ask).await.ok().flatten()
}
