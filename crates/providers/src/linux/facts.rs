//! What this machine is like.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use bivouac_spec::Problem;
use bivouac_spec::facts::{Aspect, CgroupVersion, Facts};
use bivouac_spec::quantity::Bytes;
use bivouac_sys::capability::{self, Capabilities};
use bivouac_sys::cgroup::{Hierarchy, Version};
use bivouac_sys::filesystem::space;
use bivouac_sys::namespace;
use bivouac_sys::netlink::Link;
use camino::Utf8Path;
use ipnet::IpNet;

use super::disk;
use super::filesystems::file_systems;
use super::folder::StateFolder;
use super::names::Owner;
use super::problem::OrProblem as _;

/// All facts. What cannot be told is the least that it may be.
pub(super) fn facts(state: &StateFolder) -> Result<Facts, Problem> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = Hierarchy::detect().map_or(Version::V2, |hierarchy| hierarchy.version());
    let cpus = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let file_systems = file_systems();
    let no_disks = disk::refusal(kernel.trim(), &file_systems);
    Ok(Facts {
        kernel: kernel.trim().to_owned(),
        architecture: architecture().to_owned(),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        memory: Bytes(memory()),
        disk_free: Bytes(space(existing(&state.0)).map_or(0, |space| space.available)),
        cgroup: match version {
            Version::V1 => CgroupVersion::V1,
            Version::V2 => CgroupVersion::V2,
        },
        raises_limits: raises_limits(),
        shares_kernel: true,
        shares_images: true,
        open_files: open_files(),
        occupied: occupied().or_problem("netlink", "the host's networks cannot be listed")?,
        reaches_nodes: true,
        shares_network: true,
        file_systems,
        // There is one, whatever its machine id says: that may change.
        identity: String::new(),
        place: "this machine".to_owned(),
        remakes_for: vec![Aspect::Image, Aspect::Disk],
        remote: false,
        no_disks,
    })
}

/// The path, or what is nearest above it and exists.
pub(super) fn existing(path: &Utf8Path) -> &Utf8Path {
    path.ancestors().find(|path| path.exists()).unwrap_or(Utf8Path::new("/"))
}

/// The most files that a process of a node can have open.
pub(super) fn open_files() -> u64 {
    if raises_limits() {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        if let Ok(most) = most.trim().parse() {
            return most;
        }
    }
    rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

fn raises_limits() -> bool {
    capability::has(Capabilities::SYS_RESOURCE).unwrap_or(false)
        && namespace::is_first_user().unwrap_or(false)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Memory of the machine in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}

/// Networks that are in use, and for what. Those of bivouac's clusters are told as `cluster NAME`.
fn occupied() -> bivouac_sys::Result<BTreeMap<IpNet, String>> {
    crate::occupied::occupied(owner)
}

/// The cluster of this provider whose link it is.
pub(crate) fn owner(link: &Link) -> Option<String> {
    match link.alias.as_deref().and_then(Owner::parse)? {
        Owner::Cluster(cluster) | Owner::Node(cluster, ..) => Some(format!("cluster {cluster}")),
    }
}
