//! What `up` would do.

use std::collections::{BTreeMap, BTreeSet};

use bivouac_spec::cluster::{NodeSpec, Port, Role};
use bivouac_spec::facts::{Applied, Aspect, Member, ObservedState};
use bivouac_spec::{
    Addresses, Cluster, Facts, NodeName, NodeRecord, ObservedCluster, ObservedNode, Problem,
};
use ipnet::IpNet;

use crate::{Action, Change, Plan, changes, disks, ground, versions};

use quorum::role_of_keepers;
pub use quorum::{note_of_minority, refuse_no_keeper};

/// Parts of a cluster that it keeps for its whole life.
const FIXED: [&str; 3] = ["spec.provider", "spec.stack", "spec.network"];
/// Of these, what can change: what is only a service of each node, add-ons, how images are had, and the version (see [`versions`]).
const CHANGEABLE: [&str; 7] = [
    "spec.network.loadBalancer",
    "spec.stack.kubernetes.addons",
    "spec.stack.kubernetes.drainTimeout",
    "spec.stack.kubernetes.imageCache",
    "spec.stack.kubernetes.proxy",
    "spec.stack.kubernetes.registries",
    "spec.stack.kubernetes.version",
];

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct UpRequest<'a> {
    /// The cluster that is wanted. Valid.
    pub cluster: &'a Cluster,
    /// Its addresses, by [`crate::assign_addresses`].
    pub addresses: &'a Addresses,
    /// What was recorded when the cluster was made, or changed last; absent for a new one.
    pub applied: Option<&'a Applied>,
    /// What exists of it on the ground.
    pub observed: Option<&'a ObservedCluster>,
    /// What the ground is like.
    pub facts: &'a Facts,
    /// What each node would be made from now.
    pub records: &'a BTreeMap<NodeName, NodeRecord>,
    /// The key of the node image that a new cluster would be made from.
    pub image: &'a str,
    /// Whether nodes get back the node image with which the cluster was usable last.
    pub goes_back: bool,
}

/// What would make the ground equal to the cluster file. Empty when it is.
#[must_use]
pub fn plan_up(request: &UpRequest<'_>) -> Plan {
    let mut plan = Plan::empty(request.cluster.name().clone());
    plan.refusals = refusals(request);
    if plan.refusals.is_empty() {
        plan.actions = actions(request);
        plan.notes = notes(request);
    }
    if !plan.actions.is_empty() {
        let is_new = |action: &&Action| matches!(action, Action::CreateNode { .. });
        let created = plan.actions.iter().filter(is_new).count() as u64;
        plan.refusals = ground::check(request.cluster, created, request.facts);
        plan.refusals.extend(disks::check(request.cluster, request.facts));
        plan.refusals.extend(disks::refused_changes(request));
        plan.refusals.extend(quorum::without_quorum(request));
        plan.refusals.extend(founding::other_founders(request));
        plan.notes.extend(disks::larger_than_the_ground(request, &plan.actions));
    }
    if !plan.refusals.is_empty() {
        plan.actions.clear();
    }
    plan
}

/// The nodes that join a cluster that is there already, of those that are wanted. The others founded it, or will. Who was to be removed
/// and is wanted again joins, however far that came: the others may have let it go.
#[must_use]
pub fn joined(
    cluster: &Cluster,
    applied: Option<&Applied>,
    observed: Option<&ObservedCluster>,
) -> BTreeSet<NodeName> {
    let known = applied.zip(observed).filter(|(applied, observed)| lives_on(applied, observed));
    let Some((applied, observed)) = known else { return BTreeSet::new() };
    let asked: BTreeSet<NodeName> =
        applied.cluster.nodes().into_iter().map(|node| node.name).collect();
    let founded = |node: &NodeSpec| {
        observed.nodes.contains_key(&node.name)
            && asked.contains(&node.name)
            && !applied.joined.contains(&node.name)
    };
    cluster.nodes().into_iter().filter(|node| !founded(node)).map(|node| node.name).collect()
}

/// Whether there is a cluster that nodes can join: it was usable once, and a node that keeps its state is there. Otherwise it is
/// founded anew.
#[must_use]
pub fn lives_on(applied: &Applied, observed: &ObservedCluster) -> bool {
    applied.completed.is_some()
        && keepers(applied, observed).any(|name| observed.nodes.contains_key(name))
}

/// The nodes that the cluster's state is with. One that was recorded and never made is none.
fn keepers<'a>(
    applied: &'a Applied,
    observed: &'a ObservedCluster,
) -> impl Iterator<Item = &'a NodeName> {
    let completed = applied.completed.iter().flat_map(|before| before.nodes());
    let completed: BTreeSet<NodeName> = completed.map(|node| node.name).collect();
    let keeps = move |(name, member): &(&NodeName, &Member)| {
        member.spec.role.keeps_state()
            && !member.left
            && (completed.contains(*name) || observed.nodes.contains_key(*name))
    };
    applied.members.iter().filter(keeps).map(|(name, _)| name)
}

fn refusals(request: &UpRequest<'_>) -> Vec<Problem> {
    let name = request.cluster.name();
    match (request.applied, request.observed) {
        (Some(applied), observed) => {
            let changes = changes(&applied.cluster, request.cluster);
            let fixed = changes.iter().filter(|change| is_fixed(change));
            let nodes = applied.cluster.nodes().len();
            let mut refusals: Vec<_> =
                fixed.map(|change| refusal(name.as_str(), nodes, change)).collect();
            refusals.extend(versions::refusal(applied, request.cluster));
            refusals.extend(observed.and_then(|observed| other_network(request, observed)));
            refusals
        }
        (None, Some(observed)) if !observed.nodes.is_empty() => {
            let message = format!(
                "cluster `{name}` exists on the ground with {} nodes, but its records and keys are gone",
                observed.nodes.len()
            );
            let help = format!("Run `bivouac down {name}` and then `bivouac up` again.");
            vec![Problem::failed("plan.unrecorded", message).help(help)]
        }
        (None, Some(observed)) => other_network(request, observed).into_iter().collect(),
        (None, None) => Vec::new(),
    }
}

fn is_fixed(change: &Change) -> bool {
    let is_in = |paths: &[&str]| paths.iter().any(|path| change.path.starts_with(path));
    is_in(&FIXED) && !is_in(&CHANGEABLE)
}

fn refusal(name: &str, nodes: usize, change: &Change) -> Problem {
    let message =
        format!("{} in cluster `{name}`, which keeps it for its whole life", change.describe());
    let help = format!(
        "Restore the field. Or run `bivouac down {name}`, which removes its {nodes} nodes with all data, and then `bivouac up` again."
    );
    Problem::usage("plan.change_needs_new_cluster", message).help(help)
}

fn other_network(request: &UpRequest<'_>, observed: &ObservedCluster) -> Option<Problem> {
    let name = request.cluster.name();
    let recorded: Vec<IpNet> =
        request.addresses.node_networks.iter().map(|own| own.network.trunc()).collect();
    let found = observed.networks.iter().find(|net| !recorded.contains(&net.trunc()))?;
    let recorded = crate::addresses::listed(&recorded);
    let message = format!(
        "the node network of cluster `{name}` is `{found}`, but {recorded} was assigned to it"
    );
    let help = format!("Run `bivouac down {name}` and then `bivouac up` again.");
    Some(Problem::failed("plan.network_differs", message).help(help))
}

fn keepers_of(cluster: &Cluster) -> BTreeSet<NodeName> {
    let nodes = cluster.nodes().into_iter().filter(|node| node.role.keeps_state());
    nodes.map(|node| node.name).collect()
}

fn actions(request: &UpRequest<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let exists = request.applied.is_some();
    let networks: Vec<IpNet> =
        request.addresses.node_networks.iter().map(|own| own.network).collect();
    if request.observed.is_none_or(|observed| observed.networks.is_empty()) {
        actions.push(Action::CreateNetwork { networks, reason: absent(exists) });
    }
    let wanted = request.cluster.nodes();
    let known: BTreeSet<NodeName> = wanted.iter().map(|node| node.name.clone()).collect();
    for node in wanted {
        let observed = request.observed.and_then(|observed| observed.nodes.get(&node.name));
        actions.extend(node_action(request, node, observed));
    }
    // Made, started, updated: in this order.
    actions.sort_by_key(|action| match action {
        Action::StartNode { .. } => (1, 0),
        Action::UpdateNode { remakes: true, role, .. } => (3, turn(*role, request.goes_back)),
        Action::UpdateNode { .. } => (2, 0),
        _ => (0, 0),
    });
    let reason = || "the cluster file has no such node".to_owned();
    let removed = removed(request, &known).into_iter();
    actions.extend(removed.map(|node| Action::DestroyNode { node, reason: reason() }));
    actions
}

/// What is there and not wanted, and what is recorded as a member and not wanted although it is lost: the others must let it go. Those
/// that do not run go first, before others are made: most of those who are left can then still agree.
fn removed(request: &UpRequest<'_>, wanted: &BTreeSet<NodeName>) -> Vec<NodeName> {
    let nodes = request.observed.iter().flat_map(|observed| observed.nodes.keys());
    let lives = request.applied.zip(request.observed).filter(|(one, seen)| lives_on(one, seen));
    let members = lives.iter().flat_map(|(applied, _)| applied.members.keys());
    let all: BTreeSet<&NodeName> = nodes.chain(members).collect();
    let mut removed: Vec<NodeName> =
        all.into_iter().filter(|name| !wanted.contains(*name)).cloned().collect();
    let runs = |name: &NodeName| {
        let node = request.observed.and_then(|observed| observed.nodes.get(name));
        node.is_some_and(|node| node.state == ObservedState::Running)
    };
    removed.sort_by_key(|name| runs(name));
    removed
}

fn node_action(
    request: &UpRequest<'_>,
    node: NodeSpec,
    observed: Option<&ObservedNode>,
) -> Option<Action> {
    let (NodeSpec { name: node, role, .. }, exists) = (node, request.applied.is_some());
    let address = request.addresses.nodes.get(&node)?.primary();
    let ports = ports_of(request.cluster, &node);
    match observed.map(|observed| (observed, observed.state)) {
        Some((observed, ObservedState::Running)) => update(request, node, role, observed),
        Some((_, ObservedState::Stopped)) => {
            let reason = "it is stopped".to_owned();
            Some(Action::StartNode { node, role, address, ports, reason })
        }
        Some((_, ObservedState::Broken)) => {
            let reason = "only parts of it are there".to_owned();
            Some(Action::CreateNode { node, role, address, ports, reason })
        }
        None => {
            let known = request.applied.is_some_and(|applied| {
                applied.cluster.nodes().iter().any(|before| before.name == node)
            });
            let reason = absent(exists && known);
            Some(Action::CreateNode { node, role, address, ports, reason })
        }
    }
}

fn update(
    request: &UpRequest<'_>,
    node: NodeName,
    role: Role,
    observed: &ObservedNode,
) -> Option<Action> {
    let wanted = request.records.get(&node)?;
    let Some(record) = &observed.record else {
        let cost = cost::of_remaking(request, &node, role);
        let reason = format!("what it was made from is not known; {cost}");
        let aspects = Aspect::ALL.to_vec();
        return Some(Action::UpdateNode { node, role, aspects, remakes: true, reason });
    };
    let aspects = record.differences(wanted);
    if aspects.is_empty() {
        return None;
    }
    let remakes = aspects.iter().any(|aspect| request.facts.remakes_for.contains(aspect));
    let mut reasons: Vec<String> =
        aspects.iter().map(|aspect| difference(*aspect, record, wanted)).collect();
    reasons.extend(remakes.then(|| cost::of_remaking(request, &node, role)));
    Some(Action::UpdateNode { node, role, aspects, remakes, reason: reasons.join("; ") })
}

/// When a node's turn is to be made anew: workers are never newer than the control planes that they ask.
const fn turn(role: Role, goes_back: bool) -> u8 {
    match (role, goes_back) {
        (Role::ControlPlane | Role::Member, false) | (Role::Worker, true) => 0,
        (Role::Balancer, _) => 1,
        (Role::Worker, false) | (Role::ControlPlane | Role::Member, true) => 2,
    }
}

/// What differs, in plain words.
fn difference(aspect: Aspect, record: &NodeRecord, wanted: &NodeRecord) -> String {
    match aspect {
        Aspect::Config => "its config differs".to_owned(),
        Aspect::Image => format!("its node image is `{}`, not `{}`", record.image, wanted.image),
        Aspect::Resources => {
            format!("its limits are {}, not {}", record.resources, wanted.resources)
        }
        Aspect::Disk => disks::difference(record, wanted),
        Aspect::Ports => "its published ports differ".to_owned(),
        Aspect::Neighbours => "it must know other nodes".to_owned(),
    }
}

/// The ports that the cluster file publishes of a node.
fn ports_of(cluster: &Cluster, node: &NodeName) -> Vec<Port> {
    let ports = &cluster.spec.ports;
    let of_node = ports.iter().filter(|port| cluster.node_of(port).as_ref() == Some(node));
    of_node.map(|port| Port { node: Some(node.clone()), ..port.clone() }).collect()
}

fn absent(is_lost: bool) -> String {
    let reason = if is_lost { "it is missing from the cluster" } else { "it does not exist yet" };
    reason.to_owned()
}

/// What a user should know, and what is not as it would be made now although the cluster file says the same.
fn notes(request: &UpRequest<'_>) -> Vec<String> {
    let mut notes: Vec<String> = quorum::even_keepers(request.cluster).into_iter().collect();
    let Some(observed) = request.observed else { return notes };
    let name = request.cluster.name();
    let of_nodes = |differs: &dyn Fn(&NodeName, &ObservedNode) -> bool| {
        let differing = observed
            .nodes
            .iter()
            .filter(|(node, found)| found.state == ObservedState::Running && differs(node, found));
        differing.map(|(node, _)| node.as_str()).collect::<Vec<_>>().join(", ")
    };
    let wanted = |node: &NodeName| request.records.get(node).map(|wanted| wanted.image.as_str());
    let has = |found: &ObservedNode| found.record.as_ref().map(|record| record.image.clone());
    // Nothing is said while nodes get another one, or get back the one that they had.
    let settled = observed.nodes.iter().all(|(node, found)| has(found).as_deref() == wanted(node));
    let images =
        of_nodes(&|node, _| settled && wanted(node).is_some_and(|wanted| wanted != request.image));
    let moved = of_nodes(&|node, found| {
        let wanted = request.addresses.nodes.get(node).map(|node| node.primary());
        wanted.zip(found.address).is_some_and(|(wanted, found)| wanted != found)
    });
    let remake = format!("`bivouac down {name}` and `bivouac up` make it anew");
    // Without a version the verb asks for the newest that it has.
    let version = request.cluster.spec.stack.version();
    let version = version.map(|version| format!(" --to {version}")).unwrap_or_default();
    let renew = format!("`bivouac upgrade {name}{version}` makes it anew around its data");
    let found = [
        (images, format!("runs from another node image than `{}`; {renew}", request.image)),
        (moved, format!("has another address than was assigned to it; {remake}")),
    ];
    let found = found.into_iter().filter(|(nodes, _)| !nodes.is_empty());
    notes.extend(found.map(|(nodes, what)| format!("{nodes}: {what}")));
    notes
}

mod cost;
mod founding;
mod quorum;
#[cfg(test)]
mod tests;
