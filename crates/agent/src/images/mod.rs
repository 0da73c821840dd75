//! Registering the images of a container image directory in containerd, without copying or unpacking a layer.
//!
//! ```text
//! DIRECTORY/index.json        one descriptor an image, named by `org.opencontainers.image.ref.name`
//! DIRECTORY/blobs/sha256/     manifests and configs
//! DIRECTORY/layers/DIFFID/    layers, unpacked as overlayfs wants them; many nodes share them
//! ```
//!
//! containerd gets the small blobs, and for each layer a committed snapshot whose `fs` folder is a link to the shared layer:
//! the state that it would itself have after unpacking and discarding layers. Removing such an image removes the links.

mod containerd;
mod layout;
mod messages;
mod register;

use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use camino::{Utf8Path, Utf8PathBuf};

pub(crate) use register::register;

/// The namespace that Kubernetes' images are in.
const NAMESPACE: &str = "k8s.io";

/// An image that containerd has.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Registered {
    /// The full name: `registry.k8s.io/pause:3.10`.
    pub name: String,
    /// The digest of its manifest.
    pub digest: String,
    /// False: containerd had it already.
    pub is_new: bool,
}

/// Which images are registered where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection<'a> {
    pub(crate) directory: &'a Utf8Path,
    pub(crate) containerd: &'a Utf8Path,
    /// All when absent.
    pub(crate) names: Option<&'a [String]>,
    /// The kubelet never removes them to make room.
    pub(crate) pinned: bool,
}

/// Why images could not be registered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}")]
    Read {
        path: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{path} is no image document")]
    Malformed {
        path: Utf8PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} describes no usable image: {why}")]
    Unusable { path: Utf8PathBuf, why: String },
    #[error("there is no image `{name}` in {directory}")]
    Absent { name: String, directory: Utf8PathBuf },
    #[error("cannot reach containerd at {socket}")]
    Unreachable {
        socket: Utf8PathBuf,
        #[source]
        source: tonic::transport::Error,
    },
    #[error("containerd refused to {what}: {}", .source.message())]
    Refused {
        what: String,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("cannot link the layer {layer} into containerd's snapshot")]
    Link {
        layer: Utf8PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot start a runtime for containerd's API")]
    Runtime(#[source] std::io::Error),
}

impl Error {
    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } | Self::Malformed { .. } | Self::Unusable { .. } => {
                "agent.images.directory"
            }
            Self::Absent { .. } => "agent.images.absent",
            Self::Link { .. } => "agent.images.link",
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Runtime(_) => {
                "agent.images.containerd"
            }
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let mut problem = Self::from_error(error.code(), &error);
        if matches!(error, Error::Refused { .. }) {
            // Its message is in the sentence already.
            problem.causes.clear();
        }
        problem
    }
}

/// The error with what it came from, for a status.
pub(crate) fn sentence(error: &Error) -> String {
    let mut text = error.to_string();
    if matches!(error, Error::Refused { .. }) {
        return text;
    }
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Registers the images of a directory (all, or those of the given names) in the containerd at this socket. Idempotent: an
/// image that is there already is left alone, one of the same name and another content is replaced.
///
/// Images of the node image's own directory are pinned.
///
/// # Errors
/// The directory is not as it should be, or containerd does not answer as expected.
pub fn register_images(
    directory: &Utf8Path,
    containerd: &Utf8Path,
    names: Option<&[String]>,
) -> Result<Vec<Registered>, Problem> {
    let pinned = directory == paths::IMAGES;
    Ok(register(&Selection { directory, containerd, names, pinned })?)
}
