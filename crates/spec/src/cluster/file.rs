//! The types of the cluster file. Their documentation is what editors show (through the JSON schema).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, Cpus};
use crate::{ClusterName, NodeName};

/// A cluster, as a person writes it. `bivouac up` makes it so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// The version of this format: `bivouac.dev/v1alpha1`.
    pub api_version: ApiVersion,
    /// What the document describes: `Cluster`.
    pub kind: Kind,
    /// The cluster's name.
    #[serde(default)]
    pub metadata: Metadata,
    /// What the cluster is.
    #[serde(default)]
    pub spec: Spec,
}

/// The version of the cluster file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApiVersion {
    /// The only one so far.
    #[default]
    #[serde(rename = "bivouac.dev/v1alpha1")]
    V1Alpha1,
}

/// What a document describes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A cluster.
    #[default]
    Cluster,
}

/// What identifies a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Unique on its ground; the kubeconfig context is `bivouac-NAME`.
    #[serde(default)]
    pub name: ClusterName,
}

/// What a cluster is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Where the nodes run.
    #[serde(default)]
    pub provider: Provider,
    /// What runs on them.
    #[serde(default)]
    pub stack: Stack,
    /// The nodes, in groups of the same kind. One control plane when absent.
    #[serde(default = "NodeGroup::single")]
    pub nodes: Vec<NodeGroup>,
    /// The networks.
    #[serde(default)]
    pub network: Network,
    /// Ports of nodes that are reached at the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

/// Where nodes run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Provider {
    /// This machine's kernel: each node is a set of namespaces. Needs no container engine.
    Linux(LinuxProvider),
    /// Containers of a Docker engine, here or elsewhere.
    Docker(DockerProvider),
    /// The same containers, made by `docker compose` from a project that bivouac writes.
    Compose(DockerProvider),
}

/// Settings of the `linux` provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxProvider {}

/// Settings of the `docker` and `compose` providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerProvider {
    /// The context of the `docker` command whose engine is used. The one of the environment (`DOCKER_HOST`, `DOCKER_CONTEXT`), or
    /// the current one, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// What runs on the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stack {
    /// Kubernetes from its upstream programs.
    Kubernetes(Kubernetes),
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

/// A group of nodes of the same kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeGroup {
    /// What the nodes do.
    pub role: Role,
    /// The nodes are called `NAME-0`, `NAME-1`, …; the role when absent. Groups of one name go on counting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How many nodes.
    #[serde(default = "NodeGroup::default_count")]
    #[schemars(range(max = super::NODES_MAX))]
    pub count: u32,
    /// Zones, dealt out in turn; a node gets the label `topology.kubernetes.io/zone`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub zones: Vec<String>,
    /// Labels of each node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints of each node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
    /// Limits of each node; all of the ground when absent.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// What a node does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Holds the cluster's state and decides. Runs pods too where there is no worker.
    ControlPlane,
    /// Runs pods.
    Worker,
}

/// Keeps pods away from a node unless they tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Taint {
    /// The key.
    pub key: String,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What happens to pods that do not tolerate it.
    pub effect: TaintEffect,
}

/// What happens to pods that do not tolerate a taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// They are not placed there.
    NoSchedule,
    /// They are placed there only when nothing else is free.
    PreferNoSchedule,
    /// They are not placed there, and those that run there are removed.
    NoExecute,
}

/// Limits of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
}

/// The networks of a cluster. Absent ones are chosen free.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The network between the nodes, such as `10.89.0.0/24`.
    #[serde(default, rename = "nodeCIDR", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Cidr>")]
    pub node_cidr: Option<IpNet>,
    /// The networks of pods; each node gets a /24 of it.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Cidr>")]
    pub pod_cidr: Vec<IpNet>,
    /// The networks of Services.
    #[serde(default, rename = "serviceCIDR", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Cidr>")]
    pub service_cidr: Vec<IpNet>,
    /// How pods of different nodes reach each other.
    #[serde(default)]
    pub cni: Cni,
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cni {
    /// The ground routes each node's pod network to the node. The fastest.
    #[default]
    Bridge,
    /// An overlay (VXLAN) that flannel keeps: works wherever nodes reach each other.
    Flannel,
    /// None: you install your own, and nodes are not Ready before.
    None,
}

/// A port of a node that is reached at the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The port on the host.
    #[schemars(range(min = 1, max = 65535))]
    pub host_port: u16,
    /// The port of the node: 6443 is the API, 30000 to 32767 are those of Services of type NodePort.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The node; the first control plane when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The address of the host. Only the host itself reaches 127.0.0.1, the default; everybody reaches 0.0.0.0.
    #[serde(default = "Port::default_host_ip", rename = "hostIP")]
    #[schemars(with = "HostIp")]
    pub host_ip: IpAddr,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A protocol of a [`Port`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

impl Port {
    const fn default_host_ip() -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

impl Protocol {
    /// The word for it in lower case: `tcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An IP address, for the JSON schema only.
struct HostIp;

impl JsonSchema for HostIp {
    fn schema_name() -> Cow<'static, str> {
        "HostIp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "An IP address of the host.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+$",
            "examples": ["127.0.0.1"],
        })
    }
}

/// An IP network, for the JSON schema only.
struct Cidr;

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "An IP network: an address, a slash and the length of the prefix.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$",
            "examples": ["10.244.0.0/16"],
        })
    }
}

/// One node that a cluster file asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Its zone.
    pub zone: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// Its limits.
    pub resources: Resources,
}

impl Kubernetes {
    /// The version that the node image of this release holds.
    pub const VERSION: &str = "v1.36.3";

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

impl Default for Provider {
    fn default() -> Self {
        Self::Linux(LinuxProvider::default())
    }
}

impl Provider {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Linux(_) => "linux",
            Self::Docker(_) => "docker",
            Self::Compose(_) => "compose",
        }
    }
}

impl Default for Stack {
    fn default() -> Self {
        Self::Kubernetes(Kubernetes::default())
    }
}

impl Default for Spec {
    fn default() -> Self {
        let (provider, stack, network) =
            (Provider::default(), Stack::default(), Network::default());
        Self { provider, stack, nodes: NodeGroup::single(), network, ports: Vec::new() }
    }
}

impl NodeGroup {
    const fn default_count() -> u32 {
        1
    }

    /// One control plane.
    fn single() -> Vec<Self> {
        vec![Self::new(Role::ControlPlane, 1)]
    }

    /// So many nodes of a role.
    #[must_use]
    pub fn new(role: Role, count: u32) -> Self {
        Self {
            role,
            name: None,
            count,
            zones: Vec::new(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            resources: Resources::default(),
        }
    }

    /// What the nodes' names start with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.role.name())
    }
}

impl Role {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Worker => "worker",
        }
    }
}

impl Resources {
    /// Whether nothing is limited.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cpus.is_none() && self.memory.is_none()
    }
}

impl Cluster {
    /// A cluster with all defaults: one control plane.
    #[must_use]
    pub fn named(name: ClusterName) -> Self {
        let (api_version, kind) = (ApiVersion::default(), Kind::default());
        Self { api_version, kind, metadata: Metadata { name }, spec: Spec::default() }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ClusterName {
        &self.metadata.name
    }

    /// Every node that it asks for, in the order of the file. Groups whose names do not fit are left out, so validate first.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeSpec> {
        let mut counters: BTreeMap<&str, u32> = BTreeMap::new();
        let mut nodes = Vec::new();
        for group in &self.spec.nodes {
            for position in 0..group.count as usize {
                let counter = counters.entry(group.prefix()).or_default();
                let name = NodeName::indexed(group.prefix(), *counter);
                *counter += 1;
                let Ok(name) = name else { continue };
                let zone = (!group.zones.is_empty())
                    .then(|| group.zones[position % group.zones.len()].clone());
                let (labels, taints) = (group.labels.clone(), group.taints.clone());
                nodes.push(NodeSpec {
                    name,
                    role: group.role,
                    zone,
                    labels,
                    taints,
                    resources: group.resources,
                });
            }
        }
        nodes
    }
}
