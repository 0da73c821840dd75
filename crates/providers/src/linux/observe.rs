//! What exists, asked of the kernel and of the folders: processes, links, tables and control groups carry their owners' names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bivouac_spec::facts::ObservedState;
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, ObservedNode, Problem};
use bivouac_sys::cgroup::Hierarchy;
use bivouac_sys::netlink::Route;
use bivouac_sys::nft;
use ipnet::IpNet;

use super::folder::StateFolder;
use super::names::{self, Owner};
use super::problem::OrProblem as _;
use super::record::{NodeRecord, find_process};
use super::{group, ipv6, passage};

/// What the kernel has of one cluster.
#[derive(Debug, Default)]
struct Traces {
    networks: Vec<IpNet>,
    /// Interface and address.
    links: BTreeMap<NodeName, (String, IpAddr)>,
    groups: BTreeSet<NodeName>,
    /// Things of the cluster itself.
    shared: Vec<String>,
}

/// Every cluster.
pub(super) fn clusters(state: &StateFolder) -> Result<Vec<ObservedCluster>, Problem> {
    let mut found = traces(state)?;
    for cluster in state.clusters()? {
        found.entry(cluster).or_default();
    }
    found.into_iter().map(|(cluster, traces)| one(state, cluster, traces)).collect()
}

/// Nodes of a cluster of which the kernel has something.
pub(super) fn nodes_in_kernel(
    state: &StateFolder,
    cluster: &ClusterName,
) -> Result<BTreeSet<NodeName>, Problem> {
    let traces = traces(state)?.remove(cluster).unwrap_or_default();
    Ok(traces.links.into_keys().chain(traces.groups).collect())
}

/// Whether any cluster has a network.
pub(super) fn has_bridges() -> Result<bool, Problem> {
    let mut found = BTreeMap::new();
    links(&mut found).or_problem("netlink", "the host's links cannot be listed")?;
    Ok(found.values().any(|traces: &Traces| !traces.networks.is_empty()))
}

fn one(state: &StateFolder, name: ClusterName, traces: Traces) -> Result<ObservedCluster, Problem> {
    let folders: BTreeSet<NodeName> = state.cluster(&name).nodes()?.into_iter().collect();
    let mut nodes = BTreeMap::new();
    let mut remains = Vec::new();
    let everywhere: BTreeSet<&NodeName> =
        folders.iter().chain(traces.links.keys()).chain(&traces.groups).collect();
    for node in everywhere {
        let folder = state.node(&name, node);
        // One of another version is of no use here, and must not keep all else from being seen.
        let record = NodeRecord::read(&folder).ok().flatten();
        let process = find_process(&folder, &name, node)?;
        let link = traces.links.get(node);
        if !folders.contains(node) && process.is_none() {
            remains.extend(link.map(|(link, _)| format!("interface {link} of node {node}")));
            let group = traces.groups.contains(node);
            remains.extend(group.then(|| format!("control group of node {node}")));
            continue;
        }
        let state = match (&record, &process) {
            (Some(_), Some(_)) => ObservedState::Running,
            (Some(_), None) => ObservedState::Stopped,
            (None, _) => ObservedState::Broken,
        };
        let address = record.as_ref().map(|record| record.addresses.primary);
        // A node that was never made is bound by nothing.
        let record = record.filter(|_| process.is_some() || folder.has_data());
        let observed = ObservedNode {
            state,
            address: address.or(link.map(|(_, address)| *address)),
            pid: process.map(|process| process.pid),
            record: record.map(|record| record.made),
        };
        nodes.insert(node.clone(), observed);
    }
    if nodes.is_empty() {
        remains.extend(traces.shared);
        let folder = state.cluster(&name).0;
        remains.extend(folder.exists().then(|| format!("folder {folder}")));
    }
    Ok(ObservedCluster { name, networks: traces.networks, nodes, remains })
}

/// What the kernel has of each cluster.
fn traces(state: &StateFolder) -> Result<BTreeMap<ClusterName, Traces>, Problem> {
    let mut found: BTreeMap<ClusterName, Traces> = BTreeMap::new();
    links(&mut found).or_problem("netlink", "the host's links cannot be listed")?;
    groups(state, &mut found).or_problem("cgroup", "control groups cannot be listed")?;
    // Without the command there is no table of ours; without root it cannot be said, and all else still can.
    let tables = nft::list_tables().unwrap_or_default();
    for table in tables {
        if let Some(cluster) = names::cluster_of_table(&table.family, &table.name) {
            let text = format!("nftables table {} {}", table.family, table.name);
            found.entry(cluster).or_default().shared.push(text);
        }
    }
    for (cluster, chain) in passage::clusters().unwrap_or_default() {
        found.entry(cluster).or_default().shared.push(format!("nftables rules in {chain}"));
    }
    Ok(found)
}

fn links(found: &mut BTreeMap<ClusterName, Traces>) -> bivouac_sys::Result<()> {
    let route = Route::open()?;
    let addresses = route.addresses()?;
    for link in route.links()? {
        match link.alias.as_deref().and_then(Owner::parse) {
            Some(Owner::Cluster(cluster)) => {
                let traces = found.entry(cluster).or_default();
                let own = addresses.iter().filter(|address| address.link == link.index);
                let own = own.map(|address| address.address);
                let own = own.filter(|address| !ipv6::is_link_local(address));
                traces.networks = own.map(|address| address.trunc()).collect();
                traces.shared.push(format!("interface {}", link.name));
            }
            Some(Owner::Node(cluster, node, address)) => {
                found.entry(cluster).or_default().links.insert(node, (link.name, address));
            }
            None => {}
        }
    }
    Ok(())
}

fn groups(
    state: &StateFolder,
    found: &mut BTreeMap<ClusterName, Traces>,
) -> bivouac_sys::Result<()> {
    let Some(top) = Hierarchy::detect()?.find(names::CGROUP)? else { return Ok(()) };
    for name in top.list_children()? {
        let Ok(cluster) = name.parse::<ClusterName>() else { continue };
        let group = top.below(&name);
        let children = group.list_children()?;
        let nodes = children.iter().filter_map(|node| node.parse::<NodeName>().ok());
        // With a record nobody needs to look who is in the group.
        let own: Vec<NodeName> = nodes
            .filter(|node| {
                state.node(&cluster, node).record().exists()
                    || group
                        .below(node.as_str())
                        .retain(|one| one.exists() && group::is_own(one, &cluster, node))
                        .is_some()
            })
            .collect();
        if own.is_empty() && !children.is_empty() {
            // A cluster in a container of this host.
            continue;
        }
        let traces = found.entry(cluster).or_default();
        traces.shared.push(format!("control group {}/{name}", names::CGROUP));
        traces.groups.extend(own);
    }
    Ok(())
}
