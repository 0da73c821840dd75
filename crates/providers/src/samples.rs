//! Values that tests share.

use bivouac_spec::Addresses;
use bivouac_spec::network::NodeAddresses;

/// A cluster `worker-0`, `worker-1`, …
pub(crate) fn addresses(count: u8) -> Addresses {
    let node = |index: u8| {
        let address = format!("10.89.7.{}", index + 2).parse().unwrap();
        let pods = format!("10.244.{index}.0/24").parse().unwrap();
        let name = format!("worker-{index}").parse().unwrap();
        (name, NodeAddresses { address, pod_networks: vec![pods] })
    };
    Addresses {
        node_network: "10.89.7.0/24".parse().unwrap(),
        gateway: "10.89.7.1".parse().unwrap(),
        pod_networks: vec!["10.244.0.0/16".parse().unwrap()],
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        nodes: (0..count).map(node).collect(),
    }
}
