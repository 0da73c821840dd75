//! Node images: where they come from, and their way to a ground.

use async_trait::async_trait;
use bivouac_plan::Action;
use bivouac_provider::{ImagePaths, ImageRequest, Progress, Provider};
use bivouac_spec::facts::Aspect;
use bivouac_spec::{Cluster, Problem};
use tokio_util::sync::CancellationToken;

use crate::follow::up_interrupted;
use crate::transfer::Transfer;
use crate::{ClusterState, Reporter};

/// Where node images come from.
#[async_trait]
pub trait NodeImages: Send + Sync {
    /// The key of the image that this bivouac makes nodes from. Needs no image to be there.
    ///
    /// # Errors
    /// When it cannot be told.
    fn current(&self) -> Result<String, Problem>;

    /// The image of this key, sound: opened, fetched or built.
    ///
    /// # Errors
    /// When it cannot be had.
    async fn ensure(
        &self,
        key: &str,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<ImagePaths, Problem>;
}

/// Which node image a cluster that exists gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageChoice {
    /// Its own, unless another version is asked for.
    Own,
    /// The one that this bivouac would make it from. What fails on the way there is taken back.
    Current,
    /// The one with which it was usable last.
    Former,
}

/// The node image that a cluster gets which is asked to be `wanted`. Whether there is a current one counts only where it is that: a cluster
/// keeps its own also with a bivouac that makes no such image any more.
pub(crate) fn image_of(
    choice: ImageChoice,
    known: &ClusterState,
    wanted: &Cluster,
    current: Result<String, Problem>,
) -> Result<String, Problem> {
    let applied = &known.applied;
    let has_version =
        |cluster: &Cluster| cluster.spec.stack.version() == wanted.spec.stack.version();
    let was_usable = applied.completed.as_deref().is_some_and(has_version);
    let former = || former_image(known).unwrap_or_else(|| known.image.clone());
    match choice {
        ImageChoice::Former => Ok(former()),
        ImageChoice::Own if has_version(&applied.cluster) => Ok(known.image.clone()),
        // An upgrade is taken back.
        ImageChoice::Own | ImageChoice::Current if was_usable && !has_version(&applied.cluster) => {
            Ok(former())
        }
        ImageChoice::Own | ImageChoice::Current => current,
    }
}

/// The node image with which all of a cluster was usable last. Who was recorded before that was had one only.
pub(crate) fn former_image(known: &ClusterState) -> Option<String> {
    known.applied.completed.as_ref()?;
    Some(known.completed_image.clone().unwrap_or_else(|| known.image.clone()))
}

/// Whether a node is made anew from another node image.
pub(crate) fn is_remade(action: &Action) -> bool {
    matches!(
        action,
        Action::UpdateNode { remakes: true, aspects, .. } if aspects.contains(&Aspect::Image)
    )
}

/// Brings a node image to the ground of this name and tells how far it is. Tells nothing where nothing is brought.
///
/// # Errors
/// When it cannot be brought there, or `cancel` was called.
pub async fn bring_image(
    (name, provider): (&str, &dyn Provider),
    request: &ImageRequest,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<(), Problem> {
    let transfer = Transfer::new(format!("node image to {name}"), reporter);
    let on_progress = |progress: Progress| transfer.reached(progress.done, progress.total);
    let brought = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(up_interrupted()),
        brought = provider.ensure_image(request, &on_progress) => brought,
    };
    transfer.ended(brought.is_ok());
    brought
}
