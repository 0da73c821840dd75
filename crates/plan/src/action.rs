//! What a plan consists of.

use std::net::{IpAddr, SocketAddr};

use bivouac_spec::cluster::{Port, Role};
use bivouac_spec::facts::Aspect;
use bivouac_spec::{ClusterName, NodeName, Problem, Problems};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// What would change to a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// The cluster.
    pub cluster: ClusterName,
    /// What would be done: the network first, then nodes are made, started, updated, and removed last. Empty when something is refused.
    pub actions: Vec<Action>,
    /// Why nothing may be done.
    pub refusals: Vec<Problem>,
    /// What a user should know; none of it stops anything.
    pub notes: Vec<String>,
}

/// One change. Each can be done again after any failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Action {
    /// Makes the network between the nodes.
    CreateNetwork {
        /// The networks, one for each IP family.
        networks: Vec<IpNet>,
        /// Why.
        reason: String,
    },
    /// Makes a node, or completes one of which there are only parts.
    CreateNode {
        /// The node.
        node: NodeName,
        /// What it does.
        role: Role,
        /// Its address.
        address: IpAddr,
        /// Its ports that will be reached at the host.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ports: Vec<Port>,
        /// Why.
        reason: String,
    },
    /// Starts a node with the data that it has.
    StartNode {
        /// The node.
        node: NodeName,
        /// What it does.
        role: Role,
        /// Its address.
        address: IpAddr,
        /// Its ports that will be reached at the host.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ports: Vec<Port>,
        /// Why.
        reason: String,
    },
    /// Makes a node that runs what it is to be now.
    UpdateNode {
        /// The node.
        node: NodeName,
        /// What it does.
        role: Role,
        /// What changes.
        aspects: Vec<Aspect>,
        /// Whether the node stops for it, and is made anew around its data. Otherwise it runs on.
        remakes: bool,
        /// Why.
        reason: String,
    },
    /// Removes a node and its data.
    DestroyNode {
        /// The node.
        node: NodeName,
        /// Why.
        reason: String,
    },
    /// Removes the network between the nodes.
    DestroyNetwork {
        /// The networks, one for each IP family.
        networks: Vec<IpNet>,
        /// Why.
        reason: String,
    },
    /// Removes what is left of nodes that are gone.
    DestroyRemains {
        /// What is left, as the provider calls it.
        what: Vec<String>,
        /// Why.
        reason: String,
    },
}

impl Plan {
    /// A plan that changes nothing.
    #[must_use]
    pub const fn empty(cluster: ClusterName) -> Self {
        Self { cluster, actions: Vec::new(), refusals: Vec::new(), notes: Vec::new() }
    }

    /// Whether there is nothing to do and nothing is refused.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.refusals.is_empty()
    }

    /// Whether the plan may be carried out.
    ///
    /// # Errors
    /// The refusals.
    pub fn check(&self) -> Result<(), Problems> {
        Problems::check(self.refusals.clone())
    }
}

impl Action {
    /// The action in one line: `create node worker-0 (worker, 10.89.0.3, 127.0.0.1:8080 to 80/tcp): it does not exist yet`.
    #[must_use]
    pub fn describe(&self) -> String {
        let reason = self.reason();
        match self {
            Self::CreateNetwork { networks, .. } => {
                format!("create network {}: {reason}", listed(networks))
            }
            Self::CreateNode { node, role, address, ports, .. } => {
                let (role, ports) = (role.name(), published(ports));
                format!("create node {node} ({role}, {address}{ports}): {reason}")
            }
            Self::StartNode { node, role, address, ports, .. } => {
                let (role, ports) = (role.name(), published(ports));
                format!("start node {node} ({role}, {address}{ports}): {reason}")
            }
            Self::UpdateNode { node, remakes: false, .. } => {
                format!("update node {node}: {reason}")
            }
            Self::UpdateNode { node, remakes: true, .. } => {
                format!("remake node {node} around its data: {reason}")
            }
            Self::DestroyNode { node, .. } => format!("remove node {node}: {reason}"),
            Self::DestroyNetwork { networks, .. } => {
                format!("remove network {}: {reason}", listed(networks))
            }
            Self::DestroyRemains { what, .. } => format!("remove {}: {reason}", what.join(", ")),
        }
    }

    /// The node that changes, if it is one.
    #[must_use]
    pub const fn node(&self) -> Option<&NodeName> {
        match self {
            Self::CreateNode { node, .. }
            | Self::StartNode { node, .. }
            | Self::UpdateNode { node, .. }
            | Self::DestroyNode { node, .. } => Some(node),
            Self::CreateNetwork { .. }
            | Self::DestroyNetwork { .. }
            | Self::DestroyRemains { .. } => None,
        }
    }

    /// Why, in plain words.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::CreateNetwork { reason, .. }
            | Self::CreateNode { reason, .. }
            | Self::StartNode { reason, .. }
            | Self::UpdateNode { reason, .. }
            | Self::DestroyNode { reason, .. }
            | Self::DestroyNetwork { reason, .. }
            | Self::DestroyRemains { reason, .. } => reason,
        }
    }
}

fn listed(networks: &[IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn published(ports: &[Port]) -> String {
    let one = |port: &Port| {
        let at = SocketAddr::new(port.host_ip, port.host_port);
        format!(", {at} to {}/{}", port.port, port.protocol.name())
    };
    ports.iter().map(one).collect()
}
