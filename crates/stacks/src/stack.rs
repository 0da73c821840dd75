//! The port that every stack implements.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use bivouac_pki::{Issued, Kubeconfig, Secret, entry_name};
use bivouac_spec::cluster::Source;
use bivouac_spec::facts::{Applied, Member};
use bivouac_spec::quantity::Span;
use bivouac_spec::{
    Addresses, Cluster, ClusterName, Facts, NodeConfig, NodeName, Problem, cluster,
};
use camino::Utf8PathBuf;
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

    /// When the first certificate ends of those that [`Self::ensure_keys`] renews; `None` where it renews none.
    ///
    /// # Errors
    /// When the keys are no document of this stack.
    fn expiry(&self, _keys: &Keys) -> Result<Option<SystemTime>, Problem> {
        Ok(None)
    }

    /// One config a node. Deterministic: the same request and keys give the same bytes.
    ///
    /// # Errors
    /// When the request does not fit together, or the keys were not made for it.
    fn render(
        &self,
        request: &RenderRequest<'_>,
        keys: &Keys,
    ) -> Result<BTreeMap<NodeName, NodeConfig>, Problem>;

    /// What is done in nodes that run when the cluster changes, beside making and updating nodes. Each step can be done again.
    ///
    /// # Errors
    /// When the request does not fit together.
    fn steps(&self, request: &RenderRequest<'_>, change: &Change<'_>)
    -> Result<Vec<Step>, Problem>;

    /// The folders of a node that hold its data: what a snapshot copies, and what it is restored from. Absolute paths.
    fn data(&self) -> Vec<Utf8PathBuf>;

    /// The nodes of a fork that join it, where the others found it from their copies of the data. All others stay what they were.
    ///
    /// # Errors
    /// When this stack cannot make another cluster of a copy.
    fn fork_joins(&self, cluster: &Cluster) -> Result<BTreeSet<NodeName>, Problem>;

    /// What the node that founds a fork takes from whichever has most of it; `None` where nobody has what it does not have.
    fn fork_shares(&self, _cluster: &Cluster) -> Option<Shared> {
        None
    }

    /// What makes the copied data of the cluster `before` that of the one in the request, whose `joined` are those that
    /// [`Self::fork_joins`] names. Each step names one node, where the data is and nothing else runs yet; those of different nodes need
    /// not wait for each other. Each can be done again.
    ///
    /// # Errors
    /// When this stack cannot make another cluster of a copy, or not this one of that.
    fn fork(&self, before: &Applied, request: &RenderRequest<'_>) -> Result<Vec<Step>, Problem>;

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
    /// The nodes that join what is there; the others found it.
    pub joined: &'a BTreeSet<NodeName>,
}

/// What a caller gives beside the cluster file.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// What was found where the cluster file points to: contents of files, values of variables. It is kept with the keys, and what is
    /// not found any more stays as it was found before.
    pub found: BTreeMap<Source, Secret>,
    /// How nodes are left by their work, in place of what the cluster file says.
    pub drain: Option<Drain>,
}

/// How the work of a node leaves it, before it is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// It moves away, and may take this long for it.
    Within(Span),
    /// It ends with the node.
    No,
}

/// A moment in the life of a cluster.
#[derive(Debug, Clone, Copy)]
pub enum Change<'a> {
    /// A node is about to be made, in a cluster that was usable before. Nothing of it is there.
    Joins(&'a NodeName),
    /// A node is about to be removed. The request does not have it any more; what others do not know of it is here.
    Leaves(&'a Member),
    /// A node that is gone, with all that it had, is about to be forgotten.
    Lost(&'a Member),
    /// These nodes were to be removed, and are wanted again. The others may have forgotten them.
    Returns(&'a BTreeSet<NodeName>),
    /// A node is about to be stopped and made anew around its data.
    Remakes(&'a NodeName),
    /// These nodes were made anew, and their services run; or they were to be, and what was begun ends here.
    Remade(&'a [&'a NodeName]),
    /// All nodes are as the request says; so they were before.
    Changed(&'a Cluster),
}

/// Work in a node that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What it does, as a person would say it: `drain node worker-1`.
    pub name: String,
    /// The nodes where it can be done, the best first. One of them is enough.
    pub nodes: Vec<NodeName>,
    /// A command that exits with 0 when it is done: program (absolute path) and arguments. What it prints is for people.
    pub command: Vec<String>,
    /// Added to the environment of the command.
    pub environment: BTreeMap<String, String>,
    /// How long it may take.
    pub patience: Duration,
    /// What a user can do when it fails.
    pub help: String,
}

/// Data of which several nodes have a copy, some less than others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// The node that is to have all of it.
    pub to: NodeName,
    /// The folder, which is in one of [`Stack::data`].
    pub folder: Utf8PathBuf,
    /// For each node that has a copy a step that prints numbers: the first that differs says which copy has more.
    pub ask: Vec<Step>,
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
    /// The API of Incus, to be entered into the configuration of the user's `incus` client.
    Incus(IncusAccess),
}

impl Access {
    /// A node where the API is served, for grounds that must forward a port.
    #[must_use]
    pub const fn node(&self) -> &NodeName {
        match self {
            Self::Kubernetes(access) => &access.node,
            Self::Incus(access) => &access.node,
        }
    }

    /// Where the API is served, as nodes see it.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Kubernetes(access) => access.address,
            Self::Incus(access) => access.address,
        }
    }
}

/// How to reach an Incus API as its administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncusAccess {
    /// The cluster.
    pub cluster: ClusterName,
    /// A node where the API is served, for grounds that must forward a port.
    pub node: NodeName,
    /// Where the API is served, as nodes see it.
    pub address: SocketAddr,
    /// The certificate that every member shows, PEM.
    pub certificate: String,
    /// The user's certificate and key.
    pub client: Issued,
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
    /// elsewhere it is known by a name that every API server has.
    #[must_use]
    pub fn kubeconfig(&self, at: SocketAddr) -> Kubeconfig {
        let name = entry_name(self.cluster.as_str());
        let kubeconfig =
            Kubeconfig::named(&name, &format!("https://{at}"), &self.authority, &self.client);
        let certified = [self.address.ip(), Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        if certified.contains(&at.ip()) {
            return kubeconfig;
        }
        kubeconfig.verified_as("kubernetes")
    }
}

/// The stack that a cluster asks for.
#[must_use]
pub fn open(stack: &cluster::Stack) -> Box<dyn Stack> {
    match stack {
        cluster::Stack::Kubernetes(settings) => {
            let (settings, given) = (settings.clone(), Given::default());
            Box::new(crate::kubernetes::Kubernetes { settings, given })
        }
        cluster::Stack::Incus(settings) => {
            Box::new(crate::incus::Incus { settings: settings.clone() })
        }
    }
}

/// The stack that a cluster asks for, with what the caller gives beside.
///
/// # Errors
/// When this stack cannot do what is asked for.
pub fn open_with(stack: &cluster::Stack, given: Given) -> Result<Box<dyn Stack>, Problem> {
    match stack {
        cluster::Stack::Kubernetes(settings) => {
            let settings = settings.clone();
            Ok(Box::new(crate::kubernetes::Kubernetes { settings, given }))
        }
        cluster::Stack::Incus(_) if given.drain.is_some() => {
            let message = "a member of Incus moves its instances as long as that takes";
            Err(Problem::usage("stack.no_drain", message)
                .help("leave `--drain-timeout` and `--no-drain` out"))
        }
        cluster::Stack::Incus(_) => Ok(open(stack)),
    }
}
