//! Assigns every address of a cluster before anything of it exists.
//!
//! A node takes a *slot*, from 0: its address is the node network's base + 2 + slot (the ground itself is base + 1), and its pods get
//! the slot-th share of the pod network, in each IP family. A node keeps its slot while it exists; a new one takes the lowest that
//! is free. The upper part of a node network is never given to nodes: it is for Services of type `LoadBalancer`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bivouac_spec::cluster::IpFamily;
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::{Addresses, Class, Cluster, NodeName, Problem, Problems};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Where networks are looked for when the file names none.
struct Pools {
    nodes: &'static [&'static str],
    pods: &'static [&'static str],
    services: &'static [&'static str],
    /// The prefixes of what is taken from them.
    node_prefix: u8,
    pod_prefix: u8,
    service_prefix: u8,
}

/// Whole ranges of private use (RFC 1918), then the one for benchmarks (RFC 2544), which is free on practically every machine. Each
/// list begins with what people know.
const V4: Pools = Pools {
    nodes: &["10.89.0.0/16", "10.90.0.0/16", "172.31.0.0/16", "198.19.0.0/16"],
    pods: &["10.244.0.0/14", "10.128.0.0/9", "172.16.0.0/12", "198.18.0.0/15"],
    services: &["10.96.0.0/12", "172.16.0.0/12", "198.18.0.0/15"],
    node_prefix: 24,
    pod_prefix: 16,
    service_prefix: 16,
};

/// Parts of one unique local network (RFC 4193).
const V6: Pools = Pools {
    nodes: &["fd62:6976:89::/48"],
    pods: &["fd62:6976:244::/48"],
    services: &["fd62:6976:96::/48"],
    node_prefix: 64,
    pod_prefix: 56,
    service_prefix: 112,
};

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
    // Those that nobody wants any more are in use until their nodes are gone.
    let mut slots = Slots::new(&networks, networks.nodes.values());
    for name in wanted {
        if nodes.contains_key(&name) {
            continue;
        }
        let addresses = slots.take().ok_or_else(|| {
            let nets: Vec<IpNet> = networks.node_networks.iter().map(|own| own.network).collect();
            let (nets, pods) = (listed(&nets), listed(&networks.pod_networks));
            let message =
                format!("no address is left for node `{name}` in {nets} with pods in {pods}");
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
    let mut problems = chooser.named(&network.node_cidr, "nodeCIDR");
    problems.extend(chooser.named(&network.pod_cidr, "podCIDR"));
    problems.extend(chooser.named(&network.service_cidr, "serviceCIDR"));
    Problems::check(problems)?;

    let (mut nodes, mut pods, mut services) = (Vec::new(), Vec::new(), Vec::new());
    for family in &network.ip_families {
        let pools = match family {
            IpFamily::V4 => &V4,
            IpFamily::V6 => &V6,
        };
        let mut take = |named: &[IpNet], field, from: &[&str], prefix| match named
            .iter()
            .find(|net| IpFamily::of(net) == *family)
        {
            Some(named) => Ok(named.trunc()),
            None => chooser.free(field, from, prefix),
        };
        nodes.push(take(&network.node_cidr, "nodeCIDR", pools.nodes, pools.node_prefix)?);
        // Services before pods: their usual network is in everybody's fingers, and only they have a small pool.
        let (from, prefix) = (pools.services, pools.service_prefix);
        services.push(take(&network.service_cidr, "serviceCIDR", from, prefix)?);
        pods.push(take(&network.pod_cidr, "podCIDR", pools.pods, pools.pod_prefix)?);
    }
    let gateway = |network| NodeNetwork { network, gateway: nth_address(&network, 1) };
    let nodes: Vec<NodeNetwork> = nodes.into_iter().map(gateway).collect();
    let node_networks = Families::try_from(nodes).map_err(|error| {
        Problem::usage("plan.families", format!("`spec.network.ipFamilies`: {error}"))
    })?;
    let (pod_networks, service_networks) = (pods, services);
    Ok(Addresses { node_networks, pod_networks, service_networks, nodes: BTreeMap::new() })
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
        let pools = pools.iter().map(|pool| pool.parse::<IpNet>().expect("pools are networks"));
        let candidates = pools.flat_map(|pool| {
            pool.subnets(prefix).expect("pools are larger than what is taken from them")
        });
        let mut free = candidates.filter(|net| {
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

pub(crate) fn listed(nets: &[IpNet]) -> String {
    nets.iter().map(|net| format!("`{net}`")).collect::<Vec<_>>().join(", ")
}

/// The address at this distance from the start of a network.
fn nth_address(net: &IpNet, n: u32) -> IpAddr {
    match net {
        IpNet::V4(net) => IpAddr::V4(u32::from(net.network()).saturating_add(n).into()),
        IpNet::V6(net) => IpAddr::V6(u128::from(net.network()).saturating_add(n.into()).into()),
    }
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
        let addresses = nodes.clone().flat_map(|node| node.addresses.iter().copied()).collect();
        let pods = nodes.flat_map(|node| node.pod_networks.clone()).collect();
        Self { networks, addresses, pods, next: 0 }
    }

    fn take(&mut self) -> Option<NodeAddresses> {
        loop {
            let node = slot(self.networks, self.next)?;
            self.next += 1;
            let taken = node.addresses.iter().any(|address| self.addresses.contains(address))
                || node.pod_networks.iter().any(|net| self.pods.contains(net));
            if !taken {
                return Some(node);
            }
        }
    }
}

fn slot(networks: &Addresses, slot: u32) -> Option<NodeAddresses> {
    let node = |own: &NodeNetwork| {
        let address = nth_address(&own.network, slot.checked_add(FIRST_NODE)?);
        let usable = own.network.contains(&address) && address < own.network.broadcast();
        let is_of_services = own.service_addresses().is_some_and(|range| range.contains(address));
        (usable && !is_of_services).then_some(address)
    };
    let addresses = networks.node_networks.iter().map(node).collect::<Option<Vec<_>>>()?;
    let pod_networks = networks.pod_networks.iter().map(|pods| share(pods, slot));
    let pod_networks = pod_networks.collect::<Option<Vec<_>>>()?;
    Some(NodeAddresses { addresses: addresses.try_into().ok()?, pod_networks })
}

/// The share of the pod network that belongs to a slot.
fn share(pods: &IpNet, slot: u32) -> Option<IpNet> {
    let prefix = IpFamily::of(pods).pod_share();
    let bits = prefix.checked_sub(pods.prefix_len())?;
    if 1_u64.checked_shl(bits.into()).is_some_and(|shares| u64::from(slot) >= shares) {
        return None;
    }
    Some(match pods {
        IpNet::V4(pods) => {
            let base =
                u32::from(pods.network()).checked_add(slot.checked_mul(1 << (32 - prefix))?)?;
            IpNet::V4(Ipv4Net::new_assert(base.into(), prefix))
        }
        IpNet::V6(pods) => {
            let base =
                u128::from(pods.network()).checked_add(u128::from(slot) << (128 - prefix))?;
            IpNet::V6(Ipv6Net::new_assert(base.into(), prefix))
        }
    })
}

#[cfg(test)]
mod tests;
