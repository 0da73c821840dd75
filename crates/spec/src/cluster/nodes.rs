//! The nodes of a cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::quantity::{Bytes, Cpus};

/// A group of nodes of the same kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeGroup {
    /// What the nodes do.
    pub role: Role,
    /// The nodes are called `NAME-0`, `NAME-1`, …; the role when absent. Groups of one name go on counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many nodes.
    #[serde(default = "NodeGroup::default_count")]
    #[schemars(range(max = super::NODES_MAX))]
    pub count: u32,
    /// Numbers that no node of this name has: those of nodes that `bivouac node remove` took out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skip: BTreeSet<u32>,
    /// Zones, dealt out in turn; a node gets the label `topology.kubernetes.io/zone`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// Labels of each node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Limits of each node; all of the ground when absent.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// What a node does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds the cluster's state and decides. Runs pods too where there is no worker.
    ControlPlane,
    /// Runs pods.
    Worker,
    /// Runs instances of Incus, and holds the cluster's state with the others.
    Member,
    /// Leads those outside of the cluster to a control plane that is well. A cluster with several has one by itself.
    #[schemars(skip)]
    Balancer,
}

/// Keeps pods away from a node unless they tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What happens to pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// What happens to pods that do not tolerate a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// They are not placed there.
    NoSchedule,
    /// They are placed there only when nothing else is free.
    PreferNoSchedule,
    /// They are not placed there, and those that run there are removed.
    NoExecute,
}

/// Limits of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// A disk of this size for all that the node writes. It can become larger later, never smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<Bytes>,
}

/// One node that a cluster file asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Its zone.
    pub zone: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its limits.
    pub resources: Resources,
}

impl NodeGroup {
    const fn default_count() -> u32 {
        1
    }

    /// One control plane.
    pub(super) fn single() -> Vec<Self> {
        vec![Self::new(Role::ControlPlane, 1)]
    }

    /// So many nodes of a role.
    #[must_use]
    pub fn new(role: Role, count: u32) -> Self {
        Self {
            role,
            name: None,
            count,
            skip: BTreeSet::new(),
            zones: Vec::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            resources: Resources::default(),
        }
    }

    /// What the nodes' names start with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.role.name())
    }
}

impl NodeGroup {
    /// The node of the group with this number. Zones go by it, so that a node keeps its own when another is taken out.
    pub(super) fn node(&self, name: NodeName, number: u32) -> NodeSpec {
        let zone = (number as usize).checked_rem(self.zones.len());
        let zone = zone.map(|index| self.zones[index].clone());
        let (labels, taints) = (self.labels.clone(), self.taints.clone());
        NodeSpec { name, role: self.role, zone, labels, taints, resources: self.resources }
    }
}

impl NodeSpec {
    /// The name of the balancer.
    pub const BALANCER: &str = "balancer";

    /// The node that leads to the control planes, where there are several.
    pub(super) fn balancer() -> Self {
        Self {
            name: Self::BALANCER.parse().expect("the word is a name"),
            role: Role::Balancer,
            zone: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            resources: Resources::default(),
        }
    }
}

impl Role {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
            Self::Member => "member",
            Self::Balancer => "balancer",
        }
    }
}

/// CPUs and memory in a few words.
impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.cpus, self.memory) {
            (None, None) => f.write_str("none"),
            (Some(cpus), None) => write!(f, "{cpus} CPUs"),
            (None, Some(memory)) => write!(f, "{memory}"),
            (Some(cpus), Some(memory)) => write!(f, "{cpus} CPUs and {memory}"),
        }
    }
}

impl Role {
    /// Whether what the cluster knows is with nodes of this role.
    #[must_use]
    pub const fn keeps_state(self) -> bool {
        matches!(self, Self::ControlPlane | Self::Member)
    }
}

impl Resources {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cpus.is_none() && self.memory.is_none() && self.disk.is_none()
    }

    /// Whether CPUs and memory are the same.
    #[must_use]
    pub fn is_same_machine(&self, other: &Self) -> bool {
        (self.cpus, self.memory) == (other.cpus, other.memory)
    }
}
