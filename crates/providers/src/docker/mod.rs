//! Containers of a Docker engine as a ground, here or elsewhere. Needs no `docker` command.
//!
//! ```text
//!        the engine's machine                               node (PID 1 = bivouac agent)
//!  network bivouac-NAME = node network ──────┊─ eth0        a container bivouac-NAME.NODE of image bivouac.dev/node:…
//!  published ports of the host ──────────────┊              /var = volume bivouac-NAME.NODE, which stays
//!  dev.bivouac.* labels on everything        ┊              node.json and ground.json are put in before it starts
//! ```
//!
//! What exists is asked of the engine, by labels. The engine gives a room with fixed walls: what must be done from inside of it (routes
//! to pods, names, control groups) is left to the agent, see `bivouac_spec::node::Ground`.
//!
//! [`compose`] makes the same containers by `docker compose`. Not here: what runs on a node (the agent, from the node config).

mod archive;
pub mod compose;
mod container;
mod create;
mod daemon;
mod engine;
mod exec;
mod facts;
mod furnish;
mod image;
mod logs;
mod names;
mod network;
mod node;
mod observe;
mod problem;
mod record;
mod remove;
mod retry;
#[cfg(test)]
mod samples;
mod save;
mod select;
mod survey;
mod terminal;
mod tls;
mod update;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bivouac_provider::{ImageRequest, NetworkRequest, Node, NodeRequest, Progress, Provider};
use bivouac_spec::facts::Survey;
use bivouac_spec::name::nearest;
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, Problem};
use camino::Utf8PathBuf;

pub use facts::no_disks;
pub use save::save_image;
use tokio::sync::OnceCell;

use create::Making;
use engine::Engine;
use exec::Room;
use node::DockerNode;
use problem::{failed, usage};
use remove::Removal;

/// What the environment says of container engines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EngineEnvironment {
    /// `DOCKER_HOST`: where the engine listens.
    pub host: Option<String>,
    /// `DOCKER_CONTEXT`: the context whose engine is used.
    pub context: Option<String>,
    /// `DOCKER_CERT_PATH`: the folder with `ca.pem`, `cert.pem` and `key.pem`.
    pub cert_path: Option<Utf8PathBuf>,
    /// `DOCKER_TLS_VERIFY` is not empty: the engine must show a certificate.
    pub tls_verify: bool,
    /// `DOCKER_API_VERSION`: the version of the API to speak, in place of the newest that both know.
    pub api_version: Option<String>,
    /// `DOCKER_CONFIG`, or `.docker` in the home folder: where contexts are.
    pub config: Option<Utf8PathBuf>,
    /// `XDG_RUNTIME_DIR`: where a user's own engine listens.
    pub runtime: Option<Utf8PathBuf>,
}

/// What the provider needs to know.
#[derive(Debug, Clone)]
pub struct DockerRequest {
    /// The name of the provider in cluster files, which tells its clusters from those of others on the same engine.
    pub name: &'static str,
    /// The context that the cluster file names.
    pub context: Option<String>,
    /// What else says which engine is meant.
    pub environment: EngineEnvironment,
}

/// Nodes from containers of a Docker engine.
pub struct DockerProvider {
    request: DockerRequest,
    engine: OnceCell<Arc<Engine>>,
}

impl fmt::Debug for DockerProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DockerProvider").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Opens the provider. Touches nothing: the engine is looked for by the first call.
#[must_use]
pub fn open(request: DockerRequest) -> DockerProvider {
    DockerProvider { request, engine: OnceCell::new() }
}

impl DockerProvider {
    async fn engine(&self) -> Result<&Arc<Engine>, Problem> {
        let connect = || async {
            let DockerRequest { context, environment, .. } = &self.request;
            Engine::connect(context.as_deref(), environment).await.map(Arc::new)
        };
        self.engine.get_or_try_init(connect).await
    }

    async fn removal<'a>(&'a self, cluster: &'a ClusterName) -> Result<Removal<'a>, Problem> {
        Ok(Removal { engine: self.engine().await?, provider: self.request.name, cluster })
    }
}

#[async_trait]
impl Provider for DockerProvider {
    async fn survey(&self) -> Result<Survey, Problem> {
        survey::survey(self.engine().await?).await
    }

    async fn observe(&self) -> Result<Vec<ObservedCluster>, Problem> {
        observe::clusters(self.engine().await?, self.request.name).await
    }

    async fn ensure_image(
        &self,
        request: &ImageRequest,
        on_progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Problem> {
        let engine = self.engine().await?;
        image::ensure(engine, request, on_progress).await.map(drop)
    }

    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem> {
        network::ensure(self.engine().await?, self.request.name, request).await
    }

    async fn ensure_node(&self, request: &NodeRequest) -> Result<Arc<dyn Node>, Problem> {
        let engine = self.engine().await?;
        let making = Making { engine, provider: self.request.name, request };
        making.ensure().await?;
        made(engine, &making)
    }

    async fn open_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<Arc<dyn Node>, Problem> {
        let engine = self.engine().await?;
        let found = observe::find(engine, self.request.name, Some(cluster)).await?;
        let mut known = Vec::new();
        for labels in found.containers.iter().filter_map(|it| it.labels.as_ref()) {
            let Some(name) = observe::node_of(labels) else { continue };
            if name != *node {
                known.push(name.to_string());
                continue;
            }
            let address = labels.get(names::ADDRESS).and_then(|text| text.parse().ok());
            let address = address.ok_or_else(|| broken(cluster, node))?;
            // By its name, which another container has after it.
            let container = names::node(cluster, node);
            let room = Room { docker: engine.docker.clone(), container, node: name.clone() };
            let (engine, cluster) = (Arc::clone(engine), cluster.clone());
            return Ok(Arc::new(DockerNode { engine, cluster, name, address, room }));
        }
        Err(no_such_node(cluster, node, &known))
    }

    async fn stop_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        grace: Duration,
    ) -> Result<(), Problem> {
        self.removal(cluster).await?.stop(node, grace).await
    }

    async fn destroy_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        self.removal(cluster).await?.node(node).await
    }

    async fn destroy_cluster(&self, cluster: &ClusterName) -> Result<(), Problem> {
        self.removal(cluster).await?.all().await
    }
}

/// The node that was made.
fn made(engine: &Arc<Engine>, making: &Making<'_>) -> Result<Arc<dyn Node>, Problem> {
    let NodeRequest { cluster, node, .. } = making.request;
    Ok(Arc::new(DockerNode {
        engine: Arc::clone(engine),
        cluster: cluster.clone(),
        name: node.clone(),
        address: container::own_addresses(making.request)?.primary(),
        room: making.room(),
    }))
}

/// Runs what may block on a thread for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| failed("thread", "a thread of bivouac's own failed").because(&error))?
}

fn broken(cluster: &ClusterName, node: &NodeName) -> Problem {
    let message = format!("the container of node {node} of cluster {cluster} has lost its labels");
    failed("broken", message).help(format!(
        "remove the cluster with `bivouac down {cluster}` and make it again with `bivouac up`"
    ))
}

fn no_such_node(cluster: &ClusterName, node: &NodeName, known: &[String]) -> Problem {
    let problem = usage("no_node", format_args!("cluster {cluster} has no node {node}"));
    match nearest(node.as_str(), known.iter().map(String::as_str)) {
        Some(near) => problem.help(format!("use `{near}`")),
        None if known.is_empty() => problem,
        None => problem.help(format!("use one of: {}", known.join(", "))),
    }
}
