//! The addresses that bivouac assigns. They never change while a cluster exists.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::NodeName;
use crate::cluster::Protocol;
use crate::range::AddressRange;

/// More addresses for Services would help nobody.
const MOST_SERVICE_ADDRESSES: u32 = 256;
/// Of a larger network only the beginning counts, so that addresses stay short.
const COUNTED_BITS: u8 = 16;

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

impl NodeNetwork {
    /// The addresses that no node gets, because Services do: the upper eighth of the network, or of its first 65,536 addresses. None in
    /// networks that are too small for that.
    #[must_use]
    pub fn service_addresses(&self) -> Option<AddressRange> {
        let bits = (self.network.max_prefix_len() - self.network.prefix_len()).min(COUNTED_BITS);
        let (end, share) = (1_u32 << bits, (1_u32 << bits) / 8);
        // The last address is that of everybody in an IPv4 network.
        let first = end - share.min(MOST_SERVICE_ADDRESSES);
        let at = |n: u32| AddressRange::nth(&self.network, n);
        (share > 1).then(|| AddressRange::new(at(first), at(end - 2)))
    }

    /// The part of the network that others may give away: its lower half, away from what Services get. Absent where Services get nothing.
    #[must_use]
    pub fn lower_half(&self) -> Option<IpNet> {
        self.service_addresses()?;
        let longest = self.network.max_prefix_len() - COUNTED_BITS;
        let prefix = self.network.prefix_len().max(longest) + 1;
        IpNet::new(self.network.network(), prefix).ok()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_have_the_upper_part_of_a_network() {
        let of = |text: &str| {
            let network: IpNet = text.parse().unwrap();
            let own = NodeNetwork { network, gateway: network.addr() };
            own.service_addresses().map(|range| range.to_string())
        };
        assert_eq!(of("10.89.0.0/24").unwrap(), "10.89.0.224-10.89.0.254");
        assert_eq!(of("10.89.0.0/16").unwrap(), "10.89.255.0-10.89.255.254");
        assert_eq!(of("10.0.0.0/8").unwrap(), "10.0.255.0-10.0.255.254");
        assert_eq!(of("10.89.0.32/28").unwrap(), "10.89.0.46-10.89.0.46");
        assert_eq!(of("fd00:89::/64").unwrap(), "fd00:89::ff00-fd00:89::fffe");
        assert_eq!((of("10.89.0.0/29"), of("10.89.0.1/32")), (None, None));
        let lower = |text: &str| {
            let network: IpNet = text.parse().unwrap();
            let own = NodeNetwork { network, gateway: network.addr() };
            own.lower_half().map(|half| half.to_string())
        };
        assert_eq!(lower("10.89.0.0/24").unwrap(), "10.89.0.0/25");
        assert_eq!(lower("10.0.0.0/8").unwrap(), "10.0.0.0/17");
        assert_eq!(lower("fd00:89::/64").unwrap(), "fd00:89::/113");
        assert_eq!(lower("10.89.0.0/29"), None);
    }
}
