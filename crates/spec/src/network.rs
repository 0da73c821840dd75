//! The addresses that bivouac assigns. They never change while a cluster exists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::NodeName;

/// All addresses of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The network between the nodes.
    pub node_network: IpNet,
    /// The ground's own address on that network: the nodes' default gateway.
    pub gateway: IpAddr,
    /// The networks that all pods are in, one for each IP family.
    pub pod_networks: Vec<IpNet>,
    /// The networks of Services.
    pub service_networks: Vec<IpNet>,
    /// Each node's share.
    pub nodes: BTreeMap<NodeName, NodeAddresses>,
}

/// The addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// The node's own address.
    pub address: IpAddr,
    /// The networks of the pods on it, one for each of [`Addresses::pod_networks`].
    pub pod_networks: Vec<IpNet>,
}
