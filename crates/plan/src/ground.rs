//! Whether a ground has what new nodes need. Nodes that run already are not asked about: they fit.

use bivouac_spec::cluster::{NodeGroup, NodeSpec, Role};
use bivouac_spec::quantity::{Bytes, Cpus};
use bivouac_spec::{Class, Cluster, Facts, Problem};

/// What a node without a limit is counted as: a rough figure for its own programs, before a pod runs on it. Meant to catch what
/// cannot work at all; memory that pods need is not known here.
const MEMORY_MIN_CONTROL_PLANE: Bytes = Bytes(512 << 20);
const MEMORY_MIN_WORKER: Bytes = Bytes(128 << 20);
const MEMORY_MIN_BALANCER: Bytes = Bytes(16 << 20);

/// Room that a new node is given, a rough figure: etcd's files (two 64 MB write-ahead logs at once), logs, container layers. The
/// node image is shared and not counted.
const DISK_MIN: Bytes = Bytes(192 << 20);

/// What the ground lacks for the cluster, of which `created` nodes are new.
pub(crate) fn check(cluster: &Cluster, created: u64, facts: &Facts) -> Vec<Problem> {
    let nodes = cluster.nodes();
    let mut problems = Vec::new();
    problems.extend(check_memory(cluster, &nodes, facts));
    let groups = cluster.spec.nodes.iter().enumerate().filter(|(_, group)| group.count > 0);
    problems.extend(groups.filter_map(|(index, group)| check_cpus(index, group, facts)));
    problems.extend(check_disk(cluster, created, facts));
    problems
}

fn check_memory(cluster: &Cluster, nodes: &[NodeSpec], facts: &Facts) -> Option<Problem> {
    let least = |node: &NodeSpec| match node.role {
        Role::ControlPlane => MEMORY_MIN_CONTROL_PLANE,
        Role::Worker | Role::Member => MEMORY_MIN_WORKER,
        Role::Balancer => MEMORY_MIN_BALANCER,
    };
    let each = nodes.iter().map(|node| node.resources.memory.unwrap_or_else(|| least(node)).0);
    let needed = Bytes(each.fold(0, u64::saturating_add));
    if needed <= facts.memory {
        return None;
    }
    let (name, count, there) = (cluster.name(), nodes.len(), rounded(facts.memory.0));
    let needed = rounded(needed.0);
    let message = format!(
        "the {count} nodes of cluster `{name}` need {needed} of memory, the ground has {there}"
    );
    let help = "Ask for fewer nodes, or lower `resources.memory` of the groups in `spec.nodes`.";
    Some(Problem::new(Class::Unfit, "plan.not_enough_memory", message).help(help))
}

fn check_cpus(index: usize, group: &NodeGroup, facts: &Facts) -> Option<Problem> {
    let there = Cpus(facts.cpus.saturating_mul(1000));
    let wanted = group.resources.cpus.filter(|cpus| *cpus > there)?;
    let message = format!(
        "each node of `spec.nodes[{index}]` (`{}-…`) asks for {wanted} CPUs, the ground has {there}",
        group.prefix()
    );
    let help = format!("Write `cpus: {there}` or less in its `resources`.");
    Some(Problem::new(Class::Unfit, "plan.not_enough_cpus", message).help(help))
}

fn check_disk(cluster: &Cluster, created: u64, facts: &Facts) -> Option<Problem> {
    let needed = Bytes(DISK_MIN.0.saturating_mul(created));
    if needed <= facts.disk_free {
        return None;
    }
    let (name, there) = (cluster.name(), rounded(facts.disk_free.0));
    let message = format!(
        "{created} new nodes of cluster `{name}` need {needed} of free disk, the ground has {there}"
    );
    let help = "Free disk space where nodes live, for example with `bivouac image prune`.";
    Some(Problem::new(Class::Unfit, "plan.not_enough_disk", message).help(help))
}

/// In whole MiB, for messages: a ground never has a round number of bytes.
const fn rounded(bytes: u64) -> Bytes {
    Bytes(bytes >> 20 << 20)
}
