//! The control groups of nodes: those that a node's record names, or else what is found by looking.
//!
//! Looking also finds groups of the same name that bivouac made in a container of this host. They are told apart by who is in
//! them: the first process of a node of ours is number 1 of a pid namespace directly below this one.

use std::path::{Path, PathBuf};

use bivouac_spec::{ClusterName, NodeName, Problem};
use bivouac_sys::cgroup::{Cgroup, Hierarchy};
use bivouac_sys::process::ProcessId;

use super::folder::NodeFolder;
use super::names;
use super::problem::OrProblem as _;
use super::record::NodeRecord;

/// The group of a node.
pub(super) fn find(
    folder: &NodeFolder,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<Option<Cgroup>, Problem> {
    let name = names::node_cgroup(cluster, node);
    let message = format!("the control group {name} cannot be looked for");
    let hierarchy = Hierarchy::detect().or_problem("cgroup", &message)?;
    // Of a record that cannot be read nothing is known: its group is looked for.
    let record = NodeRecord::read(folder).ok().flatten();
    let groups = record.map(|record| record.groups).unwrap_or_default();
    if !groups.is_empty() {
        return Ok(recall(&hierarchy, &groups, &name));
    }
    let found = hierarchy.find(&name).or_problem("cgroup", &message)?;
    Ok(found.and_then(|group| group.retain(|one| is_own(one, cluster, node))))
}

/// The group with these folders, as far as they can be those of the group of this name.
pub(super) fn recall(hierarchy: &Hierarchy, groups: &[PathBuf], name: &str) -> Option<Cgroup> {
    // A damaged record must not lead to other groups.
    let groups: Vec<&Path> =
        groups.iter().map(PathBuf::as_path).filter(|path| path.ends_with(name)).collect();
    hierarchy.recall(&groups)
}

/// Whether a group with the name of this node's is this node's. One in which nobody is counts: there is nobody to be harmed.
pub(super) fn is_own(group: &Cgroup, cluster: &ClusterName, node: &NodeName) -> bool {
    let (Ok(false), Ok(pids)) = (group.has_unseen(), group.processes()) else { return false };
    let mut alive = pids.into_iter().filter(|pid| ProcessId::of(*pid).is_ok()).peekable();
    alive.peek().is_none() || alive.any(|pid| is_first_process(pid, cluster, node))
}

/// The node's first process, if it is in the group.
pub(super) fn first_process(
    group: &Cgroup,
    cluster: &ClusterName,
    node: &NodeName,
) -> bivouac_sys::Result<Option<ProcessId>> {
    let mut pids = group.processes()?.into_iter();
    Ok(pids.find_map(|pid| {
        is_first_process(pid, cluster, node).then(|| ProcessId::of(pid).ok()).flatten()
    }))
}

/// Whether it is number 1 of a pid namespace directly below ours, and says that it is this node. Those of pods, and of nodes in
/// containers, are further below.
fn is_first_process(pid: u32, cluster: &ClusterName, node: &NodeName) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = line.split_whitespace().collect();
    if !matches!(numbers[..], [_, "1"]) {
        return false;
    }
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let label = names::label(cluster, node);
    command.split(|byte| *byte == 0).any(|argument| argument == label.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn names() -> (ClusterName, NodeName) {
        (format!("group-{}", std::process::id()).parse().unwrap(), "node-0".parse().unwrap())
    }

    #[test]
    fn a_process_of_no_pid_namespace_is_no_first_one() {
        let (cluster, node) = names();
        assert!(!is_first_process(std::process::id(), &cluster, &node));
        assert!(!is_first_process(u32::MAX, &cluster, &node));
    }

    #[test]
    fn a_group_with_strangers_in_it_is_not_ours() {
        let (cluster, node) = names();
        let dir = tempfile::tempdir().unwrap();
        let folder = NodeFolder(dir.path().to_owned().try_into().unwrap());
        let hierarchy = Hierarchy::detect().unwrap();
        // As in a container: the same name, somewhere else.
        let above = Cgroup::ensure(&hierarchy, cluster.as_str()).unwrap();
        let name = names::node_cgroup(&cluster, &node);
        let group = Cgroup::ensure(&hierarchy, format!("{cluster}/{name}")).unwrap();
        assert_eq!(find(&folder, &cluster, &node).unwrap(), Some(group.clone()));
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        group.add(stranger.id()).unwrap();
        let found = find(&folder, &cluster, &node).unwrap();
        let first = first_process(&group, &cluster, &node).unwrap();
        // A record says it better than looking.
        let folders: Vec<PathBuf> = group.folders().map(Path::to_owned).collect();
        let recalled = recall(&hierarchy, &folders, &name);
        let other = recall(&hierarchy, &folders, "bivouac/other/node-0");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
        above.remove(Duration::from_secs(20)).unwrap();
        assert_eq!((found, first), (None, None));
        assert_eq!((recalled, other), (Some(group), None));
    }
}
