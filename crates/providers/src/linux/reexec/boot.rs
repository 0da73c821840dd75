//! Starting a node.
//!
//! ```text
//! command ── this process: lock, cgroup, namespaces, link
//!               └── fork: number 1 of the new pid namespace: cgroup, root, exec of the agent
//! ```
//!
//! This process ends when the agent's program runs; the node then depends on nobody.

use std::path::Path;
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_sys::cgroup::{Cgroup, Hierarchy, Version};
use bivouac_sys::namespace::{Namespace, unshare};
use bivouac_sys::process::ProcessId;

use super::super::order::Boot;
use super::super::problem::{OrProblem as _, acquire, failed};
use super::super::record::{NodeRecord, noted_process, write_secret};
use super::super::{disk, group, limits, names};
use super::{fork_until_exec, link, root};

/// How long another command may take to start or remove the same node.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the node unless it runs. When it fails, what it made so far is taken away or found again by the next try.
pub(super) fn boot(boot: &Boot) -> Result<(), Problem> {
    let label = names::label(&boot.cluster, &boot.node);
    let _lock = acquire(&boot.folder.lock(), "start", PATIENCE, format_args!("node {label}"))?;
    if noted_process(&boot.folder).is_some() {
        return Ok(());
    }
    let hierarchy = Hierarchy::detect().or_problem("cgroup", "control groups cannot be used")?;
    let cgroup = ensure_cgroup(boot, &hierarchy)
        .or_problem("cgroup", format_args!("the control group of node {label} cannot be made"))?;
    // Before anything is in it.
    note(boot, |record| record.groups = cgroup.folders().map(Path::to_owned).collect())?;
    if cgroup.version() == Version::V2 {
        // The agent moves there. A command that is run before it does must not join a group that soon may have no processes.
        for folder in cgroup.folders() {
            fs_err::create_dir(folder.join("init")).or_problem(
                "cgroup",
                format_args!("the group of node {label} cannot be divided"),
            )?;
        }
    }

    // Its tools are no processes of the node.
    let disk = disk::ensure(boot)?;
    note(boot, |record| record.made.resources.disk = boot.resources.disk)?;
    // The pid namespace is that of the child. Two are left to the child: this process must still see the host's files, and a
    // cgroup namespace has the group of its maker as its root.
    let host = link::open_host()?;
    let namespaces = [Namespace::Pid, Namespace::Network, Namespace::Uts, Namespace::Ipc];
    unshare(&namespaces)
        .or_problem("namespaces", format_args!("the namespaces of node {label} cannot be made"))?;
    link::connect(boot, &host)?;
    let pid =
        fork_until_exec(|| root::become_first_process(boot, disk.as_ref(), &hierarchy, &cgroup))
            .inspect_err(|_| link::disconnect(boot, &host))?;
    let process = ProcessId::of(pid)
        .or_problem("died", format_args!("the agent of node {label} ended at once"))
        .map_err(|problem| problem.help(format!("read {}", boot.folder.console())))?;
    write_secret(&boot.folder.process(), process.to_string().as_bytes())?;
    // Last: the agent works meanwhile.
    NodeRecord::sync(&boot.folder)
}

/// Writes down what is there now.
fn note(boot: &Boot, change: impl FnOnce(&mut NodeRecord)) -> Result<(), Problem> {
    let path = boot.folder.record();
    let mut record = NodeRecord::read(&boot.folder)?
        .ok_or_else(|| failed("record", format_args!("{path} cannot be read")))?;
    change(&mut record);
    record.write(&boot.folder)
}

/// The node's group, with its limits and without leftovers of an earlier life.
fn ensure_cgroup(boot: &Boot, hierarchy: &Hierarchy) -> bivouac_sys::Result<Cgroup> {
    let name = names::node_cgroup(&boot.cluster, &boot.node);
    if let Some(old) = group::recall(hierarchy, &boot.leftover, &name) {
        old.kill_all(PATIENCE)?;
        // Groups of pods would otherwise stay for ever, and on version 2 a group with members has no place for processes.
        old.remove(PATIENCE)?;
    }
    let cgroup = match Cgroup::ensure(hierarchy, &name) {
        // Another command has just removed the last node of another cluster, and the folder above with it.
        Err(error) if error.is_absent() => Cgroup::ensure(hierarchy, &name)?,
        other => other?,
    };
    cgroup.set_limits(limits::limits(boot.resources))?;
    Ok(cgroup)
}
