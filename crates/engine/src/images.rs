//! Node images: where they come from, and their way to a ground.

use async_trait::async_trait;
use bivouac_provider::{ImagePaths, ImageRequest, Progress, Provider};
use bivouac_spec::Problem;
use tokio_util::sync::CancellationToken;

use crate::Reporter;
use crate::follow::up_interrupted;
use crate::transfer::Transfer;

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
