//! What a provider says of its ground, and what it found there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::network::Addresses;
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
    /// What tells this ground from others of its kind. Empty where there is no other, or none can be told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Where it is, for people: `the engine at unix:///var/run/docker.sock`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Whether it is another machine: a port on its loopback addresses is not reached from here.
    #[serde(default)]
    pub remote: bool,
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
    /// The network that its nodes are on, if there is one.
    pub network: Option<IpNet>,
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
    /// Its address.
    pub address: Option<IpAddr>,
    /// [`crate::NodeConfig::digest`] that it was made with.
    pub config: Option<String>,
    /// The key of the node image that it was made from.
    pub image: Option<String>,
    /// Its first process on the ground, where that has a meaning.
    pub pid: Option<u32>,
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

/// What the engine recorded when it made a cluster, next to what is observed: the addresses never change afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// The cluster as it was asked for.
    pub cluster: crate::Cluster,
    /// Its addresses.
    pub addresses: Addresses,
}
