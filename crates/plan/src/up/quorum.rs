//! What keeps a cluster's state decides by majority.

use std::collections::BTreeSet;

use bivouac_spec::cluster::Stack;
use bivouac_spec::facts::{Applied, ObservedState};
use bivouac_spec::{Cluster, NodeName, ObservedCluster, Problem};

use super::{UpRequest, keepers, keepers_of, lives_on};

/// A change of the nodes that keep the cluster's state is agreed upon by most of them, and one of them stays. Who is lost and stays is
/// replaced before anybody goes who runs, so that it is enough to have most of them now.
pub(super) fn without_quorum(request: &UpRequest<'_>) -> Option<Problem> {
    let (applied, observed) = request.applied.zip(request.observed)?;
    if !lives_on(applied, observed) {
        return None;
    }
    let wanted: BTreeSet<NodeName> = keepers_of(request.cluster);
    let keepers: BTreeSet<NodeName> = keepers(applied, observed).cloned().collect();
    let state = |name: &NodeName| observed.nodes.get(name).map(|node| node.state);
    let lost = keepers.iter().filter(|name| state(name).is_none()).count();
    if keepers == wanted && lost == 0 {
        return None;
    }
    if !keepers.iter().any(|name| wanted.contains(name) && state(name).is_some()) {
        return Some(none_stays(request.cluster, keepers.len(), lost));
    }
    // One that is stopped and goes is not started for it.
    let agrees = |name: &&NodeName| match state(name) {
        Some(ObservedState::Running) => true,
        Some(ObservedState::Stopped) => wanted.contains(*name),
        _ => false,
    };
    let (all, agreeing) = (keepers.len(), keepers.iter().filter(agrees).count());
    let needed = majority(all);
    if agreeing >= needed {
        return None;
    }
    let (cluster, role) = (request.cluster.name(), role_of_keepers(request.cluster));
    let message = format!(
        "the {role} of cluster `{cluster}` cannot change: {agreeing} of {all} are there, {needed} must agree"
    );
    let help = format!(
        "If they are only stopped, run `up` with the file as it was before the change. Otherwise run `bivouac down {cluster}` and then `bivouac up` again."
    );
    Some(Problem::failed("plan.no_quorum", message).help(help))
}

/// Refuses to take all those away that keep a cluster's state.
#[must_use]
pub fn refuse_no_keeper(before: &Cluster, after: &Cluster) -> Option<Problem> {
    let keepers = keepers_of(before).len();
    (keepers > 0 && after.state_keepers() == 0).then(|| none_stays(before, keepers, 0))
}

fn none_stays(cluster: &Cluster, all: usize, lost: usize) -> Problem {
    let (name, words) = (cluster.name(), Words::of(cluster));
    let Words { one, several, keeper, .. } = words;
    let role = if all == 1 { one } else { several };
    let lost = if lost == 0 { String::new() } else { format!(", {lost} of them lost") };
    let message = format!(
        "cluster `{name}` has {all} {role}{lost}: 0 would stay with what it knows, and {keeper} needs at least 1"
    );
    let help = format!(
        "Keep one of them: add the new ones first, and remove the others afterwards. `bivouac down {name}` removes the whole cluster."
    );
    Problem::usage("plan.no_keeper_stays", message).help(help)
}

/// What a user should know before these nodes are stopped, when too few are left to agree.
#[must_use]
pub fn note_of_minority(
    applied: &Applied,
    observed: &ObservedCluster,
    stopped: &BTreeSet<NodeName>,
) -> Option<String> {
    let keepers: Vec<&NodeName> = keepers(applied, observed).collect();
    let runs = |name: &&&NodeName| {
        let node = observed.nodes.get(**name);
        node.is_some_and(|node| node.state == ObservedState::Running)
    };
    let running: Vec<&&NodeName> = keepers.iter().filter(runs).collect();
    let left = running.iter().filter(|name| !stopped.contains(**name)).count();
    let (all, needed) = (keepers.len(), majority(keepers.len()));
    if running.len() < needed || left >= needed {
        return None;
    }
    let (cluster, words) = (applied.cluster.name(), Words::of(&applied.cluster));
    let Words { several, api, .. } = words;
    Some(format!(
        "{left} of {all} {several} of cluster `{cluster}` run then, and {needed} must for {api} to answer: until `bivouac start {cluster}` it does not"
    ))
}

/// An even number bears no more failures than one less.
pub(super) fn even_keepers(cluster: &Cluster) -> Option<String> {
    let (count, what) = (cluster.state_keepers(), role_of_keepers(cluster));
    (count > 0 && count.is_multiple_of(2)).then(|| {
        format!("{count} {what} bear no more failures than {}: an odd number is better", count - 1)
    })
}

const fn majority(all: usize) -> usize {
    all / 2 + 1
}

/// What nodes that keep the state are called.
pub(super) const fn role_of_keepers(cluster: &Cluster) -> &'static str {
    Words::of(cluster).several
}

/// What nodes that keep the state are called, and what they keep it in.
struct Words {
    one: &'static str,
    several: &'static str,
    keeper: &'static str,
    api: &'static str,
}

impl Words {
    const fn of(cluster: &Cluster) -> Self {
        match cluster.spec.stack {
            Stack::Kubernetes(_) => Self {
                one: "control plane",
                several: "control planes",
                keeper: "etcd",
                api: "the API",
            },
            Stack::Incus(_) => Self {
                one: "member",
                several: "members",
                keeper: "its database",
                api: "its database",
            },
        }
    }
}
