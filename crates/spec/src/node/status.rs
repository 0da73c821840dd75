//! What a node says of itself.

use serde::{Deserialize, Serialize};

use crate::{ClusterName, NodeName, Problem};

/// The state of a node as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The cluster.
    pub cluster: ClusterName,
    /// The node.
    pub node: NodeName,
    /// The digest of the config that is applied, or that is being applied.
    pub config: String,
    /// How far the node is.
    pub phase: NodePhase,
    /// Milliseconds since the agent started.
    pub uptime: u64,
    /// Services, tasks and conditions, in the order of the config; after them those of an earlier one that are still being stopped.
    pub units: Vec<UnitStatus>,
    /// Things that could not be done and are not needed, such as a limit that the kernel did not permit.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why the phase is `failed`; otherwise empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What all its processes use. Only in the answer to a question: it changes all the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a node uses, as far as its kernel counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes of memory that cannot be taken from it: files that are merely cached do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Milliseconds of processor time since the node started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    /// Processes and their threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<u64>,
}

/// How far a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodePhase {
    /// Files, mounts and parameters are being applied.
    Applying,
    /// Units are being started or waited for.
    Starting,
    /// Everything was ready at once, and the node's conditions held, under the present config.
    Usable,
    /// It was usable, and something is not ready now.
    Degraded,
    /// Services are being stopped.
    Stopping,
    /// The config cannot be applied; the problems say why.
    Failed,
}

/// What a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitKind {
    /// A process that is kept running.
    Service,
    /// Work that is done once.
    Task,
    /// Something that must hold.
    Condition,
}

/// The state of one unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitStatus {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: UnitKind,
    /// How far it is.
    pub state: UnitState,
    /// What it waits for or what it last saw, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The process, in the node's own numbering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it was started again after it ended by itself.
    #[serde(default)]
    pub restarts: u32,
    /// Milliseconds from the start of the agent until it was first ready, as it is defined now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_after: Option<u64>,
    /// The node is usable without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// How far a unit is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnitState {
    /// Waits for other units.
    Waiting,
    /// Runs, and is not ready yet.
    Starting,
    /// Ready, done, or holds.
    Ready,
    /// Ended by itself and waits to be started again.
    Restarting,
    /// Is being stopped.
    Stopping,
    /// Was stopped.
    Stopped,
}

impl NodeStatus {
    /// The units that keep the node from being usable.
    pub fn pending(&self) -> impl Iterator<Item = &UnitStatus> {
        self.units.iter().filter(|unit| unit.state != UnitState::Ready && !unit.late)
    }
}
