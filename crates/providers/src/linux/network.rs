//! The network of a cluster on the host: bridge, gateway addresses, forwarding, rules.
//!
//! ```text
//!  node eth0 --- host link --+
//!  node eth0 --- host link --+-- bridge (gateway) --- forwarding, masquerade --- uplink
//! ```

use bivouac_provider::NetworkRequest;
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::{Addresses, ClusterName, NodeName, Problem};
use bivouac_sys::netlink::{Route, RouteEntry};
use bivouac_sys::{nft, sysctl};
use ipnet::IpNet;

use super::folder::{self, StateFolder};
use super::names::{self, Owner};
use super::ports::Forward;
use super::problem::{OrProblem as _, failed};
use super::resolver::Resolver;
use super::{forwarding, inotify, ipv6, parameters, passage, ports, rules};

/// Makes the network of a cluster, or what is missing of it.
pub(super) fn ensure(state: &StateFolder, request: &NetworkRequest) -> Result<(), Problem> {
    let (cluster, addresses) = (&request.cluster, &request.addresses);
    let route = Route::open().or_problem("netlink", "the host's network cannot be asked")?;
    let bridge = names::bridge(cluster);
    check_families(cluster, addresses)?;
    check_free(&route, cluster, addresses)?;
    let forwards = ports::forwards(request)?;
    ports::check_free(cluster, &forwards)?;
    folder::ensure(&state.cluster(cluster).nodes_folder())?;
    ensure_bridge(&route, cluster, addresses).or_problem(
        "bridge",
        format_args!("the bridge {bridge} of cluster {cluster} cannot be made"),
    )?;
    forwarding::ensure(&route, &bridge, addresses)?;
    inotify::ensure()?;
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
        let lock = parameters::lock(state, "publish ports")?;
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
    ipv6::settle(&bridge, has_ipv6(addresses))?;
    let wanted: Vec<IpNet> = addresses
        .node_networks
        .iter()
        .map(|own| IpNet::new_assert(own.gateway, own.network.prefix_len()))
        .collect();
    for other in route.addresses()? {
        let is_own = wanted.contains(&other.address) || ipv6::is_link_local(&other.address);
        if other.link == link.index && !is_own {
            route.destroy_address(&bridge, other.address)?;
        }
    }
    for address in wanted {
        route.ensure_address(&bridge, address)?;
    }
    route.set_up(&bridge, true)
}

/// Whether nodes of the cluster have IPv6 addresses.
pub(super) fn has_ipv6(addresses: &Addresses) -> bool {
    addresses.node_networks.iter().any(|own| own.gateway.is_ipv6())
}

/// Refuses a family that the kernel does not have.
fn check_families(cluster: &ClusterName, addresses: &Addresses) -> Result<(), Problem> {
    if !has_ipv6(addresses) || ipv6::is_there() {
        return Ok(());
    }
    let message = format!("cluster {cluster} has IPv6 addresses, and this kernel has no IPv6");
    Err(Problem::new(bivouac_spec::Class::Unfit, "provider.linux.no_ipv6", message).help(
        "boot the host without `ipv6.disable=1`, or write `ipFamilies: [IPv4]` under `spec.network` of the cluster file",
    ))
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
        .chain(addresses.node_networks.iter().map(|own| &own.network))
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
pub(super) fn let_back(cluster: &ClusterName, node: &NodeName, publishes: bool) {
    let link = names::host_link(cluster, node);
    let mode = if publishes { "1" } else { "0" };
    // All other ways to the port work without it, so a read-only /sys is no reason to have no node.
    let _ = fs_err::write(format!("/sys/class/net/{link}/brport/hairpin_mode"), mode);
}

/// Routes to the pods of a node, each by the node's address of the same family.
pub(super) fn pod_routes(node: &NodeAddresses, interface: &str) -> Vec<RouteEntry> {
    let entry = |network: &IpNet| {
        let is_v6 = network.addr().is_ipv6();
        let gateway = node.addresses.iter().find(|address| address.is_ipv6() == is_v6)?;
        Some(RouteEntry {
            destination: network.trunc(),
            gateway: Some(*gateway),
            interface: Some(interface.to_owned()),
            protocol: names::ROUTE_PROTOCOL,
        })
    };
    node.pod_networks.iter().filter_map(entry).collect()
}

/// Makes the routes of ours for which `is_own` holds those that are wanted, and no others.
pub(super) fn ensure_routes(
    route: &Route,
    wanted: &[RouteEntry],
    is_own: impl Fn(&RouteEntry) -> bool,
) -> bivouac_sys::Result<()> {
    let present = route.routes()?;
    let own = present.iter().filter(|one| one.protocol == names::ROUTE_PROTOCOL && is_own(one));
    // Before new ones are made: two IPv6 routes to one destination would stand side by side.
    for stale in own.filter(|one| !wanted.contains(one)) {
        route.destroy_route(stale)?;
    }
    let mut missing = wanted.iter().filter(|one| !present.contains(one));
    missing.try_for_each(|one| route.ensure_route(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::namespace::{Namespace, unshare};

    #[test]
    fn pods_are_reached_by_the_address_of_their_family() {
        let addresses = crate::samples::dual_stack(1);
        let node = addresses.nodes.values().next().unwrap();
        let routes = pod_routes(node, "eth0");
        let ways: Vec<_> = routes
            .iter()
            .map(|one| format!("{} {}", one.destination, one.gateway.unwrap()))
            .collect();
        assert_eq!(ways, ["10.244.0.0/24 10.89.7.2", "fd00:244::/64 fd00:89::2"]);
        // Pods of a family that nodes have no addresses of are not routed.
        let single = NodeAddresses {
            addresses: bivouac_spec::network::Families::single(node.primary()),
            ..node.clone()
        };
        assert_eq!(pod_routes(&single, "eth0"), routes[..1]);
    }

    #[test]
    fn routes_become_those_that_are_wanted() {
        let own = std::thread::spawn(|| {
            unshare(&[Namespace::Network]).unwrap();
            let route = Route::open().unwrap();
            route.ensure_bridge("br", "test").unwrap();
            route.set_up("br", true).unwrap();
            for address in ["10.89.7.1/24", "fd00:89::1/64"] {
                route.ensure_address("br", address.parse().unwrap()).unwrap();
            }
            let of = |index: usize| {
                let addresses = crate::samples::dual_stack(3);
                pod_routes(addresses.nodes.values().nth(index).unwrap(), "br")
            };
            let ours = || {
                let all = route.routes().unwrap().into_iter();
                let mut ours: Vec<_> =
                    all.filter(|one| one.protocol == names::ROUTE_PROTOCOL).collect();
                ours.sort_by_key(|one| one.destination);
                ours
            };
            let theirs = of(2);
            ensure_routes(&route, &theirs, |one| theirs.contains(one)).unwrap();
            let is_own = |one: &RouteEntry| !theirs.contains(one);
            for wanted in [of(0), of(0), of(1), Vec::new()] {
                ensure_routes(&route, &wanted, is_own).unwrap();
                let mut expected = [wanted, theirs.clone()].concat();
                expected.sort_by_key(|one| one.destination);
                assert_eq!(ours(), expected);
            }
        });
        own.join().unwrap();
    }
}
