//! The cluster file as a whole. The documentation of its types is what editors show (through the JSON schema).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Network, NodeGroup, NodeSpec, Port, Provider, Role, Stack};
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
    /// The nodes, in groups of the same kind. When absent, one control plane, or one member of Incus.
    #[serde(default = "NodeGroup::single")]
    pub nodes: Vec<NodeGroup>,
    /// The networks.
    #[serde(default)]
    pub network: Network,
    /// Ports of nodes that are reached at the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
}

impl Default for Spec {
    fn default() -> Self {
        let (provider, stack, network) =
            (Provider::default(), Stack::default(), Network::default());
        Self { provider, stack, nodes: NodeGroup::single(), network, ports: Vec::new() }
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

    /// How many control planes it asks for.
    #[must_use]
    pub fn control_planes(&self) -> u64 {
        let groups = self.spec.nodes.iter().filter(|group| group.role == Role::ControlPlane);
        groups.map(|group| u64::from(group.count)).sum()
    }

    /// How many nodes it asks for that keep its state: control planes, or members.
    #[must_use]
    pub fn state_keepers(&self) -> u64 {
        let groups = self.spec.nodes.iter().filter(|group| group.role.keeps_state());
        groups.map(|group| u64::from(group.count)).sum()
    }

    /// The node whose port is published: the one that the port names; the balancer for the API; the first control plane or member.
    #[must_use]
    pub fn node_of(&self, port: &Port) -> Option<NodeName> {
        let first = |role| self.nodes().into_iter().find(|node| node.role == role);
        if port.node.is_some() {
            return port.node.clone();
        }
        let balancer = first(Role::Balancer).filter(|_| port.port == self.spec.stack.api_port());
        balancer.or_else(|| first(self.spec.stack.roles()[0])).map(|node| node.name)
    }

    /// Every node that it asks for, in the order of the file, and the balancer of several control planes. Groups whose names do
    /// not fit are left out, so validate first.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeSpec> {
        let mut counters: BTreeMap<&str, u32> = BTreeMap::new();
        let mut nodes = Vec::new();
        let groups = self.spec.nodes.iter();
        let skipped: BTreeSet<(&str, u32)> = groups
            .flat_map(|group| group.skip.iter().map(|number| (group.prefix(), *number)))
            .collect();
        for group in &self.spec.nodes {
            let counter = counters.entry(group.prefix()).or_default();
            for _ in 0..group.count {
                while skipped.contains(&(group.prefix(), *counter)) {
                    *counter += 1;
                }
                let number = *counter;
                let name = NodeName::indexed(group.prefix(), number);
                *counter += 1;
                nodes.extend(name.ok().map(|name| group.node(name, number)));
            }
        }
        if matches!(self.spec.stack, Stack::Kubernetes(_)) && self.control_planes() > 1 {
            nodes.push(NodeSpec::balancer());
        }
        nodes
    }
}
