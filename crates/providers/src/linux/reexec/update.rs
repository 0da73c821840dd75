//! Making a node what it is to be while it runs: limits, routes, whom it knows, its config, and what it sees of the machine.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use bivouac_sys::machine;
use bivouac_sys::namespace::{Namespace, enter};
use bivouac_sys::netlink::Route;
use camino::Utf8Path;

use super::super::order::Update;
use super::super::problem::{OrProblem as _, acquire, failed};
use super::super::{group, limits, names};
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
        limits::set(&found.ok_or_else(missing)?, &label, resources)?;
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
        Some(resources) => machine::show(limits::view(resources), "/", STAGE)
            .or_problem("machine", format_args!("node {label} cannot be shown its limits")),
        None => Ok(()),
    }
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
