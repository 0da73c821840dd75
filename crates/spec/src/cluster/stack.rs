//! What runs on the nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Addons, ImageCache, Incus, Proxy, Registry, Role};
use crate::quantity::Span;

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
    /// The version, with a leading `v`: one of those that this bivouac has node images for. A newer one is an upgrade.
    #[serde(default = "Kubernetes::default_version")]
    pub version: String,
    /// The DNS domain of the cluster.
    #[serde(default = "Kubernetes::default_domain")]
    pub domain: String,
    /// How the cluster comes up.
    #[serde(default)]
    pub bootstrap: Bootstrap,
    /// What it has beside Kubernetes itself.
    #[serde(default)]
    pub addons: Addons,
    /// How long the pods of a node may take to leave it before it is removed.
    #[serde(
        default = "Kubernetes::default_drain_timeout",
        skip_serializing_if = "Kubernetes::is_default_drain_timeout"
    )]
    pub drain_timeout: Span,
    /// Registries of container images: mirrors, credentials, authorities. What is not named is reached as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries: Vec<Registry>,
    /// The proxy through which nodes reach registries. None when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<Proxy>,
    /// Keep the images that nodes pull, for all clusters of this machine. Not when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_cache: Option<ImageCache>,
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
    /// The versions that there are node images for, the newest first.
    pub const VERSIONS: [&str; 2] = ["v1.36.3", "v1.36.1"];

    /// The version of a cluster that asks for none: the newest.
    pub const VERSION: &str = Self::VERSIONS[0];

    /// The port of the API.
    pub const API_PORT: u16 = 6443;

    fn default_version() -> String {
        Self::VERSION.to_owned()
    }

    const fn default_drain_timeout() -> Span {
        Span::seconds(120)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
    fn is_default_drain_timeout(span: &Span) -> bool {
        *span == Self::default_drain_timeout()
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
            addons: Addons::default(),
            drain_timeout: Self::default_drain_timeout(),
            registries: Vec::new(),
            proxy: None,
            image_cache: None,
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

    /// The version of it, where a cluster file says one.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        match self {
            Self::Kubernetes(kubernetes) => Some(&kubernetes.version),
            Self::Incus(_) => None,
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
