//! The addresses that bivouac assigns. They never change while a cluster exists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::NodeName;
use crate::cluster::Protocol;

/// One value for each IP family that a cluster has: of the one that is preferred, and of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<T>", into = "Vec<T>")]
#[serde(bound(serialize = "T: Clone + Serialize"))]
pub struct Families<T> {
    /// That of the family that is preferred.
    pub primary: T,
    /// That of the other family, in a cluster of two.
    pub secondary: Option<T>,
}

impl<T> Families<T> {
    /// Of a cluster of one family.
    pub const fn single(primary: T) -> Self {
        Self { primary, secondary: None }
    }

    /// Both, the preferred one first.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        std::iter::once(&self.primary).chain(&self.secondary)
    }
}

impl<T> TryFrom<Vec<T>> for Families<T> {
    type Error = String;

    fn try_from(values: Vec<T>) -> Result<Self, Self::Error> {
        let count = values.len();
        let mut values = values.into_iter();
        match (values.next(), values.next(), values.next()) {
            (Some(primary), secondary, None) => Ok(Self { primary, secondary }),
            _ => Err(format!("one value or two are expected, not {count}")),
        }
    }
}

impl<T> From<Families<T>> for Vec<T> {
    fn from(families: Families<T>) -> Self {
        std::iter::once(families.primary).chain(families.secondary).collect()
    }
}

/// All addresses of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Addresses {
    /// The networks between the nodes.
    pub node_networks: Families<NodeNetwork>,
    /// The networks that all pods are in, one for each IP family.
    pub pod_networks: Vec<IpNet>,
    /// The networks of Services, one for each IP family.
    pub service_networks: Vec<IpNet>,
    /// Each node's share.
    pub nodes: BTreeMap<NodeName, NodeAddresses>,
}

/// A network between the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetwork {
    /// The network.
    pub network: IpNet,
    /// The ground's own address on that network: the nodes' default gateway.
    pub gateway: IpAddr,
}

/// The addresses of one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeAddresses {
    /// The node's own addresses, one on each of [`Addresses::node_networks`].
    pub addresses: Families<IpAddr>,
    /// The networks of the pods on it, one for each of [`Addresses::pod_networks`].
    pub pod_networks: Vec<IpNet>,
}

impl Addresses {
    /// The network between the nodes, of the family that is preferred.
    #[must_use]
    pub const fn primary(&self) -> &NodeNetwork {
        &self.node_networks.primary
    }

    /// The networks of nodes and of pods: what a ground may use for nothing else.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        let nodes = self.node_networks.iter().map(|own| own.network);
        nodes.chain(self.pod_networks.iter().copied())
    }

    /// An identity of what each node must know of the others, `sha256:HEX`: their names, addresses and networks of pods.
    #[must_use]
    pub fn neighbours(&self) -> String {
        let json = serde_json::to_vec(&self.nodes).expect("addresses have string keys only");
        format!("sha256:{}", hex::encode(Sha256::digest(json)))
    }
}

impl NodeAddresses {
    /// The node's address of the family that is preferred. The node is known by it.
    #[must_use]
    pub const fn primary(&self) -> IpAddr {
        self.addresses.primary
    }
}

/// A port of a node that is reached at the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedPort {
    /// The node.
    pub node: NodeName,
    /// The port of the node.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The address of the host. When absent, one at which the port can be reached from here.
    pub host_ip: Option<IpAddr>,
    /// The port on the host. When absent, the ground chooses one that is free; it stays while the node exists.
    pub host_port: Option<u16>,
}
