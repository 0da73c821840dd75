//! What things of ours are called in the kernel, so that each is found again by looking. Pure.

use std::net::IpAddr;

use bivouac_spec::{ClusterName, NodeName};
use sha2::{Digest, Sha256};

/// The protocol number of our routes (`/etc/iproute2/rt_protos` has no such entry).
pub(super) const ROUTE_PROTOCOL: u8 = 137;

/// The family of our nftables tables.
pub(super) const TABLE_FAMILY: &str = "inet";

/// The name of a node's interface inside of it.
pub(super) const NODE_INTERFACE: &str = "eth0";

/// The control group that all others of ours are in.
pub(super) const CGROUP: &str = "bivouac";

const TABLE_PREFIX: &str = "bivouac-";
const ALIAS_PREFIX: &str = "bivouac:";

/// Whose a link is, as its alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// The bridge of a cluster.
    Cluster(ClusterName),
    /// The host's end of a node's link, and the address at the other end.
    Node(ClusterName, NodeName, IpAddr),
}

impl Owner {
    /// The alias that says so.
    pub(super) fn alias(&self) -> String {
        match self {
            Self::Cluster(cluster) => format!("{ALIAS_PREFIX}{cluster}"),
            Self::Node(cluster, node, address) => {
                format!("{ALIAS_PREFIX}{cluster}/{node}@{address}")
            }
        }
    }

    /// Reads an alias; `None` when it is not one of ours.
    pub(super) fn parse(alias: &str) -> Option<Self> {
        let name = alias.strip_prefix(ALIAS_PREFIX)?;
        let Some((cluster, rest)) = name.split_once('/') else {
            return Some(Self::Cluster(name.parse().ok()?));
        };
        let (node, address) = rest.split_once('@')?;
        Some(Self::Node(cluster.parse().ok()?, node.parse().ok()?, address.parse().ok()?))
    }
}

/// The bridge of a cluster: 11 characters of the 15 that the kernel takes.
pub(super) fn bridge(cluster: &ClusterName) -> String {
    format!("bv-{}", hex::encode(&digest(cluster.as_str())[..4]))
}

/// The host's end of a node's link: 14 characters.
pub(super) fn host_link(cluster: &ClusterName, node: &NodeName) -> String {
    format!("bv{}", hex::encode(&digest(&format!("{cluster}/{node}"))[..6]))
}

/// A hardware address that stays the same: unicast, locally administered.
pub(super) fn mac(of: &str) -> [u8; 6] {
    let digest = digest(of);
    [0x02, 0xb1, digest[0], digest[1], digest[2], digest[3]]
}

/// The nftables table of a cluster.
pub(super) fn table(cluster: &ClusterName) -> String {
    format!("{TABLE_PREFIX}{cluster}")
}

/// The cluster of an nftables table.
pub(super) fn cluster_of_table(family: &str, table: &str) -> Option<ClusterName> {
    let name = table.strip_prefix(TABLE_PREFIX).filter(|_| family == TABLE_FAMILY)?;
    name.parse().ok()
}

/// The control group of a node, below the one of whoever makes it.
pub(super) fn node_cgroup(cluster: &ClusterName, node: &NodeName) -> String {
    format!("{CGROUP}/{cluster}/{node}")
}

/// What `ps` shows beside a node's first process.
pub(super) fn label(cluster: &ClusterName, node: &NodeName) -> String {
    format!("{cluster}/{node}")
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?";

    proptest! {
        #[test]
        fn names_fit_and_never_clash(one in NAME, other in NAME, node in NAME, peer in NAME) {
            let (a, b): (ClusterName, ClusterName) = (one.parse().unwrap(), other.parse().unwrap());
            let (n, m): (NodeName, NodeName) = (node.parse().unwrap(), peer.parse().unwrap());
            prop_assert!(bridge(&a).len() <= 15 && host_link(&a, &n).len() <= 15);
            prop_assert_ne!(bridge(&a), host_link(&a, &n));
            prop_assert_eq!(a == b, bridge(&a) == bridge(&b));
            prop_assert_eq!(a == b, table(&a) == table(&b));
            prop_assert_eq!((&a, &n) == (&b, &m), host_link(&a, &n) == host_link(&b, &m));
            prop_assert_eq!((&a, &n) == (&b, &m), node_cgroup(&a, &n) == node_cgroup(&b, &m));
        }

        #[test]
        fn labels_read_back(cluster in NAME, node in NAME, number: u32, v6: bool) {
            let cluster: ClusterName = cluster.parse().unwrap();
            let address = if v6 {
                std::net::Ipv6Addr::from(u128::from(number)).into()
            } else {
                IpAddr::from(number.to_be_bytes())
            };
            for owner in [
                Owner::Cluster(cluster.clone()),
                Owner::Node(cluster.clone(), node.parse().unwrap(), address),
            ] {
                prop_assert!(owner.alias().len() < 256);
                prop_assert_eq!(Owner::parse(&owner.alias()), Some(owner));
            }
            prop_assert_eq!(cluster_of_table("inet", &table(&cluster)), Some(cluster.clone()));
            prop_assert_eq!(cluster_of_table("ip", &table(&cluster)), None);
        }
    }

    #[test]
    fn labels_of_others_are_not_ours() {
        for alias in ["", "docker", "bivouac:", "bivouac:Up", "bivouac:a/b", "bivouac:a/b@x"] {
            assert_eq!(Owner::parse(alias), None, "{alias}");
        }
    }
}
