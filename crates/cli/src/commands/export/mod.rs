//! `bivouac export`: a cluster as documents, for those who make it without bivouac.

mod folder;
mod readme;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::SystemTime;

use bivouac_engine::{
    Api, Event, GROUND_PATIENCE, NodeImages as _, Reporter, StepState, Unit, addresses_of_ground,
    published_ports,
};
use bivouac_plan::{assign_addresses, check_disks};
use bivouac_provider::{NetworkRequest, NodeRequest, Progress};
use bivouac_providers::docker;
use bivouac_providers::docker::compose::{ExportRequest, export};
use bivouac_providers::is_absent;
use bivouac_spec::cluster::{Cluster, DockerProvider, Protocol, Provider};
use bivouac_spec::facts::{Applied, CgroupVersion, Facts};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{ClusterName, NodeName, Problem, Problems, PublishedPort};
use bivouac_stacks::{Access, Given, RenderRequest};
use camino::Utf8PathBuf;
use serde::Serialize;

use self::folder::{ExportFolder, Record};
use crate::args::{self, ExportCompose, Global, Source};
use crate::grounds::open_ground;
use crate::images::StoreImages;
use crate::selection::cluster_asked_for;
use crate::{home, output, progress, signals, sources};

/// The API's port on the host when the cluster file names none.
const API_PORT: u16 = 6443;

/// The most open files that every engine gives: the hard limit of services of systemd.
const OPEN_FILES: u64 = 524_288;

/// What was exported.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    cluster: ClusterName,
    folder: Utf8PathBuf,
    nodes: Vec<NodeName>,
    /// The image that is built from the folder.
    image: String,
    /// Where the API is reached on the machine that the cluster comes up on.
    server: String,
}

pub async fn run(global: &Global, export: &args::Export) -> Result<ExitCode, Problems> {
    match &export.command {
        args::ExportCommand::Compose(compose) => run_compose(global, compose).await,
    }
}

async fn run_compose(global: &Global, asked: &ExportCompose) -> Result<ExitCode, Problems> {
    let source = Source { file: asked.file.clone(), name: asked.name.clone(), provider: None };
    let cluster = cluster_asked_for(global, &source)?;
    let folder = ExportFolder::open(&asked.output_dir, cluster.name())?;
    let reporter = progress::reporter(global);
    let (facts, privileged) = facts(global, &cluster, &reporter).await?;
    Problems::check(check_disks(&cluster, &facts))?;
    let shown = write(global, &Wanted { cluster, facts, privileged, folder }, &reporter).await?;
    drop(reporter);
    output::write(asked.output, &shown, || {
        let Shown { cluster, folder, server, .. } = &shown;
        format!(
            "exported cluster {cluster} to {folder}; its API will be at {server}\n\
             make it with `docker compose --project-directory {folder} up --detach --wait`\n"
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Wanted {
    cluster: Cluster,
    facts: Facts,
    privileged: bool,
    folder: ExportFolder,
}

async fn write(global: &Global, wanted: &Wanted, reporter: &Reporter) -> Result<Shown, Problems> {
    let Wanted { cluster, facts, privileged, folder } = wanted;
    let addresses = {
        // Addresses stay as long as the networks that are asked for do.
        let known = folder.record.as_ref().map(|record| &record.applied);
        let same = |known: &&Applied| known.cluster.spec.network == cluster.spec.network;
        let existing = known.filter(same).map(|known| &known.addresses);
        let mut occupied = facts.occupied.clone();
        // On this machine they may be its own.
        occupied.retain(|_, occupant| *occupant != format!("cluster {}", cluster.name()));
        assign_addresses(cluster, &occupied, existing)?
    };
    let given = Given { found: sources::found(cluster)?, drain: None };
    let stack = bivouac_stacks::open_with(&cluster.spec.stack, given)?;
    let joined = BTreeSet::new();
    let render = RenderRequest { cluster, addresses: &addresses, facts, joined: &joined };
    let keys = stack.ensure_keys(folder.keys()?, &render, SystemTime::now())?;
    let configs = stack.render(&render, &keys)?;
    let access = stack.access(&render, &keys)?;

    let images = StoreImages::of(global, &cluster.spec.stack);
    let image = images.ensure(&images.current()?, reporter, &signals::cancellation()).await?;
    let network = NetworkRequest {
        cluster: cluster.name().clone(),
        addresses: addresses_of_ground(cluster, &addresses),
        ports: ports(cluster, &access),
    };
    let resources: BTreeMap<NodeName, _> =
        cluster.nodes().into_iter().map(|node| (node.name, node.resources)).collect();
    let agent = home::own_binary()?;
    let nodes = configs.into_iter().map(|(node, config)| NodeRequest {
        cluster: network.cluster.clone(),
        addresses: network.addresses.clone(),
        ports: network.ports.iter().filter(|port| port.node == node).cloned().collect(),
        resources: resources.get(&node).copied().unwrap_or_default(),
        image: image.clone(),
        agent: agent.clone(),
        config,
        node,
    });
    let nodes: Vec<NodeRequest> = nodes.collect();
    let at = reached_at(&network.ports, &access);

    // Keys first: what was handed out once must be found again, wherever this ends.
    folder.write_keys(&keys)?;
    folder.write_record(&Record::new(cluster.clone(), addresses.clone()))?;
    let exporting = Exporting {
        folder: folder.path.clone(),
        network,
        nodes,
        architecture: facts.architecture.clone(),
        privileged: *privileged,
    };
    let nodes = exporting.nodes.iter().map(|node| node.node.clone()).collect();
    let image = exporting.run(reporter).await?;
    if let Access::Kubernetes(kubernetes) = &access {
        let kubeconfig = bivouac_pki::merge(None, &kubernetes.kubeconfig(at), true)
            .map_err(|error| Problem::from_error("kubeconfig.unmergeable", &error))?;
        folder.write("kubeconfig", kubeconfig.as_bytes(), 0o600)?;
    }
    folder.write("README.md", readme::render(cluster, access.node(), at).as_bytes(), 0o644)?;
    folder.hand_over()?;
    Ok(Shown {
        cluster: cluster.name().clone(),
        folder: folder.path.clone(),
        nodes,
        image,
        server: format!("https://{at}"),
    })
}

/// What is written by a thread that may block.
struct Exporting {
    folder: Utf8PathBuf,
    network: NetworkRequest,
    nodes: Vec<NodeRequest>,
    architecture: String,
    privileged: bool,
}

impl Exporting {
    async fn run(self, reporter: &Reporter) -> Result<String, Problem> {
        let reporter = reporter.clone();
        let write = move || {
            let request = ExportRequest {
                folder: &self.folder,
                network: &self.network,
                nodes: &self.nodes,
                architecture: &self.architecture,
                privileged: self.privileged,
            };
            export(&request, &|progress| report(&reporter, progress))
        };
        let written = tokio::task::spawn_blocking(write).await;
        let exported = written.map_err(|error| Problem::from_error("cli.thread", &error))??;
        Ok(exported.image)
    }
}

fn report(reporter: &Reporter, progress: Progress) {
    let Progress { done, total } = progress;
    reporter.report(Event::Step(bivouac_engine::Progress {
        step: "node image to the folder".to_owned(),
        state: if done < total { StepState::Running } else { StepState::Done },
        done,
        total,
        unit: Unit::Bytes,
        remaining: None,
        detail: None,
    }));
}

/// All ports, each with one of the host: whoever makes the cluster has nobody to choose one.
fn ports(cluster: &Cluster, access: &Access) -> Vec<PublishedPort> {
    let api = Api { node: access.node(), port: access.address().port() };
    let mut ports = published_ports(cluster, api, false);
    let taken: Vec<u16> = ports
        .iter()
        .filter(|port| port.protocol == Protocol::Tcp)
        .filter_map(|port| port.host_port)
        .collect();
    let mut free = (API_PORT..=u16::MAX).filter(|number| !taken.contains(number));
    for port in ports.iter_mut().filter(|port| port.host_port.is_none()) {
        port.host_ip = Some(Ipv4Addr::LOCALHOST.into());
        port.host_port = free.next();
    }
    ports
}

/// Where the API is reached on the host.
fn reached_at(ports: &[PublishedPort], access: &Access) -> SocketAddr {
    let is_api = |port: &&PublishedPort| {
        port.node == *access.node()
            && port.port == access.address().port()
            && port.protocol == Protocol::Tcp
    };
    let port = ports.iter().find(is_api);
    let ip = port.and_then(|port| port.host_ip).filter(|ip| !ip.is_unspecified());
    let number = port.and_then(|port| port.host_port).unwrap_or(API_PORT);
    SocketAddr::new(ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), number)
}

/// What the ground is like, and whether it can give nodes all rights: asked of the engine where one answers. Elsewhere, and where
/// another machine may differ, what every machine can do.
async fn facts(
    global: &Global,
    cluster: &Cluster,
    reporter: &Reporter,
) -> Result<(Facts, bool), Problem> {
    let settings = match &cluster.spec.provider {
        Provider::Docker(settings) | Provider::Compose(settings) => settings.clone(),
        Provider::Linux(_) => DockerProvider::default(),
    };
    let ground = open_ground(global, &Provider::Docker(settings));
    let survey = tokio::time::timeout(GROUND_PATIENCE, ground.provider.survey()).await;
    let unknown = unknown_facts();
    match survey {
        Ok(Ok(survey)) => {
            let privileged = survey.facts.raises_limits;
            let facts = Facts {
                raises_limits: privileged,
                open_files: survey.facts.open_files.min(unknown.open_files),
                occupied: survey.facts.occupied,
                ..unknown
            };
            Ok((facts, privileged))
        }
        Ok(Err(problem)) if !is_absent(&problem) => Err(problem),
        _ => {
            let note = "no container engine answers: the export is made for one with all rights, and with networks that may be \
                        taken where it is used; name them with `spec.network` to be sure";
            reporter.report(Event::Noted { note: note.to_owned() });
            Ok((unknown, true))
        }
    }
}

fn unknown_facts() -> Facts {
    Facts {
        kernel: String::new(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        cpus: u32::MAX,
        memory: Bytes(u64::MAX),
        disk_free: Bytes(u64::MAX),
        // Version 1 is put up with, version 2 is welcome.
        cgroup: CgroupVersion::V1,
        raises_limits: false,
        shares_kernel: true,
        shares_images: false,
        open_files: OPEN_FILES,
        occupied: BTreeMap::new(),
        reaches_nodes: false,
        shares_network: false,
        file_systems: BTreeSet::new(),
        identity: String::new(),
        place: String::new(),
        remakes_for: Vec::new(),
        remote: false,
        no_disks: Some(docker::no_disks()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::cluster::Port;

    fn exported(host_ip: &str, port: u16, host_port: u16) -> (Vec<PublishedPort>, SocketAddr) {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        let host_ip = host_ip.parse().unwrap();
        cluster.spec.ports.push(Port {
            host_port,
            port,
            node: None,
            host_ip,
            protocol: Protocol::Tcp,
        });
        let addresses = assign_addresses(&cluster, &BTreeMap::new(), None).unwrap();
        let facts = unknown_facts();
        let render = RenderRequest {
            cluster: &cluster,
            addresses: &addresses,
            facts: &facts,
            joined: &BTreeSet::new(),
        };
        let stack = bivouac_stacks::open(&cluster.spec.stack);
        let keys = stack.ensure_keys(None, &render, SystemTime::now()).unwrap();
        let access = stack.access(&render, &keys).unwrap();
        let ports = ports(&cluster, &access);
        let at = reached_at(&ports, &access);
        (ports, at)
    }

    #[test]
    fn every_port_has_one_of_the_host() {
        let (ports, at) = exported("127.0.0.1", 30_080, 6443);
        assert_eq!(at.to_string(), "127.0.0.1:6444");
        assert!(ports.iter().all(|port| port.host_port.is_some()));
    }

    #[test]
    fn the_api_is_where_the_file_says() {
        assert_eq!(exported("127.0.0.1", 6443, 36_443).1.to_string(), "127.0.0.1:36443");
        assert_eq!(exported("0.0.0.0", 6443, 36_443).1.to_string(), "127.0.0.1:36443");
        assert_eq!(exported("127.0.0.2", 6443, 36_443).1.to_string(), "127.0.0.2:36443");
    }
}
