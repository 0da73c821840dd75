//! This machine's kernel as a ground: each node is a set of namespaces. Needs no container engine and leaves no daemon.
//!
//! ```text
//!            host                                          node (PID 1 = bivouac agent)
//!  bridge bv-HEX = gateway ── host link ─┊─ eth0          own mounts, pids, network, name, ipc, cgroup view
//!  routes to pods, nftables bivouac-NAME ┊               / = overlay of the image and STATE/NAME/nodes/NODE/upper
//!  cgroup .../bivouac/NAME/NODE          ┊               databases and logs = STATE/NAME/nodes/NODE/data/*
//! ```
//!
//! Whatever makes or enters namespaces runs in a process of its own, see [`dispatch`]; the methods of [`LinuxProvider`] start
//! such processes and do the rest on blocking threads. What exists is asked of the kernel: names and labels are in `names`.
//!
//! Not here: what runs on a node (the agent, from the node config), and the kernel calls themselves (`bivouac_sys`).

mod disk;
mod facts;
mod filesystems;
mod folder;
mod forwarding;
mod group;
mod inotify;
mod ipv6;
mod launch;
mod limits;
mod logs;
mod names;
mod network;
mod node;
mod observe;
mod order;
mod parameters;
mod passage;
mod ports;
mod problem;
mod record;
mod reexec;
mod remove;
mod resolver;
mod rules;
mod sockets;
mod tree;
mod update;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bivouac_provider::{ImageRequest, NetworkRequest, Node, NodeRequest, Progress, Provider};
use bivouac_spec::facts::{Aspect, Survey};
use bivouac_spec::name::nearest;
use bivouac_spec::network::Families;
use bivouac_spec::{Addresses, ClusterName, NodeName, ObservedCluster, Problem};
use bivouac_sys::cgroup::Cgroup;
use camino::Utf8PathBuf;

use folder::{NodeFolder, StateFolder};
use node::LinuxNode;
use order::{Answer, Boot, Order};
use problem::{OrProblem as _, failed, join};
use record::NodeRecord;
use resolver::Resolver;

pub(crate) use facts::owner;
pub use reexec::dispatch;

/// What the provider needs to know.
#[derive(Debug, Clone)]
pub struct LinuxRequest {
    /// The folder where nodes are kept, on a file system that can be the upper layer of an overlay. Made when needed, and
    /// removed with the last cluster.
    pub state: Utf8PathBuf,
}

/// Nodes from namespaces of this machine's kernel.
#[derive(Debug, Clone)]
pub struct LinuxProvider {
    state: StateFolder,
}

/// Opens the provider. Touches nothing.
#[must_use]
pub fn open(request: LinuxRequest) -> LinuxProvider {
    LinuxProvider { state: StateFolder(request.state) }
}

#[async_trait]
impl Provider for LinuxProvider {
    async fn survey(&self) -> Result<Survey, Problem> {
        match launch::ask(&Order::Survey(self.state.clone())).await? {
            Answer::Surveyed(survey) => Ok(*survey),
            other => Err(failed("survey", format_args!("the survey ended with {other:?}"))),
        }
    }

    async fn observe(&self) -> Result<Vec<ObservedCluster>, Problem> {
        let state = self.state.clone();
        blocking(move || observe::clusters(&state)).await
    }

    /// Nodes mount the image from the store.
    async fn ensure_image(
        &self,
        _: &ImageRequest,
        _: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Problem> {
        Ok(())
    }

    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem> {
        let (state, request) = (self.state.clone(), request.clone());
        blocking(move || network::ensure(&state, &request)).await
    }

    async fn ensure_node(&self, request: &NodeRequest) -> Result<Arc<dyn Node>, Problem> {
        let mut prepared = self.prepare(request).await?;
        if let Prepared::Differs(aspects) = &prepared
            && update::update(&self.state, request, aspects).await? == update::Outcome::Stopped
        {
            prepared = self.prepare(request).await?;
        }
        if let Prepared::Stopped(boot) = prepared {
            launch::ask(&Order::Boot(boot)).await?;
        }
        network::let_back(&request.cluster, &request.node, !request.ports.is_empty());
        self.open_node(&request.cluster, &request.node).await
    }

    async fn open_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<Arc<dyn Node>, Problem> {
        let (state, cluster, name) = (self.state.clone(), cluster.clone(), node.clone());
        blocking(move || {
            let folder = state.node(&cluster, &name);
            let Some(record) = NodeRecord::read(&folder)? else {
                return Err(no_such_node(&state, &cluster, &name));
            };
            let node: Arc<dyn Node> =
                Arc::new(LinuxNode { cluster, name, address: record.addresses.primary, folder });
            Ok(node)
        })
        .await
    }

    async fn stop_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        grace: Duration,
    ) -> Result<(), Problem> {
        let (state, cluster, node) = (self.state.clone(), cluster.clone(), node.clone());
        blocking(move || remove::stop(&state, &cluster, &node, grace)).await
    }

    async fn destroy_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        let (state, cluster, node) = (self.state.clone(), cluster.clone(), node.clone());
        blocking(move || remove::node(&state, &cluster, &node)).await
    }

    async fn destroy_cluster(&self, cluster: &ClusterName) -> Result<(), Problem> {
        let (state, name) = (self.state.clone(), cluster.clone());
        let nodes = blocking(move || remove::nodes_of(&state, &name)).await?;
        let removals = nodes.iter().map(|node| self.destroy_node(cluster, node));
        let removed = futures::future::join_all(removals).await;
        let (state, name) = (self.state.clone(), cluster.clone());
        let rest = blocking(move || remove::cluster_rest(&state, &name)).await;
        join(removed.into_iter().chain([rest]).filter_map(Result::err).collect())
    }
}

impl LinuxProvider {
    async fn prepare(&self, request: &NodeRequest) -> Result<Prepared, Problem> {
        let (state, owned) = (self.state.clone(), request.clone());
        blocking(move || prepare(&state, &owned)).await
    }
}

/// What there is to do for a node to be what a request says.
#[derive(Debug)]
enum Prepared {
    /// It does not run: this starts it.
    Stopped(Box<Boot>),
    /// It runs, and differs in this.
    Differs(Vec<Aspect>),
    /// Nothing.
    Same,
}

/// Runs what may block on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work)
        .await
        .or_problem("thread", "a thread of bivouac's own failed")?
}

/// Looks at the node. Where it does not run, writes down what it is to be, and gives what is needed to start it.
fn prepare(state: &StateFolder, request: &NodeRequest) -> Result<Prepared, Problem> {
    let (cluster, node) = (&request.cluster, &request.node);
    let folder = state.node(cluster, node);
    let record = NodeRecord::read(&folder)?;
    let group = group::find(&folder, cluster, node)?;
    if runs(&folder, group.as_ref(), cluster, node)? {
        let record = record.ok_or_else(|| broken(&folder, cluster, node))?;
        let aspects = record.made.differences(&request.record());
        return Ok(if aspects.is_empty() { Prepared::Same } else { Prepared::Differs(aspects) });
    }
    let leftover: Vec<PathBuf> =
        group.iter().flat_map(Cgroup::folders).map(Path::to_owned).collect();
    let own = request.addresses.nodes.get(node).ok_or_else(|| {
        failed("no_address", format_args!("node {node} of cluster {cluster} has no address"))
    })?;
    folder::ensure(&folder.0)?;
    let (shared_images, shared_cache) = (&request.image.shared_images, &request.image.shared_cache);
    for shared in [shared_images, shared_cache] {
        fs_err::create_dir_all(shared)
            .or_problem("folder", format_args!("the folder {shared} cannot be made"))?;
    }
    let config = serde_json::to_vec(&request.config)
        .or_problem("config", format_args!("the config of node {node} cannot be written"))?;
    record::write_secret(&folder.config(), &config)?;
    let mut made = request.record();
    // It is not there yet, and may never come to be.
    made.resources.disk = disk::noted(&folder, record.as_ref(), made.resources.disk);
    let machine_id = match record {
        Some(record) => record.machine_id,
        None => record::new_machine_id()?,
    };
    let record = NodeRecord {
        format: NodeRecord::FORMAT,
        machine_id: machine_id.clone(),
        addresses: own.addresses,
        pod_networks: own.pod_networks.clone(),
        made,
        image_digest: request.image.digest.clone(),
        groups: leftover.clone(),
    };
    record.write(&folder)?;
    Ok(Prepared::Stopped(Box::new(Boot {
        cluster: cluster.clone(),
        node: node.clone(),
        folder,
        addresses: request.addresses.clone(),
        resources: request.resources,
        rootfs: request.image.rootfs.clone(),
        shared_images: shared_images.clone(),
        shared_cache: shared_cache.clone(),
        agent: ensure_agent(state, request)?,
        machine_id,
        leftover,
        resolv_conf: Resolver::detect().render(&gateways(&request.addresses)),
    })))
}

fn gateways(addresses: &Addresses) -> Families<IpAddr> {
    let networks = &addresses.node_networks;
    Families {
        primary: networks.primary.gateway,
        secondary: networks.secondary.map(|own| own.gateway),
    }
}

fn runs(
    folder: &NodeFolder,
    group: Option<&Cgroup>,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<bool, Problem> {
    if record::noted_process(folder).is_some() {
        return Ok(true);
    }
    let found = group.map(|group| group::first_process(group, cluster, node)).transpose();
    let found = found.or_problem(
        "find_process",
        format_args!("the processes of node {node} of cluster {cluster} cannot be listed"),
    )?;
    Ok(found.flatten().is_some())
}

/// It runs, and nobody knows with which config.
fn broken(folder: &NodeFolder, cluster: &ClusterName, node: &NodeName) -> Problem {
    let message =
        format!("node {node} of cluster {cluster} runs, but {} cannot be read", folder.record());
    failed("broken", message).help(format!(
        "remove the cluster with `bivouac down {cluster}` and make it again with `bivouac up`"
    ))
}

/// The cluster's copy of this very agent: nodes that run keep theirs when another is installed.
fn ensure_agent(state: &StateFolder, request: &NodeRequest) -> Result<Utf8PathBuf, Problem> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    // Nodes are prepared at the same time: the first copies, the others find its copy.
    static COPYING: Mutex<()> = Mutex::new(());
    let source = &request.agent;
    let message = format!("the agent {source} cannot be copied");
    let metadata = fs_err::metadata(source).or_problem("agent", &message)?;
    let version = format!("{}.{}.{}", metadata.len(), metadata.mtime(), metadata.mtime_nsec());
    let folder = state.cluster(&request.cluster).0;
    let target = folder.join(format!("agent-{version}"));
    let _copying = COPYING.lock().unwrap_or_else(PoisonError::into_inner);
    if target.exists() {
        return Ok(target);
    }
    let new = folder.join(format!("agent.new-{}", std::process::id()));
    bivouac_sys::filesystem::copy_file(source, &new).or_problem("agent", &message)?;
    fs_err::set_permissions(&new, std::fs::Permissions::from_mode(0o755))
        .and_then(|()| fs_err::rename(&new, &target))
        .or_problem("agent", &message)?;
    Ok(target)
}

fn no_such_node(state: &StateFolder, cluster: &ClusterName, node: &NodeName) -> Problem {
    let nodes = state.cluster(cluster).nodes().unwrap_or_default();
    let names: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
    let message = format!("cluster {cluster} has no node {node}");
    let problem = Problem::usage("provider.linux.no_node", message);
    match nearest(node.as_str(), names.iter().copied()) {
        Some(near) => problem.help(format!("use `{near}`")),
        None if names.is_empty() => problem,
        None => problem.help(format!("use one of: {}", names.join(", "))),
    }
}
