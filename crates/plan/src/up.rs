//! What `up` would do.

use std::collections::BTreeMap;

use bivouac_spec::cluster::{NodeSpec, Port, Role};
use bivouac_spec::facts::{Applied, ObservedState};
use bivouac_spec::{Addresses, Cluster, Facts, NodeName, ObservedCluster, ObservedNode, Problem};

use crate::{Action, Plan, changes, ground};

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct UpRequest<'a> {
    /// The cluster that is wanted. Valid.
    pub cluster: &'a Cluster,
    /// Its addresses, by [`crate::assign_addresses`].
    pub addresses: &'a Addresses,
    /// What was recorded when the cluster was made; absent for a new one.
    pub applied: Option<&'a Applied>,
    /// What exists of it on the ground.
    pub observed: Option<&'a ObservedCluster>,
    /// What the ground is like.
    pub facts: &'a Facts,
    /// The digest of the config that each node would get now.
    pub configs: &'a BTreeMap<NodeName, String>,
    /// The key of the node image that new nodes would be made from.
    pub image: &'a str,
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
    }
    if !plan.refusals.is_empty() {
        plan.actions.clear();
    }
    plan
}

fn refusals(request: &UpRequest<'_>) -> Vec<Problem> {
    let name = request.cluster.name();
    match (request.applied, request.observed) {
        (Some(applied), observed) => {
            let mut refusals: Vec<_> = changes(&applied.cluster, request.cluster)
                .iter()
                .map(|change| {
                    let message =
                        format!("{} in cluster `{name}`, which cannot be done yet", change.describe());
                    Problem::usage("plan.change_unsupported", message).help(format!(
                        "Restore the field, or run `bivouac down {name}` and then `bivouac up` again."
                    ))
                })
                .collect();
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

fn other_network(request: &UpRequest<'_>, observed: &ObservedCluster) -> Option<Problem> {
    let (name, recorded) = (request.cluster.name(), request.addresses.node_network);
    let found = observed.network.filter(|network| network.trunc() != recorded.trunc())?;
    let message = format!(
        "the node network of cluster `{name}` is `{found}`, but `{recorded}` was assigned to it"
    );
    let help = format!("Run `bivouac down {name}` and then `bivouac up` again.");
    Some(Problem::failed("plan.network_differs", message).help(help))
}

fn actions(request: &UpRequest<'_>) -> Vec<Action> {
    let mut actions = Vec::new();
    let exists = request.applied.is_some();
    if request.observed.is_none_or(|observed| observed.network.is_none()) {
        let network = request.addresses.node_network;
        actions.push(Action::CreateNetwork { network, reason: absent(exists) });
    }
    for node in request.cluster.nodes() {
        let observed = request.observed.and_then(|observed| observed.nodes.get(&node.name));
        actions.extend(node_action(request, node, observed));
    }
    actions
}

fn node_action(
    request: &UpRequest<'_>,
    node: NodeSpec,
    observed: Option<&ObservedNode>,
) -> Option<Action> {
    let (NodeSpec { name: node, role, .. }, exists) = (node, request.applied.is_some());
    let address = request.addresses.nodes.get(&node)?.address;
    let ports = ports_of(request.cluster, &node);
    match observed.map(|observed| observed.state) {
        Some(ObservedState::Running) => None,
        Some(ObservedState::Stopped) => {
            let reason = "it is stopped".to_owned();
            Some(Action::StartNode { node, role, address, ports, reason })
        }
        Some(ObservedState::Broken) => {
            let reason = "only parts of it are there".to_owned();
            Some(Action::CreateNode { node, role, address, ports, reason })
        }
        None => {
            let reason = absent(exists);
            Some(Action::CreateNode { node, role, address, ports, reason })
        }
    }
}

/// The ports that the cluster file publishes of a node.
fn ports_of(cluster: &Cluster, node: &NodeName) -> Vec<Port> {
    let nodes = cluster.nodes();
    let first = nodes.iter().find(|node| node.role == Role::ControlPlane).map(|node| &node.name);
    let of_node =
        cluster.spec.ports.iter().filter(|port| port.node.as_ref().or(first) == Some(node));
    of_node.map(|port| Port { node: Some(node.clone()), ..port.clone() }).collect()
}

fn absent(exists: bool) -> String {
    let reason = if exists { "it is missing from the cluster" } else { "it does not exist yet" };
    reason.to_owned()
}

/// What is not as it would be made now, although the cluster file says the same. That is so after an update of bivouac.
fn notes(request: &UpRequest<'_>) -> Vec<String> {
    let Some(observed) = request.observed else { return Vec::new() };
    let name = request.cluster.name();
    let remake = format!("`bivouac down {name}` and `bivouac up` make it anew");
    let of_nodes = |differs: &dyn Fn(&NodeName, &ObservedNode) -> bool| {
        let differing = observed
            .nodes
            .iter()
            .filter(|(node, found)| found.state == ObservedState::Running && differs(node, found));
        differing.map(|(node, _)| node.as_str()).collect::<Vec<_>>().join(", ")
    };
    let strangers = of_nodes(&|node, _| !request.addresses.nodes.contains_key(node));
    let images =
        of_nodes(&|_, found| found.image.as_deref().is_some_and(|image| image != request.image));
    let configs = of_nodes(&|node, found| {
        let wanted = request.configs.get(node);
        wanted.zip(found.config.as_ref()).is_some_and(|(wanted, found)| wanted != found)
    });
    let moved = of_nodes(&|node, found| {
        let wanted = request.addresses.nodes.get(node).map(|node| node.address);
        wanted.zip(found.address).is_some_and(|(wanted, found)| wanted != found)
    });
    let notes = [
        (strangers, "runs and is not in the cluster file".to_owned()),
        (images, format!("runs from another node image than `{}`; {remake}", request.image)),
        (
            configs,
            format!("was made with another config than this version of bivouac writes; {remake}"),
        ),
        (moved, format!("has another address than was assigned to it; {remake}")),
    ];
    let notes = notes.into_iter().filter(|(nodes, _)| !nodes.is_empty());
    notes.map(|(nodes, what)| format!("{nodes}: {what}")).collect()
}

#[cfg(test)]
mod tests;
