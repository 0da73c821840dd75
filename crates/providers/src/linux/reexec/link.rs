//! A node's link to the bridge, and its routes.

use std::net::IpAddr;
use std::os::fd::AsFd as _;

use bivouac_spec::network::NodeAddresses;
use bivouac_spec::{Addresses, NodeName, Problem};
use bivouac_sys::namespace::{Namespace, open_own};
use bivouac_sys::netlink::{Peer, Route, RouteEntry, VethRequest};
use ipnet::IpNet;

use super::super::ipv6;
use super::super::names::{self, NODE_INTERFACE, Owner};
use super::super::network::{self, ensure_routes, pod_routes};
use super::super::order::Boot;
use super::super::problem::{OrProblem as _, failed};

/// The host's network, to be opened before the process leaves it.
pub(super) fn open_host() -> Result<Route, Problem> {
    Route::open().or_problem("netlink", "the host's network cannot be asked")
}

/// Connects the network namespace that this process is in. `host` was opened outside of it.
pub(super) fn connect(boot: &Boot, host: &Route) -> Result<(), Problem> {
    let own = own_addresses(&boot.addresses, &boot.node)?;
    let bridge = names::bridge(&boot.cluster);
    let links = host.links().or_problem("netlink", "the host's links cannot be listed")?;
    if !links.iter().any(|link| link.name == bridge) {
        let message = format!("cluster {} has no network: {bridge} is absent", boot.cluster);
        return Err(failed("no_network", message)
            .help(format!("run `bivouac up -c {}` again", boot.cluster)));
    }
    // What leaves the host must fit through its uplink; an answer that says "too big" is lost on many networks.
    let uplinks = super::super::forwarding::uplinks(host, |_| true)?;
    let mtu = links.iter().filter(|link| uplinks.contains(&link.name)).map(|link| link.mtu).min();
    outside(boot, host, own, &bridge, mtu)
        .and_then(|()| inside(boot, own))
        .or_problem("link", format_args!("node {} cannot be connected to {bridge}", boot.node))
}

/// The addresses of a node.
pub(super) fn own_addresses<'a>(
    addresses: &'a Addresses,
    node: &NodeName,
) -> Result<&'a NodeAddresses, Problem> {
    let own = addresses.nodes.get(node);
    own.ok_or_else(|| failed("no_address", format_args!("node {node} has no address")))
}

/// Takes away what would stay on the host when the node's namespaces are gone.
pub(super) fn disconnect(boot: &Boot, host: &Route) {
    let link = names::host_link(&boot.cluster, &boot.node);
    // The failure that led here is what is told; the next start makes the link anew.
    let _ = host.destroy_link(&link);
    if let Some(own) = boot.addresses.nodes.get(&boot.node) {
        for entry in pod_routes(own, &names::bridge(&boot.cluster)) {
            let _ = host.destroy_route(&entry);
        }
    }
}

/// The host's end, and the host's routes to the pods.
fn outside(
    boot: &Boot,
    host: &Route,
    own: &NodeAddresses,
    bridge: &str,
    mtu: Option<u32>,
) -> bivouac_sys::Result<()> {
    let name = names::host_link(&boot.cluster, &boot.node);
    // One of an earlier life stays for a moment after the node's processes are gone.
    host.destroy_link(&name)?;
    let namespace = open_own(Namespace::Network)?;
    let owner = Owner::Node(boot.cluster.clone(), boot.node.clone(), own.primary());
    host.create_veth(VethRequest {
        name: &name,
        peer_name: NODE_INTERFACE,
        peer: Peer::Namespace(namespace.as_fd()),
        alias: &owner.alias(),
        mtu,
    })?;
    host.set_master(&name, bridge)?;
    host.set_up(&name, true)?;
    route_pods(host, own, bridge)
}

/// The host's routes to the pods of a node: those, and no others through the node.
pub(super) fn route_pods(
    host: &Route,
    own: &NodeAddresses,
    bridge: &str,
) -> bivouac_sys::Result<()> {
    let is_own = |one: &RouteEntry| {
        let through = |address: &IpAddr| one.gateway == Some(*address);
        one.interface.as_deref() == Some(bridge) && own.addresses.iter().any(through)
    };
    ensure_routes(host, &pod_routes(own, bridge), is_own)
}

/// The node's end, its ways out, and its routes to the pods of the others.
fn inside(boot: &Boot, own: &NodeAddresses) -> bivouac_sys::Result<()> {
    let has_ipv6 = network::has_ipv6(&boot.addresses);
    let route = Route::open()?;
    for link in ["lo", NODE_INTERFACE] {
        // The mount of `/proc` is still the host's, and shows each process its own network.
        ipv6::settle(link, has_ipv6)?;
    }
    route.set_up("lo", true)?;
    route.set_mac(NODE_INTERFACE, names::mac(&names::label(&boot.cluster, &boot.node)))?;
    for (address, network) in own.addresses.iter().zip(boot.addresses.node_networks.iter()) {
        let prefix = network.network.prefix_len();
        route.ensure_address(NODE_INTERFACE, IpNet::new_assert(*address, prefix))?;
    }
    route.set_up(NODE_INTERFACE, true)?;
    route_outwards(&route, &boot.addresses, &boot.node)
}

/// The node's ways out and its routes to the pods of the others, in its network namespace.
pub(super) fn route_outwards(
    route: &Route,
    addresses: &Addresses,
    node: &NodeName,
) -> bivouac_sys::Result<()> {
    let outwards = addresses.node_networks.iter().map(|own| RouteEntry {
        destination: everything(own.gateway),
        gateway: Some(own.gateway),
        interface: Some(NODE_INTERFACE.to_owned()),
        protocol: names::ROUTE_PROTOCOL,
    });
    let others = addresses.nodes.iter().filter(|(name, _)| *name != node);
    let pods = others.flat_map(|(_, other)| pod_routes(other, NODE_INTERFACE));
    let wanted: Vec<RouteEntry> = outwards.chain(pods).collect();
    ensure_routes(route, &wanted, |one| one.interface.as_deref() == Some(NODE_INTERFACE))
}

fn everything(family: IpAddr) -> IpNet {
    match family {
        IpAddr::V4(_) => IpNet::new_assert(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        IpAddr::V6(_) => IpNet::new_assert(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}
