//! Disks of nodes: whether a ground has them, and how they may change. One grows, and never shrinks: what is on it would not fit.

use bivouac_spec::cluster::NodeGroup;
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, Cluster, Facts, NodeName, NodeRecord, Problem};

use crate::{Action, UpRequest};

/// Why nodes cannot have the disks that they are to have, one for each group that asks for them.
#[must_use]
pub fn check(cluster: &Cluster, facts: &Facts) -> Vec<Problem> {
    let Some(reason) = &facts.no_disks else { return Vec::new() };
    let groups = cluster.spec.nodes.iter().enumerate().filter(|(_, group)| group.count > 0);
    let refuse = |(index, group): (usize, &NodeGroup)| {
        let disk = group.resources.disk?;
        let message = format!(
            "each node of `spec.nodes[{index}]` (`{}-…`) asks for a disk of {disk}, and nodes cannot have disks here",
            group.prefix()
        );
        let mut problem = Problem::new(Class::Unfit, "plan.no_disks", message);
        problem.causes.push(reason.message.clone());
        problem.causes.extend(reason.causes.iter().cloned());
        problem.help.clone_from(&reason.help);
        Some(problem)
    };
    groups.filter_map(refuse).collect()
}

/// Refuses to make disks smaller, to take them away, and to give some to nodes that have their data elsewhere.
pub(crate) fn refused_changes(request: &UpRequest<'_>) -> Vec<Problem> {
    let Some(observed) = request.observed else { return Vec::new() };
    let refuse = |(name, wanted): (&NodeName, &NodeRecord)| {
        let record = observed.nodes.get(name)?.record.as_ref()?;
        let change = match (record.resources.disk, wanted.resources.disk) {
            (Some(before), Some(now)) if now < before => {
                format!("has a disk of {before}, which cannot become {now}")
            }
            (Some(before), None) => format!("has its data on a disk of {before}, and keeps it"),
            (None, Some(_)) => "was made without a disk of its own, and gets none".to_owned(),
            _ => return None,
        };
        let message = format!("node {name} of cluster `{}` {change}", request.cluster.name());
        Some(Problem::usage("plan.disk_stays", message).help(help(request, name, record)))
    };
    request.records.iter().filter_map(refuse).collect()
}

/// What the file can say, and what it costs to have it otherwise.
fn help(request: &UpRequest<'_>, node: &NodeName, record: &NodeRecord) -> String {
    let keep = record.resources.disk.map_or_else(
        || "Leave `resources.disk` out".to_owned(),
        |disk| format!("Write `disk: {disk}` or more"),
    );
    let cluster = request.cluster.name();
    format!(
        "{keep}. Or add a group of other nodes, and take this one out with `bivouac node remove --cluster {cluster} {node}`, which removes its data."
    )
}

/// How the disk differs, in plain words.
pub(crate) fn difference(record: &NodeRecord, wanted: &NodeRecord) -> String {
    let size = |record: &NodeRecord| {
        record.resources.disk.map_or_else(|| "none".to_owned(), |disk| disk.to_string())
    };
    format!("its disk is {}, not {}", size(record), size(wanted))
}

/// Disks take room when they are written to. When they are full there may be none.
pub(crate) fn larger_than_the_ground(
    request: &UpRequest<'_>,
    actions: &[Action],
) -> Option<String> {
    let more = |action: &Action| {
        let node = action.node()?;
        let wanted = request.records.get(node)?.resources.disk?;
        let record = request.observed.and_then(|seen| seen.nodes.get(node)?.record.as_ref());
        let before = record.and_then(|record| record.resources.disk).unwrap_or(Bytes(0));
        Some(wanted.0.saturating_sub(before.0))
    };
    let more = actions.iter().filter_map(more).fold(0, u64::saturating_add);
    let free = request.facts.disk_free;
    if more <= free.0 {
        return None;
    }
    let free = Bytes(free.0 >> 20 << 20);
    Some(format!(
        "disks of nodes may come to take {} more, and {free} are free where they are kept: nodes whose disks find no room there fail",
        Bytes(more)
    ))
}
