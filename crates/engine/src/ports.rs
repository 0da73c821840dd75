//! What a ground is told of a cluster besides its nodes: addresses, and the ports that it publishes.

use bivouac_spec::cluster::{Cni, Protocol};
use bivouac_spec::{Addresses, Cluster, Facts, NodeName, Problem, PublishedPort};

/// Where the API of a cluster is served.
#[derive(Debug, Clone, Copy)]
pub struct Api<'a> {
    /// The node.
    pub node: &'a NodeName,
    /// Its port.
    pub port: u16,
}

impl Api<'_> {
    fn is_at(&self, port: &PublishedPort) -> bool {
        port.node == *self.node && port.port == self.port && port.protocol == Protocol::Tcp
    }
}

/// Refuses a cluster whose API would be published where nobody here reaches it: on a loopback address of another machine.
pub(crate) fn check_reachable(
    cluster: &Cluster,
    api: Api<'_>,
    facts: &Facts,
) -> Result<(), Problem> {
    if !facts.remote || facts.reaches_nodes {
        return Ok(());
    }
    let ports = published_ports(cluster, api, facts.reaches_nodes);
    let own = || ports.iter().filter(|port| api.is_at(port));
    let is_hidden = |port: &PublishedPort| port.host_ip.is_some_and(|ip| ip.is_loopback());
    match own().next().filter(|_| own().all(is_hidden)) {
        None => Ok(()),
        Some(port) => {
            let ip = port.host_ip.map_or_else(String::new, |ip| ip.to_string());
            let message = format!(
                "port {} of node `{}`, the API of cluster `{}`, would be published on {ip} of another machine, where it is not reached from here",
                port.port,
                port.node,
                cluster.name()
            );
            Err(Problem::usage("engine.unreachable_port", message).help(
                "write `hostIP: 0.0.0.0` for that port in `spec.ports`, or leave the port out",
            ))
        }
    }
}

/// The addresses as the ground sees them: where the cluster routes pods itself, the ground has no networks of pods to route.
#[must_use]
pub fn addresses_of_ground(cluster: &Cluster, addresses: &Addresses) -> Addresses {
    let mut addresses = addresses.clone();
    if cluster.spec.network.cni != Cni::Bridge {
        addresses.pod_networks.clear();
        addresses.nodes.values_mut().for_each(|node| node.pod_networks.clear());
    }
    addresses
}

/// The ports that the cluster file asks for, and that of the API where nodes can be reached in no other way.
#[must_use]
pub fn published_ports(cluster: &Cluster, api: Api<'_>, reaches_nodes: bool) -> Vec<PublishedPort> {
    let asked_for = cluster.spec.ports.iter().map(|port| PublishedPort {
        node: cluster.node_of(port).unwrap_or_else(|| api.node.clone()),
        port: port.port,
        protocol: port.protocol,
        host_ip: Some(port.host_ip),
        host_port: Some(port.host_port),
    });
    let mut ports: Vec<PublishedPort> = asked_for.collect();
    if !reaches_nodes && !ports.iter().any(|port| api.is_at(port)) {
        ports.push(PublishedPort {
            node: api.node.clone(),
            port: api.port,
            protocol: Protocol::Tcp,
            host_ip: None,
            host_port: None,
        });
    }
    ports
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bivouac_plan::assign_addresses;
    use bivouac_spec::cluster::{NodeGroup, Port, Role};

    use super::*;

    fn cluster(ports: &[(u16, u16, Protocol)]) -> Cluster {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, 1));
        let port = |&(host_port, port, protocol)| {
            let host_ip = "127.0.0.1".parse().unwrap();
            Port { host_port, port, node: None, host_ip, protocol }
        };
        cluster.spec.ports = ports.iter().map(port).collect();
        cluster
    }

    /// `NODE:PORT PROTOCOL HOST_PORT` of each port.
    fn published(cluster: &Cluster, reaches_nodes: bool) -> Vec<String> {
        let node = "control-plane-0".parse().unwrap();
        let ports = published_ports(cluster, Api { node: &node, port: 6443 }, reaches_nodes);
        let text = |port: &PublishedPort| {
            let host = port.host_port.map_or_else(|| "any".to_owned(), |port| port.to_string());
            format!("{}:{} {} {host}", port.node, port.port, port.protocol.name())
        };
        ports.iter().map(text).collect()
    }

    #[test]
    fn the_api_is_published_only_where_nodes_cannot_be_reached() {
        let cluster = cluster(&[]);
        assert_eq!(published(&cluster, true), [""; 0]);
        assert_eq!(published(&cluster, false), ["control-plane-0:6443 tcp any"]);
    }

    #[test]
    fn an_api_that_the_file_publishes_is_not_published_twice() {
        let asked = cluster(&[(36_443, 6443, Protocol::Tcp)]);
        assert_eq!(published(&asked, false), ["control-plane-0:6443 tcp 36443"]);
        assert_eq!(published(&asked, true), ["control-plane-0:6443 tcp 36443"]);
    }

    #[test]
    fn another_protocol_or_node_is_not_the_api() {
        let mut asked = cluster(&[(1000, 6443, Protocol::Udp), (1001, 6443, Protocol::Tcp)]);
        asked.spec.ports[1].node = Some("worker-0".parse().unwrap());
        let expected = [
            "control-plane-0:6443 udp 1000",
            "worker-0:6443 tcp 1001",
            "control-plane-0:6443 tcp any",
        ];
        assert_eq!(published(&asked, false), expected);
    }

    #[test]
    fn the_ground_routes_pods_only_where_nothing_else_does() {
        let mut cluster = cluster(&[]);
        let addresses = assign_addresses(&cluster, &BTreeMap::new(), None).unwrap();
        assert_eq!(addresses_of_ground(&cluster, &addresses), addresses);
        for cni in [Cni::Flannel, Cni::None] {
            cluster.spec.network.cni = cni;
            let seen = addresses_of_ground(&cluster, &addresses);
            assert!(seen.pod_networks.is_empty());
            assert!(seen.nodes.values().all(|node| node.pod_networks.is_empty()));
            assert_eq!(seen.node_networks, addresses.node_networks);
        }
    }
}
