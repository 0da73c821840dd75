//! Values that tests share.

use bivouac_provider::{ImagePaths, NodeRequest};
use bivouac_spec::cluster::{Protocol, Resources};
use bivouac_spec::network::NodeNetwork;
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::quantity::{Bytes, Cpus};
use bivouac_spec::{Addresses, NodeConfig, PublishedPort};

/// `worker-0` of three nodes of `demo`.
pub(super) fn node() -> NodeRequest {
    let (cluster, node) = ("demo".parse().unwrap(), "worker-0".parse().unwrap());
    NodeRequest {
        config: NodeConfig {
            format: FORMAT,
            cluster,
            node,
            modules: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            tasks: Vec::new(),
            conditions: Vec::new(),
        },
        cluster: "demo".parse().unwrap(),
        node: "worker-0".parse().unwrap(),
        addresses: crate::samples::addresses(3),
        ports: vec![port(6443)],
        resources: Resources { cpus: Some(Cpus(1500)), memory: Some(Bytes(1 << 30)), disk: None },
        image: ImagePaths {
            key: "key".to_owned(),
            digest: "sha256:0".to_owned(),
            layout: "/store/layout".into(),
            layers: Vec::new(),
            rootfs: "/store/rootfs".into(),
            shared_images: "/store/images".into(),
            shared_cache: "/store/cache".into(),
        },
        agent: "/usr/bin/bivouac".into(),
    }
}

/// The addresses of so many nodes, each with one of IPv6 too.
pub(super) fn dual_stack(count: u8) -> Addresses {
    let mut addresses = crate::samples::addresses(count);
    addresses.node_networks.secondary = Some(NodeNetwork {
        network: "fd00:89::/64".parse().unwrap(),
        gateway: "fd00:89::1".parse().unwrap(),
    });
    addresses.pod_networks.push("fd00:244::/56".parse().unwrap());
    for (index, node) in (0..).zip(addresses.nodes.values_mut()) {
        node.addresses.secondary = Some(format!("fd00:89::{}", index + 2).parse().unwrap());
        node.pod_networks.push(format!("fd00:244:0:{index}::/64").parse().unwrap());
    }
    addresses
}

/// A TCP port of it for which any port of the host will do.
pub(super) fn port(port: u16) -> PublishedPort {
    let node = "worker-0".parse().unwrap();
    PublishedPort { node, port, protocol: Protocol::Tcp, host_ip: None, host_port: None }
}
