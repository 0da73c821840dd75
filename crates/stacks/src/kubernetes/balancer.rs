//! Balancers: how the API is found where there are several control planes. One is a node, for those outside of the cluster; the others are
//! a service of each node, so that its clients go on while any control plane answers. They follow `/readyz`, which the API server answers
//! to everybody.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::{Check, Condition, File, Probe, Service, paths};
use bivouac_spec::{NodeConfig, NodeName};

use super::command::{Command, after};
use super::conditions::condition;
use super::layout::{API_PORT, Layout, Member};
use super::probes::{anonymous, http, loopback};
use super::{places, tuning};

/// The service.
pub(super) const BALANCER: &str = "balancer";

/// Where a node's own balancer listens. Not at the API's port, because the API server of a control plane listens at every address. IPv4
/// also where nodes have no such address: the loopback always has one.
pub(super) const OF_A_NODE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);

/// The config of the node that is a balancer and nothing else.
pub(super) fn node_config(layout: &Layout<'_>, name: &NodeName, files: Vec<File>) -> NodeConfig {
    let listen = if layout.has(false) {
        SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), API_PORT)
    } else {
        SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), API_PORT)
    };
    NodeConfig {
        format: FORMAT,
        cluster: layout.cluster.clone(),
        node: name.clone(),
        modules: Vec::new(),
        sysctls: Vec::new(),
        mounts: Vec::new(),
        files,
        services: vec![service(layout, listen, loopback(API_PORT), None)],
        tasks: Vec::new(),
        conditions: vec![answers()],
    }
}

fn answers() -> Condition {
    let question = http(format!("https://{}/readyz", loopback(API_PORT)), Some(anonymous()));
    condition("a control plane answers", &[BALANCER], question.every(tuning::CLUSTER_PROBE))
}

/// The balancer that a node has for itself, where one is needed.
pub(super) fn of_a_node(layout: &Layout<'_>, member: &Member) -> Option<Service> {
    let own = member.is_control_plane().then(|| member.server());
    layout.elects().then(|| service(layout, OF_A_NODE, OF_A_NODE, own))
}

/// What those wait for who use it.
pub(super) fn before_clients(layout: &Layout<'_>) -> Vec<String> {
    if layout.elects() { after([BALANCER]) } else { Vec::new() }
}

fn service(
    layout: &Layout<'_>,
    listen: SocketAddr,
    asked: SocketAddr,
    prefer: Option<SocketAddr>,
) -> Service {
    let backends = layout.control_planes().map(|member| ("backend", member.server().to_string()));
    let command = Command::at(paths::AGENT)
        .word("agent")
        .word("balance")
        .flag("listen", listen)
        .flags(backends)
        .flags(prefer.map(|own| ("prefer", own.to_string())))
        .flag("check-path", "/readyz")
        .flag("authority", places::AUTHORITY);
    let listens = Probe::new(Check::Tcp(asked)).every(tuning::PROBE);
    let mut service = command.service(layout, BALANCER, listens);
    service.oom_score = Some(-999);
    service
}
