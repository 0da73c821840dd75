//! What a ground is asked for, to have a cluster on it.

use std::collections::BTreeMap;

use bivouac_provider::{ImagePaths, NetworkRequest, NodeRequest};
use bivouac_spec::cluster::Resources;
use bivouac_spec::{Cluster, Facts, NodeConfig, NodeName, NodeRecord, PublishedPort};
use camino::Utf8Path;

use crate::ports::{Api, addresses_of_ground, published_ports};

/// Everything that a ground is asked for, but for the node image.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) network: NetworkRequest,
    pub(crate) nodes: BTreeMap<NodeName, WantedNode>,
}

/// A node.
#[derive(Debug)]
pub(crate) struct WantedNode {
    pub(crate) resources: Resources,
    pub(crate) ports: Vec<PublishedPort>,
    pub(crate) config: NodeConfig,
}

impl Wanted {
    /// A cluster with these configs.
    pub(crate) fn new(
        cluster: &Cluster,
        addresses: &bivouac_spec::Addresses,
        api: Api<'_>,
        facts: &Facts,
        configs: BTreeMap<NodeName, NodeConfig>,
    ) -> Self {
        let network = NetworkRequest {
            cluster: cluster.name().clone(),
            addresses: addresses_of_ground(cluster, addresses),
            ports: published_ports(cluster, api, facts.reaches_nodes),
        };
        let limits: BTreeMap<NodeName, Resources> =
            cluster.nodes().into_iter().map(|node| (node.name, node.resources)).collect();
        let node = |(name, config): (NodeName, NodeConfig)| {
            let resources = limits.get(&name).copied().unwrap_or_default();
            let ports = network.ports.iter().filter(|port| port.node == name).cloned().collect();
            (name, WantedNode { resources, ports, config })
        };
        let nodes = configs.into_iter().map(node).collect();
        Self { network, nodes }
    }

    /// What each node would be made from, with this node image.
    pub(crate) fn records(&self, image: &str) -> BTreeMap<NodeName, NodeRecord> {
        let addresses = &self.network.addresses;
        let record = |node: &WantedNode| {
            NodeRecord::of(&node.config, image, node.resources, &node.ports, addresses)
        };
        self.nodes.iter().map(|(name, node)| (name.clone(), record(node))).collect()
    }

    /// The request for each node.
    pub(crate) fn requests(
        &self,
        image: &ImagePaths,
        agent: &Utf8Path,
    ) -> BTreeMap<NodeName, NodeRequest> {
        let request = |name: &NodeName, node: &WantedNode| NodeRequest {
            cluster: self.network.cluster.clone(),
            node: name.clone(),
            addresses: self.network.addresses.clone(),
            ports: node.ports.clone(),
            resources: node.resources,
            image: image.clone(),
            agent: agent.to_owned(),
            config: node.config.clone(),
        };
        self.nodes.iter().map(|(name, node)| (name.clone(), request(name, node))).collect()
    }
}
