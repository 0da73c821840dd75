//! `load`: takes container images to all nodes of a cluster.
//!
//! ```text
//! nodes that see the folder of images of this host:  archive --unpack, once--> folder;  each node registers what is in it
//! other nodes:                                       archive --one reading--> every node, which unpacks and registers it
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use bivouac_provider::{Node, Provider, Reader};
use bivouac_spec::facts::ObservedState;
use bivouac_spec::{ClusterName, NodeName, Problem, Problems};
use tokio_util::sync::CancellationToken;

use crate::events::Recording;
use crate::follow::interrupted;
use crate::ground::refuse_other_ground;
use crate::send::{register, send};
use crate::{ClusterState, Reporter, StateDirectory};

/// Where container images come from.
#[async_trait]
pub trait ContainerImages: Send + Sync {
    /// Unpacks images into the folder that nodes of this host share; returns their full names.
    ///
    /// # Errors
    /// When one of them cannot be had.
    async fn unpack(&self, images: &[String], reporter: &Reporter) -> Result<Vec<String>, Problem>;

    /// Opens an image as an archive.
    ///
    /// # Errors
    /// When it cannot be had.
    async fn open(&self, image: &str) -> Result<Archive, Problem>;
}

/// Images as one stream of bytes: what `docker save` writes, or the tar of an OCI layout.
pub struct Archive {
    /// The bytes.
    pub content: Reader,
    /// How many they are, where that is known.
    pub size: Option<u64>,
}

/// What `load` needs.
pub struct LoadRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// What is known.
    pub state: &'a StateDirectory,
    /// Where the images come from.
    pub images: &'a dyn ContainerImages,
    /// Which images.
    pub asked: &'a [String],
}

/// What a `load` came to.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The full names of the images.
    pub images: Vec<String>,
    /// The nodes, which all have them.
    pub nodes: Vec<NodeName>,
}

/// Takes images to all nodes of a cluster.
///
/// # Errors
/// When nothing is known of the cluster, it was made on another ground, a node does not run (nothing is loaded then), an image cannot be had, or a node does not
/// take it.
pub async fn load(
    request: &LoadRequest<'_>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Loaded, Problems> {
    let cluster = request.cluster;
    // Before the lock, which would make a folder for a cluster that is not ours.
    known(request)?;
    let _lock = request.state.lock(cluster, "load")?;
    let state = known(request)?;
    refuse_other_ground(cluster, request.provider.as_ref(), Some(&state)).await?;
    // That is so or not from the day on which they were made.
    let shares_images = state.facts.shares_images;
    let recording = Recording::begin(request.state, cluster, "load", reporter);
    let reporter = recording.reporter();
    let work = async {
        let nodes = running_nodes(request).await?;
        let images = if shares_images {
            let images = request.images.unpack(request.asked, reporter).await?;
            register(&nodes, &images).await?;
            images
        } else {
            let mut images = Vec::new();
            for image in request.asked {
                let archive = request.images.open(image).await?;
                images.extend(send(&nodes, image, archive, reporter).await?);
            }
            images
        };
        Ok(Loaded { images, nodes: nodes.iter().map(|node| node.name().clone()).collect() })
    };
    let loaded = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(interrupted("stopped before all nodes had the images").into()),
        loaded = work => loaded,
    };
    recording.end(&loaded);
    loaded
}

/// What is known of the cluster, without which nothing is loaded.
fn known(request: &LoadRequest<'_>) -> Result<ClusterState, Problem> {
    let cluster = request.cluster;
    request.state.read(cluster)?.ok_or_else(|| {
        Problem::failed("engine.unrecorded", format!("nothing is known of cluster `{cluster}`"))
            .help(format!("use the `--state-dir` that it was made with, or remove it with `bivouac down {cluster}`"))
    })
}

/// All nodes, of which every one must run: one that comes back later would lack the images.
async fn running_nodes(request: &LoadRequest<'_>) -> Result<Vec<Arc<dyn Node>>, Problems> {
    let cluster = request.cluster;
    let observed = request.provider.observe().await?;
    let nodes = observed.into_iter().find(|observed| observed.name == *cluster);
    let nodes = nodes.map(|observed| observed.nodes).unwrap_or_default();
    let problem = |message: String| {
        Problem::failed("engine.node_not_running", message)
            .help(format!("run `bivouac up {cluster}` and then load the images again"))
    };
    if nodes.is_empty() {
        return Err(problem(format!("cluster `{cluster}` has no nodes")).into());
    }
    let resting = nodes.iter().filter(|(_, node)| node.state != ObservedState::Running);
    let resting = resting.map(|(name, _)| problem(format!("node `{name}` does not run")));
    Problems::check(resting.collect())?;
    let opened = nodes.keys().map(|node| request.provider.open_node(cluster, node));
    Ok(futures::future::try_join_all(opened).await?)
}
