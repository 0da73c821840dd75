//! The provider: as that of the engine, but nodes are made by `docker compose`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bivouac_provider::{ImageRequest, NetworkRequest, Node, NodeRequest, Progress, Provider};
use bivouac_spec::facts::{Need, Outcome, Survey};
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, Problem};
use bollard::models::ContainerInspectResponse;
use camino::Utf8PathBuf;
use futures::FutureExt as _;
use tokio::sync::{OnceCell, RwLock};

use super::command::{Call, Compose};
use super::document::Document;
use super::folder::{self, Folder};
use super::problem::{failed, unfit};
use crate::docker::container::{Blueprint, own_addresses};
use crate::docker::create::{Making, offer};
use crate::docker::engine::Engine;
use crate::docker::problem::{OrProblem as _, absent_is_success};
use crate::docker::retry::{ATTEMPTS, given_up, next_offer};
use crate::docker::update::Change;
use crate::docker::{DockerProvider, DockerRequest, image, made, names, network};

/// What the provider needs to know.
#[derive(Debug, Clone)]
pub struct ComposeRequest {
    /// The engine, and the name of the provider in cluster files.
    pub docker: DockerRequest,
    /// The folder with the projects. What is in it belongs to clusters that exist.
    pub projects: Utf8PathBuf,
}

/// Nodes from containers that `docker compose` makes.
pub struct ComposeProvider {
    docker: DockerProvider,
    projects: Utf8PathBuf,
    compose: OnceCell<Compose>,
    turns: Mutex<BTreeMap<ClusterName, Turn>>,
}

/// Who writes the project of a cluster holds it alone. Several may have it carried out at once, but for the first, which makes the
/// network too.
type Turn = Arc<RwLock<()>>;

impl fmt::Debug for ComposeProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ComposeProvider")
            .field("docker", &self.docker)
            .field("projects", &self.projects)
            .finish_non_exhaustive()
    }
}

/// Opens the provider. Touches nothing.
#[must_use]
pub fn open(request: ComposeRequest) -> ComposeProvider {
    ComposeProvider {
        docker: crate::docker::open(request.docker),
        projects: request.projects,
        compose: OnceCell::new(),
        turns: Mutex::default(),
    }
}

impl ComposeProvider {
    fn name(&self) -> &'static str {
        self.docker.request.name
    }

    async fn compose(&self) -> Result<&Compose, Problem> {
        self.compose.get_or_try_init(|| Compose::find(&self.docker.request.environment)).await
    }

    fn folder(&self, cluster: &ClusterName) -> Folder {
        Folder { path: self.projects.join(cluster.as_str()) }
    }

    fn turn(&self, cluster: &ClusterName) -> Turn {
        let mut turns = self.turns.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Arc::clone(turns.entry(cluster.clone()).or_default())
    }

    /// Carries out the project for one node.
    async fn start(&self, engine: &Engine, request: &NodeRequest) -> Result<(), Problem> {
        let cluster = &request.cluster;
        let folder = self.folder(cluster);
        let environment = &self.docker.request.environment;
        let call = Call { engine, environment, cluster, folder: &folder };
        let turn = self.turn(cluster);
        let alone = turn.write().await;
        if network::find(engine, cluster).await?.is_none() {
            // Two that make a network at once make two of one name.
            return self.up(&call, request).await;
        }
        let _several = alone.downgrade();
        self.up(&call, request).await
    }

    async fn up(&self, call: &Call<'_>, request: &NodeRequest) -> Result<(), Problem> {
        let message =
            format!("node {} of cluster {} cannot be started", request.node, request.cluster);
        let arguments = ["up", "--detach", "--no-deps", "--no-build", request.node.as_str()];
        self.compose().await?.run(call, arguments, &message).await
    }

    /// Writes the node into the project, with what is put into it.
    async fn describe(
        &self,
        request: &NodeRequest,
        blueprint: &Blueprint<'_>,
    ) -> Result<(), Problem> {
        let folder = self.folder(&request.cluster);
        let turn = self.turn(&request.cluster);
        let _alone = turn.write().await;
        let mut document = folder.read()?.ok_or_else(|| {
            let (cluster, path) = (&request.cluster, &folder.path);
            failed("no_project", format_args!("the project of cluster {cluster} at {path} is gone"))
                .help(format!(
                    "remove the cluster with `bivouac down {cluster}`, then make it again"
                ))
        })?;
        folder.write_node(request)?;
        document.set_node(self.name(), request, blueprint.render(), None);
        folder.write(&document)
    }

    /// Describes and starts the node. What the engine turns out not to have is left out in the next attempt.
    async fn make(
        &self,
        making: &Making<'_>,
        before: Option<&ContainerInspectResponse>,
    ) -> Result<(), Problem> {
        let request = making.request;
        // One look, unless somebody removed it since it was brought.
        let tag = image::ensure(making.engine, &image_of(request), &|_| ()).await?;
        let mut offer = offer(making.engine, &request.image)?;
        let mut tried = BTreeSet::new();
        let mut bindings = making.bindings(before, &mut tried)?;
        let mut attempts = 0;
        let mut has_image = false;
        loop {
            attempts += 1;
            let blueprint = Blueprint {
                provider: self.name(),
                request,
                addresses: own_addresses(request)?,
                image: &tag,
                offer: &offer,
                bindings: &bindings,
            };
            self.describe(request, &blueprint).await?;
            let Err(problem) = self.start(making.engine, request).await else {
                return Ok(());
            };
            let said = problem.causes.join("\n");
            if !has_image && matches!(image::exists(making.engine, &tag).await, Ok(false)) {
                // Somebody removed it since it was brought.
                image::ensure(making.engine, &image_of(request), &|_| ()).await?;
                has_image = true;
                continue;
            }
            match next_offer(&said, &offer, request).filter(|_| attempts < ATTEMPTS) {
                Some(next) => {
                    // With nothing less, it is the ports that must change.
                    if next == offer {
                        bindings = making.bindings(before, &mut tried)?;
                    }
                    offer = next;
                }
                None => return Err(given_up(&said, problem)),
            }
        }
    }

    /// Writes what a node that runs is to be now.
    async fn deliver(&self, request: &NodeRequest) -> Result<(), Problem> {
        let folder = self.folder(&request.cluster);
        let turn = self.turn(&request.cluster);
        let _alone = turn.write().await;
        if let Some(mut document) = folder.read()? {
            document.change_node(request);
            folder.write(&document)?;
        }
        folder.rewrite_node(request)
    }

    /// Starts the node, with another container where it must be.
    async fn start_anew(
        &self,
        making: &Making<'_>,
        before: Option<&ContainerInspectResponse>,
    ) -> Result<(), Problem> {
        let NodeRequest { cluster, node, .. } = making.request;
        let name = names::node(cluster, node);
        let volume = absent_is_success(making.engine.docker.inspect_volume(&name).await)
            .or_problem("volume", format_args!("volume {name} cannot be looked for"))?;
        if before.is_some() {
            making.forget_changes().await?;
        }
        let made = self.make(making, before).await;
        if made.is_err() && volume.is_none() {
            let _ = self.destroy_node(cluster, node).await;
        } else if made.is_err() {
            let _ = making.remove_container(&name).await;
        }
        made
    }

    async fn forget(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        let folder = self.folder(cluster);
        let turn = self.turn(cluster);
        let _alone = turn.write().await;
        if let Some(mut document) = folder.read()? {
            document.remove_node(node);
            folder.write(&document)?;
        }
        folder.remove_node(node)
    }
}

fn image_of(request: &NodeRequest) -> ImageRequest {
    ImageRequest { image: request.image.clone(), agent: request.agent.clone() }
}

#[async_trait]
impl Provider for ComposeProvider {
    async fn survey(&self) -> Result<Survey, Problem> {
        let engine = self.docker.engine().await?;
        let (survey, compose) = tokio::join!(self.docker.survey(), self.compose());
        let mut survey = survey?;
        let found = compose.map(|compose| compose.version.clone());
        survey.needs.push(Need {
            name: "have the `docker compose` command".to_owned(),
            outcome: found.map_or_else(Outcome::Unmet, Outcome::Met),
        });
        if engine.local.is_none() {
            let message = format!(
                "the container engine at {} does not see files of this machine",
                engine.endpoint
            );
            let problem = unfit("remote", message)
                .help("use provider `docker`, or make a folder for that machine with `bivouac export compose`");
            survey.needs.push(Need {
                name: "mount files into nodes".to_owned(),
                outcome: Outcome::Unmet(problem),
            });
        }
        Ok(survey)
    }

    async fn observe(&self) -> Result<Vec<ObservedCluster>, Problem> {
        self.docker.observe().await
    }

    async fn ensure_image(
        &self,
        request: &ImageRequest,
        on_progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Problem> {
        self.docker.ensure_image(request, on_progress).await
    }

    async fn ensure_network(&self, request: &NetworkRequest) -> Result<(), Problem> {
        let engine = self.docker.engine().await?;
        // Made together with the first node.
        let found = network::check(engine, self.name(), request).await?;
        let folder = self.folder(&request.cluster);
        let turn = self.turn(&request.cluster);
        let _alone = turn.write().await;
        let written = folder.read()?;
        // One that is there stays as it was described: for any other words `docker compose` would make it anew, under its nodes.
        if found.is_some() && written.is_some() {
            return Ok(());
        }
        let mut document = written.unwrap_or_else(|| Document::new(self.name(), request));
        document.set_network(self.name(), request);
        folder.write(&document)
    }

    async fn ensure_node(&self, request: &NodeRequest) -> Result<Arc<dyn Node>, Problem> {
        let engine = self.docker.engine().await?;
        let making = Making { engine, provider: self.name(), request };
        let name = names::node(&request.cluster, &request.node);
        let before = making.existing(&name).await?;
        let running = match &before {
            Some(container) if making.wake(Some(container), &name).await? => Some(container),
            _ => None,
        };
        let change = match running {
            Some(container) => making.change(container).await?,
            None => Change::Remake,
        };
        match (change, running) {
            (Change::None, _) => {}
            (Change::InPlace, Some(container))
                if making.update(container, self.deliver(request).boxed()).await? => {}
            (_, running) => {
                if running.is_some() {
                    making.halt(&image_of(request)).await?;
                }
                self.start_anew(&making, before.as_ref()).await?;
            }
        }
        made(engine, &making)
    }

    async fn open_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<Arc<dyn Node>, Problem> {
        self.docker.open_node(cluster, node).await
    }

    async fn stop_node(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        grace: Duration,
    ) -> Result<(), Problem> {
        self.docker.stop_node(cluster, node, grace).await
    }

    async fn destroy_node(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        self.docker.destroy_node(cluster, node).await?;
        self.forget(cluster, node).await
    }

    async fn destroy_cluster(&self, cluster: &ClusterName) -> Result<(), Problem> {
        let engine = self.docker.engine().await?;
        let folder = self.folder(cluster);
        let turn = self.turn(cluster);
        let _alone = turn.write().await;
        if folder.file().exists()
            && let Ok(compose) = self.compose().await
        {
            let environment = &self.docker.request.environment;
            let call = Call { engine, environment, cluster, folder: &folder };
            let arguments = ["down", "--volumes", "--remove-orphans", "--timeout", "0"];
            let message = format!("the project of cluster {cluster} cannot be removed");
            // What it leaves, for whatever reason, is found by labels.
            let _ = compose.run(&call, arguments, &message).await;
        }
        self.docker.destroy_cluster(cluster).await?;
        folder::remove(&folder.path)?;
        // Stays as long as there are projects of other clusters in it.
        let _ = std::fs::remove_dir(&self.projects);
        Ok(())
    }
}
