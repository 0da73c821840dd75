//! What runs on the nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Incus, Role};

/// What runs on the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stack {
    /// Kubernetes from its upstream programs.
    Kubernetes(Kubernetes),
    /// A cluster of Incus: system containers, in the manner of LXD.
    Incus(Incus),
}

/// Settings of the `kubernetes` stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// The version, with a leading `v`. The node image must hold it.
    #[serde(default = "Kubernetes::default_version")]
    pub version: String,
    /// The DNS domain of the cluster.
    #[serde(default = "Kubernetes::default_domain")]
    pub domain: String,
    /// How the cluster comes up.
    #[serde(default)]
    pub bootstrap: Bootstrap,
}

/// How a Kubernetes cluster comes up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Bootstrap {
    /// The upstream programs as services of each node, all at once. The fastest.
    #[default]
    Services,
    /// `kubeadm init` and `kubeadm join`: the control plane as static pods, as in clusters of kind and of most installers.
    Kubeadm,
}

impl Kubernetes {
    /// The version that the node image of this release holds.
    pub const VERSION: &str = "v1.36.3";

    /// The port of the API.
    pub const API_PORT: u16 = 6443;

    fn default_version() -> String {
        Self::VERSION.to_owned()
    }

    fn default_domain() -> String {
        "cluster.local".to_owned()
    }
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            version: Self::default_version(),
            domain: Self::default_domain(),
            bootstrap: Bootstrap::default(),
        }
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::Kubernetes(Kubernetes::default())
    }
}

impl Stack {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "kubernetes",
            Self::Incus(_) => "incus",
        }
    }

    /// The roles that its nodes can have, the one that it cannot do without first.
    #[must_use]
    pub const fn roles(&self) -> &'static [Role] {
        match self {
            Self::Kubernetes(_) => &[Role::ControlPlane, Role::Worker],
            Self::Incus(_) => &[Role::Member],
        }
    }

    /// The port of its API.
    #[must_use]
    pub const fn api_port(&self) -> u16 {
        match self {
            Self::Kubernetes(_) => Kubernetes::API_PORT,
            Self::Incus(_) => Incus::API_PORT,
        }
    }
}
