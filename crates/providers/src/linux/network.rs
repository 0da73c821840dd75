//! The network of a cluster on the host: bridge, gateway address, forwarding, rules.
//!
//! ```text
//!  node eth0 --- host link --+
//!  node eth0 --- host link --+-- bridge (gateway) --- forwarding, masquerade --- uplink
//! ```

use bivouac_provider::NetworkRequest;
use bivouac_spec::{Addresses, ClusterName, NodeName, Problem};
use bivouac_sys::netlink::{Route, RouteEntry};
use bivouac_sys::{nft, sysctl};
use ipnet::IpNet;

use super::folder::{self, StateFolder};
use super::names::{self, Owner};
use super::ports::Forward;
use super::problem::{OrProblem as _, failed};
use super::resolver::Resolver;
use super::{forwarding, passage, ports, rules};

/// Makes the network of a cluster, or what is missing of it.
pub(super) fn ensure(state: &StateFolder, request: &NetworkRequest) -> Result<(), Problem> {
    let (cluster, addresses) = (&request.cluster, &request.addresses);
    let route = Route::open().or_problem("netlink", "the host's network cannot be asked")?;
    let bridge = names::bridge(cluster);
    check_free(&route, cluster, addresses)?;
    let forwards = ports::forwards(request)?;
    ports::check_free(cluster, &forwards)?;
    folder::ensure(&state.cluster(cluster).nodes_folder())?;
    ensure_bridge(&route, cluster, addresses).or_problem(
        "bridge",
        format_args!("the bridge {bridge} of cluster {cluster} cannot be made"),
    )?;
    forwarding::ensure(state, &route, &bridge)?;
    ensure_rules(state, cluster, addresses, &forwards)?;
    passage::ensure(state, cluster)
}

/// Loads the table of a cluster, and then lets the kernel route loopback addresses where it needs to.
fn ensure_rules(
    state: &StateFolder,
    cluster: &ClusterName,
    addresses: &Addresses,
    forwards: &[Forward],
) -> Result<(), Problem> {
    // Two commands that both found a port free: the second one to come here is told.
    let _lock = if forwards.is_empty() {
        None
    } else {
        let lock = forwarding::lock(state, "publish ports")?;
        ports::check_unclaimed(cluster, forwards)?;
        Some(lock)
    };
    let resolver = Resolver::detect().forwarded();
    nft::load(&rules::render(cluster, addresses, resolver, forwards)).or_problem(
        "rules",
        format_args!("the nftables table of cluster {cluster} cannot be loaded"),
    )?;
    if resolver.is_none() && !forwards.iter().any(|one| one.from.has_loopback()) {
        return Ok(());
    }
    let bridge = names::bridge(cluster);
    sysctl::ensure(&format!("net/ipv4/conf/{bridge}/route_localnet"), "1").or_problem(
        "route_localnet",
        format_args!("what is on the host's loopback interface cannot be offered on {bridge}"),
    )?;
    Ok(())
}

fn ensure_bridge(
    route: &Route,
    cluster: &ClusterName,
    addresses: &Addresses,
) -> bivouac_sys::Result<()> {
    let bridge = names::bridge(cluster);
    let link = route.ensure_bridge(&bridge, &Owner::Cluster(cluster.clone()).alias())?;
    // Without an address of its own a bridge takes the lowest of its ports', which changes as nodes come and go.
    let mac = names::mac(cluster.as_str());
    if link.mac != Some(mac) {
        route.set_mac(&bridge, mac)?;
    }
    let wanted = IpNet::new_assert(addresses.gateway, addresses.node_network.prefix_len());
    for other in route.addresses()? {
        let stale = other.link == link.index
            && other.address != wanted
            && other.address.addr().is_ipv4() == wanted.addr().is_ipv4();
        if stale {
            route.destroy_address(&bridge, other.address)?;
        }
    }
    route.ensure_address(&bridge, wanted)?;
    route.set_up(&bridge, true)
}

/// Refuses what would take a name or a route away from somebody else.
fn check_free(route: &Route, cluster: &ClusterName, addresses: &Addresses) -> Result<(), Problem> {
    let bridge = names::bridge(cluster);
    let link = route.link(&bridge).or_problem("netlink", "the host's links cannot be listed")?;
    let alias = link.and_then(|link| link.alias);
    let own = Owner::Cluster(cluster.clone()).alias();
    if let Some(other) = alias.filter(|alias| *alias != own) {
        let message = format!("the interface {bridge} is already there and belongs to `{other}`");
        return Err(
            failed("bridge_in_use", message).help(format!("give cluster {cluster} another name"))
        );
    }
    let networks: Vec<IpNet> = addresses
        .nodes
        .values()
        .flat_map(|node| &node.pod_networks)
        .chain([&addresses.node_network])
        .map(IpNet::trunc)
        .collect();
    let taken = |one: &RouteEntry| {
        networks.contains(&one.destination) && one.interface.as_deref() != Some(&bridge)
    };
    let routes = route.routes().or_problem("routes", "the host's routes cannot be listed")?;
    let Some(taken) = routes.into_iter().find(taken) else { return Ok(()) };
    let interface = taken.interface.unwrap_or_default();
    let message = format!(
        "the network {} of cluster {cluster} is already in use on interface {interface}",
        taken.destination
    );
    let code = "provider.linux.network_in_use";
    Err(Problem::new(bivouac_spec::Class::Unfit, code, message)
        .help("choose other networks under `spec.network` of the cluster file"))
}

/// Lets the bridge send a packet back to the node that it came from, as it must where a node asks a port of the host that is
/// published for itself: with `bridge-nf-call-iptables` its destination changes before the bridge has passed it on.
pub(super) fn let_back(cluster: &ClusterName, node: &NodeName) {
    let link = names::host_link(cluster, node);
    // All other ways to the port work without it, so a read-only /sys is no reason to have no node.
    let _ = fs_err::write(format!("/sys/class/net/{link}/brport/hairpin_mode"), "1");
}

/// The host's routes to the pods of a node.
pub(super) fn pod_routes(
    networks: &[IpNet],
    node: std::net::IpAddr,
    interface: &str,
) -> Vec<RouteEntry> {
    let reachable = networks.iter().filter(|network| network.addr().is_ipv4() == node.is_ipv4());
    let entry = |network: &IpNet| RouteEntry {
        destination: network.trunc(),
        gateway: Some(node),
        interface: Some(interface.to_owned()),
        protocol: names::ROUTE_PROTOCOL,
    };
    reachable.map(entry).collect()
}
