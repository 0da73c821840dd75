//! Where this provider keeps things on the host.
//!
//! ```text
//! STATE/.lock .trash/                      what clusters share
//! STATE/CLUSTER/agent-VERSION              the agent, copied so that replacing the installed one harms no node
//! STATE/CLUSTER/nodes/NODE.lock            held while the node is started or removed
//! STATE/CLUSTER/nodes/NODE/node.json       what it was made from       process     its first process
//!                          config.json     what the agent makes of it  console.log what it said before it had logs
//!                          upper/ work/    changes to the image        root/       where the root is mounted
//!                          data/NAME/      real directories
//!                          disk.ext4       a disk of the node's own; then these three are on it, but for logs
//! ```
//!
//! Names that are no DNS labels can never be those of a cluster or a node.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;

use bivouac_spec::node::paths;
use bivouac_spec::{ClusterName, NodeName, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::problem::OrProblem as _;

/// The folder of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct StateFolder(pub(super) Utf8PathBuf);

/// The folder of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClusterFolder(pub(super) Utf8PathBuf);

/// The folder of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct NodeFolder(pub(super) Utf8PathBuf);

impl StateFolder {
    /// Guards what clusters share.
    pub(super) fn lock(&self) -> Utf8PathBuf {
        self.0.join(".lock")
    }

    /// What is being deleted.
    pub(super) fn trash(&self) -> Utf8PathBuf {
        self.0.join(".trash")
    }

    /// The folder of a cluster.
    pub(super) fn cluster(&self, cluster: &ClusterName) -> ClusterFolder {
        ClusterFolder(self.0.join(cluster.as_str()))
    }

    /// The folder of a node.
    pub(super) fn node(&self, cluster: &ClusterName, node: &NodeName) -> NodeFolder {
        self.cluster(cluster).node(node)
    }

    /// Every cluster that has a folder.
    pub(super) fn clusters(&self) -> Result<Vec<ClusterName>, Problem> {
        names_in(&self.0)
    }
}

impl ClusterFolder {
    /// Where its nodes are.
    pub(super) fn nodes_folder(&self) -> Utf8PathBuf {
        self.0.join("nodes")
    }

    /// The folder of a node.
    pub(super) fn node(&self, node: &NodeName) -> NodeFolder {
        NodeFolder(self.nodes_folder().join(node.as_str()))
    }

    /// Every node that has a folder.
    pub(super) fn nodes(&self) -> Result<Vec<NodeName>, Problem> {
        names_in(&self.nodes_folder())
    }
}

impl NodeFolder {
    /// Held while the node is started or removed.
    pub(super) fn lock(&self) -> Utf8PathBuf {
        self.0.with_extension("lock")
    }

    /// What it was made from.
    pub(super) fn record(&self) -> Utf8PathBuf {
        self.0.join("node.json")
    }

    /// Its first process.
    pub(super) fn process(&self) -> Utf8PathBuf {
        self.0.join("process")
    }

    /// What the agent makes of it. Holds keys.
    pub(super) fn config(&self) -> Utf8PathBuf {
        self.0.join("config.json")
    }

    /// What its first process said before it had logs.
    pub(super) fn console(&self) -> Utf8PathBuf {
        self.0.join("console.log")
    }

    /// The upper layer of its root.
    pub(super) fn upper(&self) -> Utf8PathBuf {
        self.0.join("upper")
    }

    /// What the overlay needs beside its upper layer.
    pub(super) fn work(&self) -> Utf8PathBuf {
        self.0.join("work")
    }

    /// Where its root is mounted, in its own mount namespace only.
    pub(super) fn root(&self) -> Utf8PathBuf {
        self.0.join("root")
    }

    /// A file with all that the node writes, where it has a disk of its own.
    pub(super) fn disk(&self) -> Utf8PathBuf {
        self.0.join("disk.ext4")
    }

    /// A disk that is not whole yet.
    pub(super) fn disk_new(&self) -> Utf8PathBuf {
        self.0.join("disk.new")
    }

    /// Is there while the disk becomes larger.
    pub(super) fn disk_growing(&self) -> Utf8PathBuf {
        self.0.join("disk.growing")
    }

    /// Whether the node ever came so far that it could write something.
    pub(super) fn has_data(&self) -> bool {
        self.disk().exists() || self.upper().exists()
    }

    /// Where the disk is mounted, in the node's own mount namespace only.
    pub(super) fn disk_mounted(&self) -> Utf8PathBuf {
        self.0.join("disk")
    }

    /// The host's side of a real directory of the node.
    pub(super) fn data(&self, path: &str) -> Utf8PathBuf {
        self.0.join("data").join(path.trim_start_matches('/').replace('/', "-"))
    }

    /// The folder of its logs.
    pub(super) fn logs(&self) -> Utf8PathBuf {
        self.data(paths::LOGS)
    }
}

/// Makes a folder, and those above it that are missing, for root alone.
pub(super) fn ensure(path: &Utf8Path) -> Result<(), Problem> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .or_problem("folder", format_args!("the folder {path} cannot be made"))
}

/// Names in a folder that parse; none if it is absent.
fn names_in<T: std::str::FromStr>(path: &Utf8Path) -> Result<Vec<T>, Problem> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.or_problem("folder", format_args!("the folder {path} cannot be read"))?,
    };
    let names = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
