//! Values that tests share.

use bivouac_spec::Addresses;
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};

/// A cluster `worker-0`, `worker-1`, …
pub(crate) fn addresses(count: u8) -> Addresses {
    let node = |index: u8| {
        let address = format!("10.89.7.{}", index + 2).parse().unwrap();
        let pods = format!("10.244.{index}.0/24").parse().unwrap();
        let name = format!("worker-{index}").parse().unwrap();
        (name, NodeAddresses { addresses: Families::single(address), pod_networks: vec![pods] })
    };
    Addresses {
        node_networks: Families::single(NodeNetwork {
            network: "10.89.7.0/24".parse().unwrap(),
            gateway: "10.89.7.1".parse().unwrap(),
        }),
        pod_networks: vec!["10.244.0.0/16".parse().unwrap()],
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        nodes: (0..count).map(node).collect(),
    }
}

/// The same with IPv6 as the other family.
pub(crate) fn dual_stack(count: u8) -> Addresses {
    let mut addresses = addresses(count);
    addresses.node_networks.secondary = Some(NodeNetwork {
        network: "fd00:89::/64".parse().unwrap(),
        gateway: "fd00:89::1".parse().unwrap(),
    });
    addresses.pod_networks.push("fd00:244::/56".parse().unwrap());
    addresses.service_networks.push("fd00:96::/112".parse().unwrap());
    for (index, node) in (0..).zip(addresses.nodes.values_mut()) {
        let index: u8 = index;
        node.addresses.secondary = Some(format!("fd00:89::{:x}", index + 2).parse().unwrap());
        node.pod_networks.push(format!("fd00:244:0:{index:x}::/64").parse().unwrap());
    }
    addresses
}

/// The same with IPv6 alone.
pub(crate) fn ipv6(count: u8) -> Addresses {
    let mut addresses = dual_stack(count);
    let second = |networks: &mut Vec<ipnet::IpNet>| {
        networks.remove(0);
    };
    addresses.node_networks = Families::single(addresses.node_networks.secondary.unwrap());
    second(&mut addresses.pod_networks);
    second(&mut addresses.service_networks);
    for node in addresses.nodes.values_mut() {
        node.addresses = Families::single(node.addresses.secondary.unwrap());
        second(&mut node.pod_networks);
    }
    addresses
}
