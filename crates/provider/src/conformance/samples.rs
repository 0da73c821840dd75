//! A ground for the in-memory provider.

use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::{Addresses, NodeConfig};

use super::Ground;
use crate::{ImagePaths, NetworkRequest, NodeRequest};

/// Two nodes of a cluster.
pub(crate) fn ground(cluster: &str) -> Ground {
    let names = ["node-0", "node-1"];
    let addresses = Addresses {
        node_networks: Families::single(NodeNetwork {
            network: "10.89.0.0/24".parse().unwrap(),
            gateway: "10.89.0.1".parse().unwrap(),
        }),
        pod_networks: vec!["10.244.0.0/16".parse().unwrap()],
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        nodes: (2..)
            .zip(names)
            .map(|(index, name)| {
                let address = format!("10.89.0.{index}").parse().unwrap();
                let pods = format!("10.244.{index}.0/24").parse().unwrap();
                (
                    name.parse().unwrap(),
                    NodeAddresses {
                        addresses: Families::single(address),
                        pod_networks: vec![pods],
                    },
                )
            })
            .collect(),
    };
    let node = |name: &str| NodeRequest {
        cluster: cluster.parse().unwrap(),
        node: name.parse().unwrap(),
        addresses: addresses.clone(),
        ports: Vec::new(),
        resources: bivouac_spec::cluster::Resources::default(),
        image: ImagePaths {
            key: "key".into(),
            digest: "sha256:0".into(),
            layout: "/store/layout".into(),
            layers: Vec::new(),
            rootfs: "/store/rootfs".into(),
            shared_images: "/store/images".into(),
            shared_cache: "/store/cache".into(),
        },
        agent: "/usr/bin/bivouac".into(),
        config: NodeConfig {
            format: FORMAT,
            cluster: cluster.parse().unwrap(),
            node: name.parse().unwrap(),
            modules: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            tasks: Vec::new(),
            conditions: Vec::new(),
        },
    };
    Ground {
        network: NetworkRequest {
            cluster: cluster.parse().unwrap(),
            addresses: addresses.clone(),
            ports: Vec::new(),
        },
        nodes: names.map(node).into(),
    }
}
