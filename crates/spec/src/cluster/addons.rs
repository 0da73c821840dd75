//! What a Kubernetes cluster has beside Kubernetes itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a cluster has beside Kubernetes itself. Switched off in a cluster that lives, the objects of an add-on are removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Addons {
    /// What pods and nodes use, for `kubectl top` and the autoscaling of pods.
    #[serde(default = "on")]
    pub metrics_server: bool,
    /// The default storage class, whose volumes are folders of the node where the pod is.
    #[serde(default = "on")]
    pub storage: bool,
}

const fn on() -> bool {
    true
}

impl Default for Addons {
    fn default() -> Self {
        Self { metrics_server: on(), storage: on() }
    }
}
