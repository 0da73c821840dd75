//! Making a node what it is to be while it runs: limits, routes, whom it knows, its config, and what it sees of the machine.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_spec::cluster::Resources;
use bivouac_spec::node::paths;
use bivouac_spec::quantity::Bytes;
use bivouac_sys::cgroup::Cgroup;
use bivouac_sys::machine;
use bivouac_sys::namespace::{Namespace, enter};
use bivouac_sys::netlink::Route;
use camino::Utf8Path;

use super::super::order::Update;
use super::super::problem::{OrProblem as _, acquire, failed};
use super::super::{group, names};
use super::link;
use crate::hosts::render_hosts;

/// How long another command may take to start or remove the same node.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the node's view of the machine is made, inside of it.
pub(super) const STAGE: &str = "/run/.machine";

/// Changes the node. What was done stays done when something else fails: the next try does the rest.
pub(super) fn update(order: &Update) -> Result<(), Problem> {
    let (cluster, node, folder) = (&order.node.cluster, &order.node.node, &order.node.folder);
    let label = names::label(cluster, node);
    let _lock = acquire(&folder.lock(), "change", PATIENCE, format_args!("node {label}"))?;
    let process = order.node.open()?;
    // First: it is what the kernel may refuse.
    if let Some(resources) = order.resources {
        let found = group::find(folder, cluster, node)?;
        let missing = || failed("cgroup", format_args!("node {label} has no control group"));
        limit(&found.ok_or_else(missing)?, &label, resources)?;
    }
    let host = link::open_host()?;
    let own = link::own_addresses(&order.addresses, node)?;
    link::route_pods(&host, own, &names::bridge(cluster))
        .or_problem("link", format_args!("the pods of node {label} cannot be routed"))?;
    let config = order.config.then(|| fs_err::read(folder.config())).transpose();
    let config =
        config.or_problem("config", format_args!("the config of node {label} cannot be read"))?;

    enter(&process, &[Namespace::Mount, Namespace::Network])
        .or_problem("enter", format_args!("node {label} cannot be entered"))?;
    Route::open()
        .and_then(|route| link::route_outwards(&route, &order.addresses, node))
        .or_problem("link", format_args!("node {label} cannot be given its routes"))?;
    let hosts = render_hosts(cluster, node, &order.addresses);
    replace("/etc/hosts", 0o644, hosts.as_bytes())?;
    if let Some(config) = config {
        replace(paths::CONFIG, 0o600, &config)?;
    }
    match order.resources {
        Some(resources) => machine::show(view(resources), "/", STAGE)
            .or_problem("machine", format_args!("node {label} cannot be shown its limits")),
        None => Ok(()),
    }
}

/// What a node with these limits sees of the machine.
pub(super) fn view(resources: Resources) -> machine::View {
    machine::View {
        cpus: resources.cpus.map(|cpus| cpus.0.div_ceil(1000)),
        memory: resources.memory.map(|memory| memory.0),
    }
}

fn limit(group: &Cgroup, label: &str, resources: Resources) -> Result<(), Problem> {
    let message = format!("the limits of node {label} cannot be changed");
    let in_use = || group.memory_in_use().or_problem("limits", &message);
    if let (Some(memory), Some(used)) = (resources.memory, in_use()?)
        && used > memory.0
    {
        return Err(too_little(label, memory, used));
    }
    match (group.set_limits(group::limits(resources)), resources.memory) {
        (Err(error), Some(memory)) if error.is_busy() => {
            let used = in_use()?.unwrap_or_default();
            Err(too_little(label, memory, used).because(&error))
        }
        (other, _) => other.or_problem("limits", &message).map_err(|problem| {
            problem.help("look whether something in the node, such as a pod, has a higher limit")
        }),
    }
}

/// Both are told in the same unit.
fn too_little(label: &str, limit: Bytes, used: u64) -> Problem {
    let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
    let message = format!(
        "node {label} cannot be limited to {} MiB of memory: it uses {} MiB",
        mebibytes(limit.0),
        mebibytes(used)
    );
    failed("memory_in_use", message).help(
        "choose a larger `resources.memory` in the cluster file, or stop something in the node",
    )
}

/// Writes a file of the node, whole or not at all.
fn replace(path: &str, mode: u32, content: &[u8]) -> Result<(), Problem> {
    let path = Utf8Path::new(path);
    let name = path.file_name().unwrap_or_default();
    let new = path.with_file_name(format!(".{name}.new-{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        // The mode at creation has the umask taken off.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write()
        .inspect_err(|_| _ = std::fs::remove_file(&new))
        .or_problem("write", format_args!("{path} of the node cannot be replaced"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::quantity::Cpus;

    #[test]
    fn a_part_of_a_processor_is_seen_as_one() {
        for (millis, seen) in [(100, 1), (1000, 1), (1001, 2), (2000, 2)] {
            let resources = Resources { cpus: Some(Cpus(millis)), memory: Some(Bytes(1 << 30)) };
            let expected = machine::View { cpus: Some(seen), memory: Some(1 << 30) };
            assert_eq!(view(resources), expected);
        }
        assert_eq!(view(Resources::default()), machine::View::default());
    }

    #[test]
    fn both_numbers_are_told() {
        let problem = too_little("demo/worker-0", Bytes(512 << 20), (700 << 20) + 1);
        let text = "node demo/worker-0 cannot be limited to 512 MiB of memory: it uses 701 MiB";
        assert_eq!(problem.message, text);
    }
}
