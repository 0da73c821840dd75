//! The port that every stack implements.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::SystemTime;

use bivouac_pki::{Issued, Kubeconfig, entry_name};
use bivouac_spec::{
    Addresses, Cluster, ClusterName, Facts, NodeConfig, NodeName, Problem, cluster,
};
use serde::{Deserialize, Serialize};

/// What runs on the nodes of a cluster.
pub trait Stack: Send + Sync {
    /// Everything secret of a cluster: makes what is missing, renews what is near its end, forgets what belonged to nodes that
    /// are gone. Without anything to do, the keys come back as they were.
    ///
    /// # Errors
    /// When the request does not fit together, when `existing` is no document of this stack, or when a key cannot be made.
    fn ensure_keys(
        &self,
        existing: Option<Keys>,
        request: &RenderRequest<'_>,
        now: SystemTime,
    ) -> Result<Keys, Problem>;

    /// One config a node. Deterministic: the same request and keys give the same bytes.
    ///
    /// # Errors
    /// When the request does not fit together, or the keys were not made for it.
    fn render(
        &self,
        request: &RenderRequest<'_>,
        keys: &Keys,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, Problem>;

    /// What the user gets.
    ///
    /// # Errors
    /// When the request does not fit together, or the keys were not made for it.
    fn access(&self, request: &RenderRequest<'_>, keys: &Keys) -> Result<Access, Problem>;

    /// The stack in a few words, for `cluster demo is usable: 3 nodes, Kubernetes v1.36.3`.
    fn describe(&self) -> String;
}

/// What a cluster is rendered from.
#[derive(Debug, Clone, Copy)]
pub struct RenderRequest<'a> {
    /// The cluster as it was asked for.
    pub cluster: &'a Cluster,
    /// The addresses that it was given.
    pub addresses: &'a Addresses,
    /// What its ground is like.
    pub facts: &'a Facts,
}

/// Everything secret of a cluster, in a form that only its stack understands. Belongs into a file that only its owner may read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keys(pub(crate) serde_json::Value);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

/// What the user gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// A Kubernetes API, to be entered into the user's kubeconfig.
    Kubernetes(KubernetesAccess),
}

/// How to reach a Kubernetes API as its administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesAccess {
    /// The cluster.
    pub cluster: ClusterName,
    /// A node where the API is served, for grounds that must forward a port.
    pub node: NodeName,
    /// Where the API is served, as nodes see it.
    pub address: SocketAddr,
    /// The certificate of the cluster's authority, PEM.
    pub authority: String,
    /// The administrator's certificate and key.
    pub client: Issued,
}

impl KubernetesAccess {
    /// The entry for the user's kubeconfig, named `bivouac-NAME`. `at` is where the API is reached from the user's side:
    /// [`KubernetesAccess::address`], the local end of a forwarded port, or any other: the API server's certificate has the first two,
    /// elsewhere it is known by the node's name.
    #[must_use]
    pub fn kubeconfig(&self, at: SocketAddr) -> Kubeconfig {
        let name = entry_name(self.cluster.as_str());
        let kubeconfig =
            Kubeconfig::named(&name, &format!("https://{at}"), &self.authority, &self.client);
        let certified = [self.address.ip(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if certified.contains(&at.ip()) {
            return kubeconfig;
        }
        kubeconfig.verified_as(self.node.as_str())
    }
}

/// The stack that a cluster asks for.
#[must_use]
pub fn open(stack: &cluster::Stack) -> Box<dyn Stack> {
    match stack {
        cluster::Stack::Kubernetes(settings) => {
            Box::new(crate::kubernetes::Kubernetes { settings: settings.clone() })
        }
    }
}
