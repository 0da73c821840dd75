//! Stopping and removing. What is not there is success; what fails does not keep the rest from being removed.
//!
//! Order of a node: processes, then link and routes, control group, folder. Its mounts go with its processes; a disk is waited for.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bivouac_spec::{ClusterName, NodeName, Problem};
use bivouac_sys::cgroup::{Cgroup, Hierarchy};
use bivouac_sys::mount::mounts_below;
use bivouac_sys::netlink::Route;
use bivouac_sys::nft;
use bivouac_sys::process::{Signal, Wait};
use camino::Utf8Path;

use super::folder::{self, NodeFolder, StateFolder};
use super::names::{self, Owner};
use super::parameters::Notes;
use super::problem::{OrProblem as _, acquire, failed, join};
use super::record::{NodeRecord, find_process};
use super::tree::{remove_quiet_tree, remove_tree};
use super::{disk, group, observe, parameters, passage};

/// How long the kernel may take to end processes that were killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks the node's first process to end, and kills it after `grace`.
pub(super) fn stop(
    state: &StateFolder,
    cluster: &ClusterName,
    node: &NodeName,
    grace: Duration,
) -> Result<(), Problem> {
    let folder = state.node(cluster, node);
    let message = format!("node {node} of cluster {cluster} cannot be stopped");
    // Looked for first: who is in a group says whose it is.
    let cgroup = group::find(&folder, cluster, node)?;
    if let Some(process) = find_process(&folder, cluster, node)? {
        let handle = process.open().or_problem("stop", &message)?;
        if let Some(handle) = handle {
            handle.send_signal(Signal::TERM).or_problem("stop", &message)?;
            if handle.wait(Some(grace)).or_problem("stop", &message)? == Wait::TimedOut {
                handle.send_signal(Signal::KILL).or_problem("stop", &message)?;
            }
        }
    }
    // With number 1 all of its pid namespace end; this waits for them, and for commands that were run in the node.
    if let Some(cgroup) = cgroup {
        cgroup.kill_all(PATIENCE).or_problem("stop", &message)?;
    }
    let route = Route::open().or_problem("netlink", "the host's network cannot be asked")?;
    remove_link(&route, &folder, cluster, node)
}

/// Removes a node.
pub(super) fn node(
    state: &StateFolder,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<(), Problem> {
    let folder = state.node(cluster, node);
    // Only where there is a folder to lock: an absent node must not get one.
    let lock = folder
        .lock()
        .parent()
        .is_some_and(Utf8Path::exists)
        .then(|| acquire(&folder.lock(), "remove", PATIENCE, format_args!("node {node}")));
    let lock = lock.transpose()?;
    // Looked for first: who is in a group says whose it is.
    let found = group::find(&folder, cluster, node);
    let group = found.as_ref().ok().and_then(Option::as_ref);
    let processes = kill(&folder, group, cluster, node);
    let network = Route::open()
        .or_problem("netlink", "the host's network cannot be asked")
        .and_then(|route| remove_link(&route, &folder, cluster, node));
    let cgroup = found.and_then(|cgroup| {
        let removed = cgroup.map_or(Ok(()), |cgroup| cgroup.remove(PATIENCE));
        removed.or_problem(
            "cgroup",
            format_args!("the control group of node {node} of cluster {cluster} cannot be removed"),
        )
    });
    let disk = match &processes {
        Ok(()) => disk::wait_until_free(&folder, cluster, node),
        Err(_) => Ok(()),
    };
    let files = discard(state, &folder.0, processes.is_ok() && cgroup.is_ok());
    let lock_file = lock.map_or(Ok(()), |_lock| remove_file(&folder.lock()));
    join(
        [processes, network, cgroup, disk, files, lock_file]
            .into_iter()
            .filter_map(Result::err)
            .collect(),
    )
}

fn kill(
    folder: &NodeFolder,
    group: Option<&Cgroup>,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<(), Problem> {
    let message = format!("the processes of node {node} of cluster {cluster} cannot be ended");
    if let Some(process) = find_process(folder, cluster, node)?
        && let Some(handle) = process.open().or_problem("kill", &message)?
    {
        handle.send_signal(Signal::KILL).or_problem("kill", &message)?;
        if handle.wait(Some(PATIENCE)).or_problem("kill", &message)? == Wait::TimedOut {
            return Err(failed("kill", &message));
        }
    }
    match group {
        Some(cgroup) => cgroup.kill_all(PATIENCE).or_problem("kill", &message),
        None => Ok(()),
    }
}

/// The host's end of the link, and the host's routes to the node's pods.
fn remove_link(
    route: &Route,
    folder: &NodeFolder,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<(), Problem> {
    let message = format!("the link of node {node} of cluster {cluster} cannot be removed");
    let name = names::host_link(cluster, node);
    let link = route.link(&name).or_problem("link", &message)?;
    let owner = link.and_then(|link| Owner::parse(&link.alias?));
    let mut addresses = BTreeSet::new();
    if let Some(Owner::Node(_, _, address)) = owner {
        addresses.insert(address);
    }
    // A node of another version is removed, too, and one whose folder is gone: it has its link, and the rest goes with the bridge.
    if let Some(record) = NodeRecord::read(folder).ok().flatten() {
        addresses.extend(record.addresses.iter().copied());
    }
    let bridge = names::bridge(cluster);
    let routes = route.routes().or_problem("link", &message)?;
    let own = routes.into_iter().filter(|one| {
        one.protocol == names::ROUTE_PROTOCOL
            && one.interface.as_deref() == Some(&bridge)
            && one.gateway.is_some_and(|gateway| addresses.contains(&gateway))
    });
    let removed =
        own.map(|one| route.destroy_route(&one)).collect::<bivouac_sys::Result<Vec<()>>>();
    let destroyed = route.destroy_link(&name);
    removed.map(drop).and(destroyed).or_problem("link", &message)
}

/// What a cluster has beside its nodes, after these are gone.
pub(super) fn cluster_rest(state: &StateFolder, cluster: &ClusterName) -> Result<(), Problem> {
    let folder = state.cluster(cluster);
    let mut problems = Vec::new();
    let mut note = |result: Result<(), Problem>| problems.extend(result.err());
    note(passage::remove(cluster));
    note(remove_rules(cluster));
    note(remove_bridge(cluster));
    note(remove_cgroups(cluster));
    note(discard(state, &folder.0, false));
    note(empty_trash(state));
    note(remove_shared(state));
    join(problems)
}

fn remove_rules(cluster: &ClusterName) -> Result<(), Problem> {
    let message = format!("the nftables table of cluster {cluster} cannot be removed");
    let table = names::table(cluster);
    let tables = match nft::list_tables() {
        // Without the command no table of ours was ever made.
        Err(error) if error.is_absent() => return Ok(()),
        other => other.or_problem("rules", &message)?,
    };
    let there = tables.iter().any(|one| one.family == names::TABLE_FAMILY && one.name == table);
    if !there {
        return Ok(());
    }
    nft::destroy_table(names::TABLE_FAMILY, &table).or_problem("rules", &message)
}

/// The bridge, and every route through it with it.
fn remove_bridge(cluster: &ClusterName) -> Result<(), Problem> {
    let bridge = names::bridge(cluster);
    let message = format!("the bridge {bridge} of cluster {cluster} cannot be removed");
    let route = Route::open().or_problem("bridge", &message)?;
    let link = route.link(&bridge).or_problem("bridge", &message)?;
    let own = Owner::Cluster(cluster.clone()).alias();
    match link {
        Some(link) if link.alias.as_deref() == Some(&own) => {
            route.destroy_link(&bridge).or_problem("bridge", &message)
        }
        _ => Ok(()),
    }
}

fn remove_cgroups(cluster: &ClusterName) -> Result<(), Problem> {
    let top = Hierarchy::detect().and_then(|hierarchy| hierarchy.find(names::CGROUP)).or_problem(
        "cgroup",
        format_args!("the control group of cluster {cluster} cannot be looked for"),
    )?;
    for folder in top.iter().flat_map(Cgroup::folders) {
        // Only empty ones go: they may hold nodes of a container's cluster, or another cluster's, or just get one.
        let _ = std::fs::remove_dir(folder.join(cluster.as_str()));
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

/// What clusters share, when the last one goes.
fn remove_shared(state: &StateFolder) -> Result<(), Problem> {
    if !state.0.exists() {
        return Ok(());
    }
    let lock = parameters::lock(state, "remove what clusters share")?;
    if !state.clusters()?.is_empty() {
        return Ok(());
    }
    restore_parameters()?;
    let trash = state.trash();
    remove_tree(&trash).or_problem("trash", format_args!("{trash} cannot be removed"))?;
    let removed = remove_file(&state.lock());
    drop(lock);
    // The folder itself goes if nothing else is in it.
    let _ = std::fs::remove_dir(&state.0);
    removed
}

/// Under the lock, so that a cluster of another state folder, which makes its bridge first, is seen or sees what was undone.
fn restore_parameters() -> Result<(), Problem> {
    let notes = Notes::of_machine();
    let _lock = notes.lock("undo changes of kernel parameters")?;
    // Clusters whose folder was deleted by hand, or that are kept in another one, still need it.
    let restored = if observe::has_bridges()? { Ok(()) } else { parameters::restore(&notes) };
    notes.tidy();
    restored
}

/// Deletes what commands left that were killed while they deleted it.
fn empty_trash(state: &StateFolder) -> Result<(), Problem> {
    let trash = state.trash();
    let Ok(entries) = trash.read_dir_utf8() else { return Ok(()) };
    for entry in entries.flatten() {
        let pid = entry.file_name().split('-').next().and_then(|pid| pid.parse::<u32>().ok());
        let alive = |pid: u32| {
            !bivouac_sys::process::ProcessId::of(pid).is_err_and(|error| error.is_absent())
        };
        if pid.is_some_and(|pid| !alive(pid)) {
            let path = entry.path();
            remove_tree(path).or_problem("trash", format_args!("{path} cannot be removed"))?;
        }
    }
    Ok(())
}

/// Moves a folder away at once and then deletes it, so that a command that is killed meanwhile leaves no half of it behind under
/// its name. `is_quiet` when no process is left that could put a link in the place of a folder meanwhile.
fn discard(state: &StateFolder, path: &Utf8Path, is_quiet: bool) -> Result<(), Problem> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    if path.symlink_metadata().is_err() {
        return Ok(());
    }
    let message = format!("{path} cannot be removed");
    let mounted = mounts_below(path).or_problem("folder", &message)?;
    if let Some(mount) = mounted.first() {
        // Deleting would go on in there, and that may be anything.
        let target = mount.target.display();
        return Err(failed(
            "mounted",
            format_args!("{path} is not removed: {target} is mounted in it"),
        )
        .help(format!("unmount it with `umount {target}`")));
    }
    let trash = state.trash();
    folder::ensure(&trash)?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let target = trash.join(format!(
        "{}-{number}-{}",
        std::process::id(),
        path.file_name().unwrap_or_default()
    ));
    match std::fs::rename(path, &target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.or_problem("folder", &message)?,
    }
    let removed = if is_quiet { remove_quiet_tree(&target) } else { remove_tree(&target) };
    removed.or_problem("folder", &message)
}

fn remove_file(path: &Utf8Path) -> Result<(), Problem> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.or_problem("folder", format_args!("{path} cannot be removed")),
    }
}

/// Every node of a cluster of which anything is left anywhere.
pub(super) fn nodes_of(
    state: &StateFolder,
    cluster: &ClusterName,
) -> Result<BTreeSet<NodeName>, Problem> {
    let mut nodes: BTreeSet<NodeName> = state.cluster(cluster).nodes()?.into_iter().collect();
    nodes.extend(observe::nodes_in_kernel(state, cluster)?);
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trash_of_the_dead_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder(dir.path().to_owned().try_into().unwrap());
        empty_trash(&state).unwrap();
        let own = format!("{}-0-demo", std::process::id());
        let dead = format!("{}-0-demo", u32::MAX);
        for name in [&own, &dead] {
            folder::ensure(&state.trash().join(name).join("upper")).unwrap();
        }
        empty_trash(&state).unwrap();
        assert!(state.trash().join(own).exists() && !state.trash().join(dead).exists());
    }
}
