//! Ports that are published on the host, against each other and against the nodes. Whether the host has them free is not known
//! here.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Finding;
use crate::NodeName;
use crate::cluster::path::{field, item};
use crate::cluster::{Cluster, Port};
use crate::name::nearest;

const PORTS: &str = "spec.ports";

pub(super) fn check(cluster: &Cluster, findings: &mut Vec<Finding>) {
    let ports = &cluster.spec.ports;
    let nodes: BTreeSet<NodeName> = cluster.nodes().into_iter().map(|node| node.name).collect();
    for (index, port) in ports.iter().enumerate() {
        let path = item(PORTS, index);
        for (name, number) in [("hostPort", port.host_port), ("port", port.port)] {
            if number == 0 {
                // In a file this was refused with its place; clusters that were made in code come here.
                let message = "it must be a whole number from 1 to 65535, but is 0";
                let finding = Finding::new(&field(&path, name), "spec.out_of_range", message);
                findings.push(finding.help("Write a whole number from 1 to 65535."));
            }
        }
        if let Some(node) = &port.node {
            check_node(node, &nodes, &field(&path, "node"), findings);
        }
        let first = ports[..index].iter().position(|other| clash(other, port));
        if let Some(first) = first {
            check_pair((first, &ports[first]), (index, port), findings);
        }
    }
}

fn check_node(
    node: &NodeName,
    nodes: &BTreeSet<NodeName>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    if nodes.contains(node) {
        return;
    }
    let help = match nearest(node.as_str(), nodes.iter().map(NodeName::as_str)) {
        Some(near) => format!("Write `{near}`."),
        None => "Write the name of a node, or remove the field for the first control plane.".into(),
    };
    let message = format!("the cluster has no node `{node}`");
    findings.push(Finding::new(path, "spec.unknown_node", message).scope("spec.nodes").help(help));
}

fn check_pair(
    (first, one): (usize, &Port),
    (second, other): (usize, &Port),
    findings: &mut Vec<Finding>,
) {
    let (first, second) = (item(PORTS, first), item(PORTS, second));
    let port = format!("{} port {}", other.protocol.name().to_uppercase(), other.host_port);
    let (ip, other_ip) = (one.host_ip, other.host_ip);
    let message = if ip == other_ip {
        format!("{port} of {ip} is published by `{first}` already")
    } else if ip.is_unspecified() {
        format!("{port} of {other_ip} is published by `{first}` already: {ip} is every address")
    } else {
        format!("{other_ip} is every address, but {port} of {ip} is published by `{first}` already")
    };
    let finding = Finding::new(&field(&second, "hostPort"), "spec.duplicate_host_port", message);
    let finding = finding.scope(&first).scope(&second);
    findings.push(finding.help("Choose another `hostPort` for one of the two."));
}

/// Whether one socket could not have both.
fn clash(one: &Port, other: &Port) -> bool {
    let all = |ip: IpAddr| ip.is_unspecified();
    one.host_port == other.host_port
        && one.protocol == other.protocol
        && one.host_ip.is_ipv4() == other.host_ip.is_ipv4()
        && (one.host_ip == other.host_ip || all(one.host_ip) || all(other.host_ip))
}
