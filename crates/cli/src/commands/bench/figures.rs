//! What is measured.

use serde::{Deserialize, Serialize};

/// The figures of one run. Times in seconds from the start of the command, where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub command_returns: f64,
    pub answers: Answers,
    /// What the cluster went through afterwards, when that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life: Option<Life>,
    /// How long its end took.
    pub down: f64,
    /// Until the last answer.
    pub cpu_seconds: f64,
    pub memory: Vec<NodeMemory>,
}

/// When what was asked of the cluster answered. Each stack is asked for something else.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answers {
    /// A web app behind a Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<f64>,
    /// The cluster's DNS, in the app's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<f64>,
    /// An instance on each member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<f64>,
    /// Each instance to the one before it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<f64>,
}

impl Answers {
    /// When all had answered.
    pub fn last(&self) -> f64 {
        [self.app, self.dns, self.instances, self.names].into_iter().flatten().fold(0.0, f64::max)
    }
}

/// How long changes of the cluster took, each from the start of its command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Life {
    /// One node more, until it is usable.
    pub node_joins: f64,
    /// All nodes stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<f64>,
    /// They start again, until they are usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<f64>,
    /// A snapshot is saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<f64>,
    /// How long the cluster stood still for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<f64>,
    /// The snapshot is restored, until the cluster is usable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<f64>,
    /// A second cluster is made of this one as it is, until it is usable; where the stack can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fork: Option<f64>,
}

/// The memory of a node once everything answers: PSS of all its processes, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeMemory {
    pub node: String,
    pub pss: u64,
}
