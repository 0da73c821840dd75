//! What happens while a verb runs, as data. A terminal, log lines and JSON are consumers of the same values.

use std::sync::Arc;

use bivouac_spec::{ClusterName, NodeName, NodeStatus, Problem, SnapshotName};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A verb began to work on a cluster.
    Started {
        /// `up`, `down`, …
        verb: String,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The ground works, with less than it could.
    Limited {
        /// What is missing and what mends it.
        problem: Problem,
    },
    /// Something worth knowing that stops nothing.
    Noted {
        /// A sentence.
        note: String,
    },
    /// What will be done, in order; empty when the cluster already is as asked.
    Planned {
        /// One line for each action.
        actions: Vec<String>,
    },
    /// A step of longer work, such as building the node image.
    Step(Progress),
    /// A node's first process runs.
    NodeStarted {
        /// The node.
        node: NodeName,
    },
    /// A node that runs was made what it is to be now.
    NodeUpdated {
        /// The node.
        node: NodeName,
    },
    /// Work in a node that runs began.
    Working {
        /// What is done: `drain node worker-1`.
        what: String,
    },
    /// A cluster was saved.
    #[serde(rename_all = "camelCase")]
    Saved {
        /// What that is called.
        snapshot: SnapshotName,
        /// Its bytes.
        size: u64,
        /// How long the cluster was paused, in milliseconds.
        paused_for: u64,
    },
    /// A node said how far it is.
    NodeStatus {
        /// What it said.
        status: NodeStatus,
    },
    /// A node is usable.
    NodeUsable {
        /// The node.
        node: NodeName,
        /// Milliseconds from the start of its agent.
        after: u64,
    },
    /// A node stopped, and keeps its data.
    NodeStopped {
        /// The node.
        node: NodeName,
    },
    /// A node is gone.
    NodeRemoved {
        /// The node.
        node: NodeName,
    },
    /// A verb ended.
    Ended {
        /// `up`, `down`, …
        verb: String,
        /// Milliseconds since it began.
        after: u64,
        /// Why it could not be done; none when it was.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        problems: Vec<Problem>,
    },
}

/// How far a step of longer work is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What is done: `kubernetes v1.36.3`.
    pub step: String,
    /// How far it is.
    pub state: StepState,
    /// How much is done, in units.
    pub done: u64,
    /// How much there is to do, in units; 0 when that is not known.
    pub total: u64,
    /// The unit.
    pub unit: Unit,
    /// Seconds until all steps are done, by the pace so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<u64>,
    /// More about it, such as where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// How far a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepState {
    /// Will be done.
    Planned,
    /// Is being done.
    Running,
    /// Was done now.
    Done,
    /// Was there already.
    Reused,
    /// Did not work; the verb's error says why.
    Failed,
}

/// What a step counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Things, such as packages.
    Items,
}

/// Takes events. Cheap to clone; called from any task.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Event) + Send + Sync>);

impl Reporter {
    /// A reporter that hands every event to `consumer`.
    pub fn new(consumer: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(consumer))
    }

    /// A reporter that drops every event.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    /// Hands over an event.
    pub fn report(&self, event: Event) {
        (self.0)(event);
    }
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter")
    }
}
