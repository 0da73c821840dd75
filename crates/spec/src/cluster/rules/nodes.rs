//! How many nodes, what they are called and what they may use.

use std::collections::BTreeMap;

use super::Finding;
use crate::NodeName;
use crate::cluster::path::{field, item};
use crate::cluster::{Bootstrap, NodeGroup, Role};
use crate::quantity::{Bytes, Cpus};

/// The most nodes of a cluster: what a /24 between them holds, with room for the ground itself.
pub const NODES_MAX: u64 = 250;

const NODES: &str = "spec.nodes";

/// The least that a node can be limited to. Chosen, not measured: it refuses slips such as `cpus: 2m`.
const CPUS_MIN: Cpus = Cpus(100);

/// The least disk of a node: its own programs fill about half of it with databases, journals and records of images.
const DISK_MIN: Bytes = Bytes(512 << 20);

/// The largest disk of a node: a file on ext4 ends before 16TiB.
const DISK_MAX: Bytes = Bytes(15 << 40);

/// The number of nodes that the groups ask for.
pub(super) fn total(groups: &[NodeGroup]) -> u64 {
    groups.iter().map(|group| u64::from(group.count)).sum()
}

pub(super) fn check(groups: &[NodeGroup], findings: &mut Vec<Finding>) {
    check_counts(groups, findings);
    check_names(groups, findings);
    for (index, group) in groups.iter().enumerate() {
        check_resources(group, &field(&item(NODES, index), "resources"), findings);
    }
}

fn check_counts(groups: &[NodeGroup], findings: &mut Vec<Finding>) {
    let total = total(groups);
    if total > NODES_MAX {
        let message = format!("the cluster has {total} nodes, at most {NODES_MAX} are supported");
        let finding = Finding::new(NODES, "spec.too_many_nodes", message);
        findings.push(finding.help("Lower the `count` of a group of nodes."));
    }
}

fn control_planes(groups: &[NodeGroup]) -> u64 {
    let groups = groups.iter().filter(|group| group.role == Role::ControlPlane);
    groups.map(|group| u64::from(group.count)).sum()
}

/// Members of one etcd that kubeadm has join one after the other are not supported.
pub(super) fn check_bootstrap(
    bootstrap: Bootstrap,
    groups: &[NodeGroup],
    findings: &mut Vec<Finding>,
) {
    let control_planes = control_planes(groups);
    if bootstrap != Bootstrap::Kubeadm || control_planes < 2 {
        return;
    }
    let path = "spec.stack.kubernetes.bootstrap";
    let message = format!("`kubeadm` makes one control plane here, not {control_planes}");
    let finding = Finding::new(path, "spec.kubeadm_one_control_plane", message).scope(NODES);
    findings.push(finding.help("Ask for one control plane, or write `bootstrap: services`."));
}

fn check_names(groups: &[NodeGroup], findings: &mut Vec<Finding>) {
    // Groups of one name go on counting, so the longest name of a group has the last number of all groups of its name.
    let mut counted: BTreeMap<&str, u32> = BTreeMap::new();
    let mut first_of: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, group) in groups.iter().enumerate() {
        let prefix = group.prefix();
        let path = field(&item(NODES, index), "name");
        let count = counted.entry(prefix).or_default();
        let skipped = u32::try_from(group.skip.len()).unwrap_or(u32::MAX);
        *count = count.saturating_add(group.count).saturating_add(skipped);
        if let Err(error) = NodeName::indexed(prefix, count.saturating_sub(1)) {
            let message = format!("the nodes of the group cannot be named: {error}");
            let help = "Choose a short `name` of lower-case letters, digits and `-`.";
            findings.push(Finding::new(&path, "spec.invalid_node_name", message).help(help));
        }
        let first = *first_of.entry(prefix).or_insert(index);
        let (one, other) = (groups[first].role, group.role);
        if one != other {
            let (one, other) = (one.name(), other.name());
            let message = format!(
                "`{}` is a group of {one} nodes and `{}` of {other} nodes, but both are called `{prefix}`",
                item(NODES, first),
                item(NODES, index),
            );
            let finding = Finding::new(&path, "spec.duplicate_node_name", message).scope(NODES);
            findings.push(finding.help("Give one of the two groups another `name`."));
        }
    }
}

fn check_resources(group: &NodeGroup, path: &str, findings: &mut Vec<Finding>) {
    let role = group.role.name();
    if let Some(cpus) = group.resources.cpus.filter(|cpus| *cpus < CPUS_MIN) {
        let message = format!("{cpus} CPUs are too few for a node, it needs at least {CPUS_MIN}");
        let finding = Finding::new(&field(path, "cpus"), "spec.too_few_cpus", message);
        findings.push(finding.help(format!("Write `cpus: {CPUS_MIN}` or more.")));
    }
    let least = match group.role {
        Role::ControlPlane => Bytes(512 << 20),
        Role::Worker | Role::Member | Role::Balancer => Bytes(256 << 20),
    };
    if let Some(memory) = group.resources.memory.filter(|memory| *memory < least) {
        let message = format!(
            "{memory} of memory are too little for a {role} node, it needs at least {least}"
        );
        // A role that was refused stands here as another one.
        let group = path.trim_end_matches(".resources");
        let finding =
            Finding::new(&field(path, "memory"), "spec.too_little_memory", message).scope(group);
        findings.push(finding.help(format!("Write `memory: {least}` or more.")));
    }
    if let Some(disk) = group.resources.disk.filter(|disk| *disk < DISK_MIN) {
        let message =
            format!("a disk of {disk} is too small for a node, it needs at least {DISK_MIN}");
        let finding = Finding::new(&field(path, "disk"), "spec.too_small_disk", message);
        findings.push(finding.help(format!("Write `disk: {DISK_MIN}` or more.")));
    }
    if let Some(disk) = group.resources.disk.filter(|disk| *disk > DISK_MAX) {
        let message =
            format!("a disk of {disk} is too large for a node, it has at most {DISK_MAX}");
        let finding = Finding::new(&field(path, "disk"), "spec.too_large_disk", message);
        findings.push(finding.help(format!("Write `disk: {DISK_MAX}` or less.")));
    }
}
