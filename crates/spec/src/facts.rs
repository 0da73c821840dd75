//! What a provider says of its ground, and what it found there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cluster::{NodeSpec, Resources};
use crate::network::{Addresses, NodeAddresses, PublishedPort};
use crate::problem::Problem;
use crate::quantity::Bytes;
use crate::{ClusterName, NodeName};

/// What differs between grounds, as data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The kernel's release: `6.12.9`.
    pub kernel: String,
    /// `amd64` or `arm64`.
    pub architecture: String,
    /// CPUs that nodes can use together.
    pub cpus: u32,
    /// Memory that nodes can use together.
    pub memory: Bytes,
    /// Free disk where nodes will live.
    pub disk_free: Bytes,
    /// The control groups that a node sees.
    pub cgroup: CgroupVersion,
    /// Whether resource limits can be raised and OOM scores lowered (CAP_SYS_RESOURCE).
    pub raises_limits: bool,
    /// Whether all nodes run on one kernel that is not theirs alone.
    pub shares_kernel: bool,
    /// Whether nodes read the container images of the store directly.
    pub shares_images: bool,
    /// The most files that a process can have open, where that cannot be raised.
    pub open_files: u64,
    /// Networks that the ground already uses, and for what: `172.17.0.0/16` → `route through docker0`.
    pub occupied: BTreeMap<IpNet, String>,
    /// Whether the addresses of nodes can be reached from here. Where not, only published ports can.
    pub reaches_nodes: bool,
    /// Whether this machine is on the network between the nodes: it also reaches addresses there that are no node's own.
    #[serde(default)]
    pub shares_network: bool,
    /// The file systems that a node can keep in a file of its own, through a loop device: `btrfs`. None where nodes get no such devices.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub file_systems: BTreeSet<String>,
    /// What tells this ground from others of its kind. Empty where there is no other, or none can be told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Where it is, for people: `the engine at unix:///var/run/docker.sock`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// What of a node can be changed only by stopping it and making it anew around its data.
    #[serde(default)]
    pub remakes_for: Vec<Aspect>,
    /// Whether it is another machine: a port on its loopback addresses is not reached from here.
    #[serde(default)]
    pub remote: bool,
    /// Why nodes have no disks of a size of their own here, and what would change that. Absent where they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_disks: Option<Problem>,
}

/// Control groups version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupVersion {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy.
    V2,
}

/// One need of a provider, tried by doing it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// What was tried: `mount an overlay`.
    pub name: String,
    /// How it went.
    pub outcome: Outcome,
}

/// How a tried need went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It works; what was seen.
    Met(String),
    /// A cluster comes up without it, with less: what is missing and what mends it.
    Limited(Problem),
    /// No cluster comes up without it.
    Unmet(Problem),
}

/// A survey of the ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Survey {
    /// What the ground is like.
    pub facts: Facts,
    /// Every need, tried.
    pub needs: Vec<Need>,
}

impl Survey {
    /// Everything without which no cluster comes up.
    #[must_use]
    pub fn unmet(&self) -> Vec<Problem> {
        let unmet = self.needs.iter().filter_map(|need| match &need.outcome {
            Outcome::Unmet(problem) => Some(problem.clone()),
            _ => None,
        });
        unmet.collect()
    }
}

/// A cluster that exists on a ground, whole or in part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedCluster {
    /// Its name.
    pub name: ClusterName,
    /// The networks that its nodes are on, in no order.
    pub networks: Vec<IpNet>,
    /// Its nodes.
    pub nodes: BTreeMap<NodeName, ObservedNode>,
    /// Things of the cluster that are left without a node, such as an interface or a control group, as text.
    pub remains: Vec<String>,
}

/// A node that exists on a ground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObservedNode {
    /// Whether it runs.
    pub state: ObservedState,
    /// Its address, of the family that is preferred.
    pub address: Option<IpAddr>,
    /// What it was made from, or made to be since; absent where that cannot be read, and of a node that never came to be.
    pub record: Option<NodeRecord>,
    /// Its first process on the ground, where that has a meaning.
    pub pid: Option<u32>,
}

/// What a node is made from, as its ground keeps it beside the node. Against what it would be made from now, it says what has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRecord {
    /// [`crate::NodeConfig::digest`].
    pub config: String,
    /// The key of the node image.
    pub image: String,
    /// Its limits.
    pub resources: Resources,
    /// Its ports that are reached at the host.
    pub ports: Vec<PublishedPort>,
    /// [`Addresses::neighbours`], as the ground sees them.
    pub neighbours: String,
}

/// One thing of a node that can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Its config.
    Config,
    /// The node image.
    Image,
    /// Its limits of CPUs and memory.
    Resources,
    /// The size of its disk.
    Disk,
    /// Its published ports.
    Ports,
    /// What it knows of the other nodes.
    Neighbours,
}

impl Aspect {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Config, Self::Image, Self::Resources, Self::Disk, Self::Ports, Self::Neighbours];
}

impl NodeRecord {
    /// The record of a node that is made from this.
    #[must_use]
    pub fn of(
        config: &crate::NodeConfig,
        image: &str,
        resources: Resources,
        ports: &[PublishedPort],
        addresses: &Addresses,
    ) -> Self {
        Self {
            config: config.digest(),
            image: image.to_owned(),
            resources,
            ports: ports.to_vec(),
            neighbours: addresses.neighbours(),
        }
    }

    /// What differs from what would be made now.
    #[must_use]
    pub fn differences(&self, wanted: &Self) -> Vec<Aspect> {
        let aspects = [
            (self.config != wanted.config, Aspect::Config),
            (self.image != wanted.image, Aspect::Image),
            (!self.resources.is_same_machine(&wanted.resources), Aspect::Resources),
            (self.resources.disk != wanted.resources.disk, Aspect::Disk),
            (self.ports != wanted.ports, Aspect::Ports),
            (self.neighbours != wanted.neighbours, Aspect::Neighbours),
        ];
        aspects.into_iter().filter_map(|(differs, aspect)| differs.then_some(aspect)).collect()
    }
}

/// Whether a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObservedState {
    /// Its first process runs.
    Running,
    /// It was made, and does not run.
    Stopped,
    /// Only parts of it are there.
    Broken,
}

/// What the engine recorded of a cluster before it made it, or changed it, next to what is observed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The cluster as it was asked for.
    pub cluster: crate::Cluster,
    /// Its addresses, which never change afterwards.
    pub addresses: Addresses,
    /// The nodes that were made after the cluster was usable, or were to be removed and stay: they join it, where the first ones
    /// founded it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<NodeName>,
    /// The nodes that were to be removed and are wanted again, until all of the cluster is usable: the others may have forgotten them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub returned: BTreeSet<NodeName>,
    /// The cluster as it was when all of it was usable last; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<Box<crate::Cluster>>,
    /// Every node that may be one of the cluster's: recorded before it is made, and forgotten when it is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<NodeName, Member>,
}

/// A node of a cluster, as it was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// The node.
    pub spec: NodeSpec,
    /// Its addresses.
    pub addresses: NodeAddresses,
    /// Whether the others have let it go. Its node is still there, or was a moment ago.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl Applied {
    /// What is recorded of a cluster that is about to be made, or changed.
    #[must_use]
    pub fn new(cluster: crate::Cluster, addresses: Addresses) -> Self {
        let member = |spec: NodeSpec| {
            let addresses = addresses.nodes.get(&spec.name)?.clone();
            Some((spec.name.clone(), Member { spec, addresses, left: false }))
        };
        let members = cluster.nodes().into_iter().filter_map(member).collect();
        Self {
            cluster,
            addresses,
            joined: BTreeSet::new(),
            returned: BTreeSet::new(),
            completed: None,
            members,
        }
    }
}
