//! Assigns every address of a cluster before anything of it exists.
//!
//! A node takes a *slot*, from 0: its address is the node network's base + 2 + slot (the ground itself is base + 1), and its pods get
//! the slot-th /24 of the pod network. A node keeps its slot while it exists; a new one takes the lowest that is free.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use bivouac_spec::network::NodeAddresses;
use bivouac_spec::{Addresses, Class, Cluster, NodeName, Problem, Problems};
use ipnet::{IpNet, Ipv4Net};

/// Where networks are looked for when the file names none: whole ranges of private use (RFC 1918), then the one for benchmarks
/// (RFC 2544), which is free on practically every machine. Each list begins with what people know.
const NODE_POOLS: [&str; 4] = ["10.89.0.0/16", "10.90.0.0/16", "172.31.0.0/16", "198.19.0.0/16"];
const POD_POOLS: [&str; 4] = ["10.244.0.0/14", "10.128.0.0/9", "172.16.0.0/12", "198.18.0.0/15"];
const SERVICE_POOLS: [&str; 3] = ["10.96.0.0/12", "172.16.0.0/12", "198.18.0.0/15"];

/// The prefixes of networks that are chosen here.
const NODE_PREFIX: u8 = 24;
const WIDE_PREFIX: u8 = 16;

/// Each node's share of the pod network.
const POD_SHARE: u8 = 24;

/// The first node's distance from the base of the node network; 1 is the ground's own.
const FIRST_NODE: u32 = 2;

/// The addresses of a valid cluster.
///
/// `occupied` holds the networks that the ground uses, each with its occupant, without this cluster's own. `existing` are the
/// addresses that the cluster has: they are kept, and `occupied` is not asked.
///
/// # Errors
/// Every network of the file that is occupied; or that none is free, or no address is left for a node.
pub fn assign_addresses(
    cluster: &Cluster,
    occupied: &BTreeMap<IpNet, String>,
    existing: Option<&Addresses>,
) -> Result<Addresses, Problems> {
    let networks = match existing {
        Some(existing) => existing.clone(),
        None => choose_networks(cluster, occupied)?,
    };
    let wanted: Vec<NodeName> = cluster.nodes().into_iter().map(|node| node.name).collect();
    let kept = networks.nodes.iter().filter(|(name, _)| wanted.contains(name));
    let mut nodes: BTreeMap<NodeName, NodeAddresses> =
        kept.map(|(name, addresses)| (name.clone(), addresses.clone())).collect();
    let mut slots = Slots::new(&networks, nodes.values());
    for name in wanted {
        if nodes.contains_key(&name) {
            continue;
        }
        let addresses = slots.take().ok_or_else(|| {
            let (net, pods) = (networks.node_network, listed(&networks.pod_networks));
            let message =
                format!("no address is left for node `{name}` in `{net}` with pods in {pods}");
            Problem::usage("plan.no_free_address", message)
                .help("Set a larger `spec.network.nodeCIDR` and `spec.network.podCIDR`.")
        })?;
        nodes.insert(name, addresses);
    }
    Ok(Addresses { nodes, ..networks })
}

/// The networks without any node.
fn choose_networks(
    cluster: &Cluster,
    occupied: &BTreeMap<IpNet, String>,
) -> Result<Addresses, Problems> {
    let network = &cluster.spec.network;
    let mut chooser = Chooser { cluster, occupied, taken: Vec::new() };
    // What the file names goes first, so that nothing chosen lies in its way.
    let mut problems = chooser.named(network.node_cidr.as_slice(), "nodeCIDR");
    problems.extend(chooser.named(&network.pod_cidr, "podCIDR"));
    problems.extend(chooser.named(&network.service_cidr, "serviceCIDR"));
    Problems::check(problems)?;

    let node_network = match network.node_cidr {
        Some(named) => named.trunc(),
        None => chooser.free("nodeCIDR", &NODE_POOLS, NODE_PREFIX)?,
    };
    // Services before pods: their usual network is in everybody's fingers, and only they have a small pool.
    let service_networks = match network.service_cidr.as_slice() {
        [] => vec![chooser.free("serviceCIDR", &SERVICE_POOLS, WIDE_PREFIX)?],
        named => named.iter().map(IpNet::trunc).collect(),
    };
    let pod_networks = match network.pod_cidr.as_slice() {
        [] => vec![chooser.free("podCIDR", &POD_POOLS, WIDE_PREFIX)?],
        named => named.iter().map(IpNet::trunc).collect(),
    };
    let gateway = match node_network {
        IpNet::V4(net) => IpAddr::V4(nth_address(net, 1)),
        IpNet::V6(net) => IpAddr::V6(net.network()),
    };
    Ok(Addresses { node_network, gateway, pod_networks, service_networks, nodes: BTreeMap::new() })
}

struct Chooser<'a> {
    cluster: &'a Cluster,
    occupied: &'a BTreeMap<IpNet, String>,
    taken: Vec<IpNet>,
}

impl Chooser<'_> {
    /// Takes the networks that the file names, and says which of them are occupied.
    fn named(&mut self, nets: &[IpNet], field: &str) -> Vec<Problem> {
        let nets: Vec<IpNet> = nets.iter().map(IpNet::trunc).collect();
        let problems = nets.iter().filter_map(|net| {
            let (other, occupant) = self.occupant(net)?;
            let message = format!(
                "`spec.network.{field}` of cluster `{}` is `{net}`, which overlaps `{other}`: {occupant}",
                self.cluster.name()
            );
            Some(Problem::usage("plan.network_occupied", message).help(format!(
                "Choose another `{field}`, or remove the field to have a free one chosen."
            )))
        });
        let problems = problems.collect();
        self.taken.extend(nets);
        problems
    }

    fn free(&mut self, field: &str, pools: &[&str], prefix: u8) -> Result<IpNet, Problem> {
        let pools = pools.iter().map(|pool| pool.parse::<Ipv4Net>().expect("pools are networks"));
        let candidates = pools.flat_map(|pool| {
            pool.subnets(prefix).expect("pools are larger than what is taken from them")
        });
        let mut free = candidates.map(IpNet::V4).filter(|net| {
            self.occupant(net).is_none() && !self.taken.iter().any(|taken| overlap(taken, net))
        });
        let net = free.next().ok_or_else(|| {
            let message = format!(
                "no network is free for `spec.network.{field}` of cluster `{}`",
                self.cluster.name()
            );
            Problem::new(Class::Unfit, "plan.no_free_network", message).help(format!(
                "Set `spec.network.{field}` to a network that this machine does not use."
            ))
        })?;
        self.taken.push(net);
        Ok(net)
    }

    fn occupant(&self, net: &IpNet) -> Option<(&IpNet, &String)> {
        // A default route leads everywhere and occupies nothing.
        let mut routes = self.occupied.iter().filter(|(other, _)| other.prefix_len() > 0);
        routes.find(|(other, _)| overlap(other, net))
    }
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

fn listed(nets: &[IpNet]) -> String {
    nets.iter().map(|net| format!("`{net}`")).collect::<Vec<_>>().join(", ")
}

fn nth_address(net: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(net.network()).saturating_add(n))
}

/// The addresses that nodes can have, and which are taken.
struct Slots<'a> {
    networks: &'a Addresses,
    addresses: BTreeSet<IpAddr>,
    pods: BTreeSet<IpNet>,
    next: u32,
}

impl<'a> Slots<'a> {
    fn new<'n>(
        networks: &'a Addresses,
        nodes: impl Iterator<Item = &'n NodeAddresses> + Clone,
    ) -> Self {
        let addresses = nodes.clone().map(|node| node.address).collect();
        let pods = nodes.flat_map(|node| node.pod_networks.clone()).collect();
        Self { networks, addresses, pods, next: 0 }
    }

    fn take(&mut self) -> Option<NodeAddresses> {
        loop {
            let node = slot(self.networks, self.next)?;
            self.next += 1;
            let taken = self.addresses.contains(&node.address)
                || node.pod_networks.iter().any(|net| self.pods.contains(net));
            if !taken {
                return Some(node);
            }
        }
    }
}

fn slot(networks: &Addresses, slot: u32) -> Option<NodeAddresses> {
    let IpNet::V4(net) = networks.node_network else { return None };
    let address = nth_address(net, slot.checked_add(FIRST_NODE)?);
    let pods = networks.pod_networks.iter().map(|pods| match pods {
        IpNet::V4(pods) if pods.prefix_len() <= POD_SHARE => {
            let shares = 1_u64 << (POD_SHARE - pods.prefix_len());
            let base = u32::from(pods.network());
            let share = base.checked_add(slot.checked_mul(1 << (32 - POD_SHARE))?)?;
            (u64::from(slot) < shares)
                .then(|| IpNet::V4(Ipv4Net::new_assert(share.into(), POD_SHARE)))
        }
        _ => None,
    });
    let pod_networks = pods.collect::<Option<Vec<_>>>()?;
    let usable = net.contains(&address) && address < net.broadcast();
    usable.then_some(NodeAddresses { address: address.into(), pod_networks })
}

#[cfg(test)]
mod tests;
