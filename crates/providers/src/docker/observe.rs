//! What exists, asked of the engine: containers, volumes and networks carry our labels.

use std::collections::{BTreeMap, HashMap};

use bivouac_spec::facts::ObservedState;
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, ObservedNode, Problem};
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, Network, Volume};
use bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions,
};
use ipnet::IpNet;

use super::engine::Engine;
use super::problem::OrProblem as _;
use super::{names, record};

/// Everything of ours on the engine.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) containers: Vec<ContainerSummary>,
    pub(super) volumes: Vec<Volume>,
    pub(super) networks: Vec<Network>,
}

/// Lists what this provider made: all of it, or that of one cluster.
pub(super) async fn find(
    engine: &Engine,
    provider: &str,
    cluster: Option<&ClusterName>,
) -> Result<Found, Problem> {
    let cluster = cluster.map_or("", ClusterName::as_str);
    let filters = || Some(names::filter([(names::PROVIDER, provider), (names::CLUSTER, cluster)]));
    let containers =
        ListContainersOptions { all: true, filters: filters(), ..ListContainersOptions::default() };
    let volumes = ListVolumesOptions { filters: filters() };
    let networks = ListNetworksOptions { filters: filters() };
    let (containers, volumes, networks) = futures::join!(
        engine.docker.list_containers(Some(containers)),
        engine.docker.list_volumes(Some(volumes)),
        engine.docker.list_networks(Some(networks)),
    );
    let mut found = Found {
        containers: containers
            .or_problem("containers", "the containers of the container engine cannot be listed")?,
        volumes: volumes
            .or_problem("volumes", "the volumes of the container engine cannot be listed")?
            .volumes
            .unwrap_or_default(),
        networks: networks
            .or_problem("networks", "the networks of the container engine cannot be listed")?,
    };
    found.retain(provider, cluster);
    Ok(found)
}

impl Found {
    /// Leaves out what is not asked for: podman lists volumes and networks that have any of several labels.
    fn retain(&mut self, provider: &str, cluster: &str) {
        let says = |labels: &HashMap<String, String>, name, value: &str| {
            labels.get(name).is_some_and(|label| value.is_empty() || label == value)
        };
        let is_asked_for = |labels: &HashMap<String, String>| {
            says(labels, names::PROVIDER, provider) && says(labels, names::CLUSTER, cluster)
        };
        self.containers.retain(|it| it.labels.as_ref().is_some_and(is_asked_for));
        self.volumes.retain(|it| is_asked_for(&it.labels));
        self.networks.retain(|it| it.labels.as_ref().is_some_and(is_asked_for));
    }
}

/// Every cluster.
pub(super) async fn clusters(
    engine: &Engine,
    provider: &str,
) -> Result<Vec<ObservedCluster>, Problem> {
    let found = find(engine, provider, None).await?;
    let running = found.containers.iter().filter(|it| state(it) == ObservedState::Running);
    let pids = futures::future::join_all(running.map(|container| pid(engine, container))).await;
    Ok(clusters_of(&found, &pids.into_iter().flatten().collect()))
}

/// The first process of a node, which is one of this machine where the engine is.
async fn pid(engine: &Engine, container: &ContainerSummary) -> Option<(String, u32)> {
    engine.local?;
    let id = container.id.clone()?;
    let inspected = engine.docker.inspect_container(&id, None::<InspectContainerOptions>).await;
    let pid = inspected.ok()?.state?.pid.and_then(|pid| u32::try_from(pid).ok())?;
    (pid > 0).then_some((id, pid))
}

fn clusters_of(found: &Found, pids: &HashMap<String, u32>) -> Vec<ObservedCluster> {
    let mut clusters: BTreeMap<ClusterName, ObservedCluster> = BTreeMap::new();
    for network in &found.networks {
        let Some(cluster) = cluster(&mut clusters, network.labels.as_ref()) else { continue };
        cluster.networks = ranges(network);
    }
    for volume in &found.volumes {
        let Some(cluster) = cluster(&mut clusters, Some(&volume.labels)) else { continue };
        if record::is_record(volume) {
            // Of a node that is seen by its data.
            continue;
        }
        match node_of(&volume.labels) {
            // Its container is seen below, if there is one.
            Some(node) => drop(cluster.nodes.insert(node, broken())),
            None => cluster.remains.push(format!("volume {}", volume.name)),
        }
    }
    for container in &found.containers {
        let labels = container.labels.clone().unwrap_or_default();
        let Some(cluster) = cluster(&mut clusters, Some(&labels)) else { continue };
        match node_of(&labels) {
            Some(node) => {
                let seen = node_from(container, &labels, &found.volumes, pids);
                cluster.nodes.insert(node, seen);
            }
            None => {
                let name = container.names.iter().flatten().next().map_or("?", String::as_str);
                cluster.remains.push(format!("container {}", name.trim_start_matches('/')));
            }
        }
    }
    clusters.into_values().collect()
}

/// The networks that were asked for.
fn ranges(network: &Network) -> Vec<IpNet> {
    let ranges = network.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    let asked = network.labels.as_ref().and_then(|labels| labels.get(names::NETWORKS));
    let is_asked = |range: &IpNet| {
        let mut asked = asked.iter().flat_map(|text| text.split(','));
        asked.any(|asked| asked.parse() == Ok(*range))
    };
    let ranges = ranges.filter_map(|range| range.subnet.as_ref()?.parse().ok());
    ranges.filter(|range| asked.is_none() || is_asked(range)).collect()
}

fn cluster<'a>(
    clusters: &'a mut BTreeMap<ClusterName, ObservedCluster>,
    labels: Option<&HashMap<String, String>>,
) -> Option<&'a mut ObservedCluster> {
    let name: ClusterName = labels?.get(names::CLUSTER)?.parse().ok()?;
    let new = || ObservedCluster {
        name: name.clone(),
        networks: Vec::new(),
        nodes: BTreeMap::new(),
        remains: Vec::new(),
    };
    Some(clusters.entry(name.clone()).or_insert_with(new))
}

pub(super) fn node_of(labels: &HashMap<String, String>) -> Option<NodeName> {
    labels.get(names::NODE)?.parse().ok()
}

/// Only its data is there.
const fn broken() -> ObservedNode {
    ObservedNode { state: ObservedState::Broken, address: None, record: None, pid: None }
}

fn node_from(
    container: &ContainerSummary,
    labels: &HashMap<String, String>,
    volumes: &[Volume],
    pids: &HashMap<String, u32>,
) -> ObservedNode {
    let id = container.id.as_deref().unwrap_or_default();
    ObservedNode {
        state: state(container),
        address: labels.get(names::ADDRESS).and_then(|text| text.parse().ok()),
        record: record::of(id, Some(labels), volumes),
        pid: pids.get(id).copied(),
    }
}

fn state(container: &ContainerSummary) -> ObservedState {
    use ContainerSummaryStateEnum as State;
    match container.state {
        Some(State::RUNNING | State::RESTARTING | State::STOPPING) => ObservedState::Running,
        // One that is paused does nothing until it is started again, like any that is stopped.
        Some(State::REMOVING | State::DEAD) => ObservedState::Broken,
        _ => ObservedState::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_nobody_asked_for_is_not_the_cluster_s() {
        let range = |subnet: &str| bollard::models::IpamConfig {
            subnet: Some(subnet.to_owned()),
            ..bollard::models::IpamConfig::default()
        };
        let config = Some(vec![range("fd00:89::/64"), range("172.18.0.0/16")]);
        let ipam = bollard::models::Ipam { config, ..bollard::models::Ipam::default() };
        let mut network = Network { ipam: Some(ipam), ..Network::default() };
        assert_eq!(ranges(&network).len(), 2);
        network.labels = Some([(names::NETWORKS.to_owned(), "fd00:89::/64".to_owned())].into());
        assert_eq!(ranges(&network), ["fd00:89::/64".parse().unwrap()]);
    }

    #[test]
    fn things_of_other_clusters_are_left_out_if_an_engine_lists_them() {
        let volume = |provider: &str, cluster: &str| Volume {
            name: format!("{provider} {cluster}"),
            labels: names::labels(provider, &cluster.parse().unwrap()),
            ..Volume::default()
        };
        let all = || Found {
            volumes: vec![volume("docker", "demo"), volume("docker", "b"), volume("compose", "b")],
            networks: vec![Network::default()],
            containers: vec![ContainerSummary::default()],
        };
        let left = |cluster: &str| {
            let mut found = all();
            found.retain("docker", cluster);
            assert_eq!((found.networks.len(), found.containers.len()), (0, 0));
            found.volumes.into_iter().map(|it| it.name).collect::<Vec<_>>()
        };
        assert_eq!(left("demo"), ["docker demo"]);
        assert_eq!(left(""), ["docker demo", "docker b"]);
    }

    #[test]
    fn what_is_left_of_a_cluster_is_seen() {
        let (demo, node) = ("demo".parse().unwrap(), "worker-0".parse().unwrap());
        let labels = names::node_labels("docker", &demo, &node);
        let volume = |labels: &HashMap<String, String>| Volume {
            name: "data".to_owned(),
            labels: labels.clone(),
            ..Volume::default()
        };
        let mut found = Found {
            volumes: vec![volume(&labels), volume(&names::labels("docker", &demo))],
            ..Found::default()
        };
        let seen = clusters_of(&found, &HashMap::new());
        assert_eq!(seen[0].nodes[&node].state, ObservedState::Broken);
        assert_eq!(seen[0].remains, ["volume data"]);
        found.containers.push(ContainerSummary {
            id: Some("1".to_owned()),
            labels: Some(labels),
            state: Some(ContainerSummaryStateEnum::RUNNING),
            ..ContainerSummary::default()
        });
        let seen = clusters_of(&found, &HashMap::from([("1".to_owned(), 7)]));
        assert_eq!(seen[0].nodes[&node].state, ObservedState::Running);
        assert_eq!(seen[0].nodes[&node].pid, Some(7));
        found.containers[0].state = Some(ContainerSummaryStateEnum::PAUSED);
        let seen = clusters_of(&found, &HashMap::new());
        assert_eq!(seen[0].nodes[&node].state, ObservedState::Stopped);
    }
}
