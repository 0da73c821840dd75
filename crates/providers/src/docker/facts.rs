//! What the engine and its machine are like.

use std::collections::{BTreeMap, BTreeSet};

use bivouac_spec::facts::{CgroupVersion, Facts};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, Problem};
use bivouac_sys::filesystem::space;
use bivouac_sys::netlink::Link;
use bollard::models::{Network, SystemInfo, SystemInfoCgroupVersionEnum, SystemVersion};
use bollard::query_parameters::ListNetworksOptions;
use camino::Utf8Path;
use ipnet::IpNet;

use super::daemon::Daemon;
use super::engine::Engine;
use super::names;
use super::problem::OrProblem as _;
use super::update::REMAKES_FOR;

/// The open files that engines give where nothing else is said.
const OPEN_FILES: u64 = 1_048_576;

/// The free disk of an engine that does not say it: enough for everything, and an amount that can be written down and read again.
const DISK_UNKNOWN: Bytes = Bytes(1 << 59);

/// All facts, from what the engine says of itself. Of an engine elsewhere not all can be told: what is missing is told when a node
/// cannot start for it.
pub(super) async fn facts(engine: &Engine, info: &SystemInfo) -> Result<Facts, Problem> {
    let (networks, version) = futures::join!(
        engine.docker.list_networks(None::<ListNetworksOptions>),
        engine.docker.version()
    );
    let networks =
        networks.or_problem("networks", "the networks of the container engine cannot be listed")?;
    let version = version.or_problem("survey", "the container engine cannot be asked")?;
    let root = info.docker_root_dir.as_deref().map(Utf8Path::new);
    let free = root.filter(|_| engine.local.is_some()).and_then(|root| space(root).ok());
    // Nodes of an engine that cannot be looked at are made so that they do without.
    let raises_limits = engine.local.is_some_and(Daemon::raises_limits) && !is_rootless(info);
    let open_files = engine.local.and_then(|daemon| daemon.open_files(raises_limits));
    Ok(Facts {
        kernel: info.kernel_version.clone().unwrap_or_default(),
        architecture: architecture(info.architecture.as_deref().unwrap_or_default()).to_owned(),
        cpus: info.ncpu.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
        memory: Bytes(info.mem_total.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0)),
        disk_free: free.map_or(DISK_UNKNOWN, |space| Bytes(space.available)),
        cgroup: match info.cgroup_version {
            Some(SystemInfoCgroupVersionEnum::_1) => CgroupVersion::V1,
            _ => CgroupVersion::V2,
        },
        raises_limits,
        shares_kernel: true,
        shares_images: engine.local.is_some(),
        open_files: open_files.unwrap_or(OPEN_FILES),
        occupied: occupied(engine, &networks)?,
        reaches_nodes: false,
        shares_network: engine.local.is_some_and(Daemon::shares_network) && !is_rootless(info),
        // Containers get no loop devices.
        file_systems: BTreeSet::new(),
        identity: identity(info, is_podman(&version)),
        place: format!("the engine at {}", engine.endpoint),
        remakes_for: REMAKES_FOR.to_vec(),
        no_disks: Some(no_disks()),
        remote: !engine.is_socket() && engine.host(false).is_ok_and(|host| !host.is_loopback()),
    })
}

/// Nodes keep their data in volumes, because a volume outlives its container.
#[must_use]
pub fn no_disks() -> Problem {
    let message = "the data of a container's node is in a volume, and engines limit the size of none that they keep themselves";
    Problem::new(Class::Unfit, "provider.docker.no_disks", message)
        .help("leave `resources.disk` out, or use provider `linux`")
}

/// What tells an engine from others. The folder is part of it: before version 25 the id is that of the machine.
fn identity(info: &SystemInfo, is_podman: bool) -> String {
    // Podman says another id each time.
    let id = info.id.as_deref().filter(|id| !is_podman && !id.is_empty());
    let id = id.or(info.name.as_deref()).unwrap_or_default();
    let parts = [id, info.docker_root_dir.as_deref().unwrap_or_default()];
    parts.join(" ").trim().to_owned()
}

fn is_podman(version: &SystemVersion) -> bool {
    let components = version.components.iter().flatten();
    components.into_iter().any(|part| part.name.to_lowercase().contains("podman"))
}

/// Whether the engine is run by an ordinary user.
pub(super) fn is_rootless(info: &SystemInfo) -> bool {
    let options = info.security_options.iter().flatten();
    options.into_iter().any(|option| option.contains("name=rootless"))
}

/// Go's name of an architecture that the engine names as `uname` does.
pub(super) fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The networks of the engine, and of its machine where that is this one.
fn occupied(engine: &Engine, networks: &[Network]) -> Result<BTreeMap<IpNet, String>, Problem> {
    let mut occupied = BTreeMap::new();
    if engine.local.is_some() {
        let bridges: BTreeMap<String, String> =
            networks.iter().map(|network| (bridge(network), occupant(network))).collect();
        let owner = |link: &Link| bridges.get(&link.name).cloned().or_else(|| owner(link));
        let found = crate::occupied::occupied(owner);
        occupied = found.or_problem("netlink", "the host's networks cannot be listed")?;
    }
    for network in networks {
        let ranges = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
        for range in ranges.filter_map(|config| config.subnet.as_deref()?.parse::<IpNet>().ok()) {
            occupied.insert(range.trunc(), occupant(network));
        }
    }
    Ok(occupied)
}

#[cfg(feature = "linux")]
use crate::linux::owner;

#[cfg(not(feature = "linux"))]
fn owner(_: &Link) -> Option<String> {
    None
}

fn occupant(network: &Network) -> String {
    let cluster = network.labels.as_ref().and_then(|labels| labels.get(names::CLUSTER));
    match cluster {
        Some(cluster) => format!("cluster {cluster}"),
        None => format!("network {} of the engine", network.name.as_deref().unwrap_or("?")),
    }
}

/// The interface of a network, as the engine names it unless told otherwise.
fn bridge(network: &Network) -> String {
    let named = network.options.as_ref().and_then(|it| it.get("com.docker.network.bridge.name"));
    let id = network.id.as_deref().unwrap_or_default();
    named.cloned().unwrap_or_else(|| format!("br-{}", id.get(..12).unwrap_or(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_told_from_others() {
        let mut info = SystemInfo {
            id: Some("A:B".to_owned()),
            name: Some("host".to_owned()),
            docker_root_dir: Some("/data".to_owned()),
            ..SystemInfo::default()
        };
        assert_eq!(identity(&info, false), "A:B /data");
        assert_eq!(identity(&info, true), "host /data");
        info.id = None;
        assert_eq!(identity(&info, false), "host /data");
        assert_eq!(identity(&SystemInfo::default(), false), "");
    }

    #[test]
    fn what_is_not_known_of_a_disk_is_read_as_it_was_written() {
        let text = serde_json::to_string(&DISK_UNKNOWN).unwrap();
        assert_eq!(serde_json::from_str::<Bytes>(&text).unwrap(), DISK_UNKNOWN);
    }

    #[test]
    fn a_network_is_told_by_its_owner() {
        let mut network = Network {
            name: Some("web".to_owned()),
            id: Some("0123456789abcdef".to_owned()),
            ..Network::default()
        };
        assert_eq!(occupant(&network), "network web of the engine");
        assert_eq!(bridge(&network), "br-0123456789ab");
        network.labels = Some(names::labels("docker", &"demo".parse().unwrap()));
        assert_eq!(occupant(&network), "cluster demo");
        let name = ("com.docker.network.bridge.name".to_owned(), "docker0".to_owned());
        network.options = Some([name].into());
        assert_eq!(bridge(&network), "docker0");
    }
}
