//! What a command asks of a process that it starts from its own binary, and what comes back. The order travels in a file in
//! memory, the answers through a pipe: neither is seen in a process list.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::Survey;
use bivouac_spec::{Addresses, ClusterName, NodeName, Problem};
use bivouac_sys::process::ProcessId;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::folder::{NodeFolder, StateFolder};
use super::problem::{OrProblem as _, not_running};

/// The first argument of such a process.
pub(super) const VERB: &str = "__linux";

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Order {
    /// Start a node, unless it runs.
    Boot(Box<Boot>),
    /// Change a node that runs.
    Update(Box<Update>),
    /// Run a command in a node.
    Exec(Exec),
    /// Write a file in a node: its content follows on standard input, in pieces with their length before them.
    Put(FileOrder),
    /// Read a file in a node to standard output.
    Get(FileOrder),
    /// Look at the ground.
    Survey(StateFolder),
}

/// A node to start.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Boot {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeName,
    pub(super) folder: NodeFolder,
    pub(super) addresses: Addresses,
    pub(super) resources: Resources,
    /// The unpacked image.
    pub(super) rootfs: Utf8PathBuf,
    /// The container images that nodes of this host share.
    pub(super) shared_images: Utf8PathBuf,
    /// The folder that nodes of this host share to write to.
    pub(super) shared_cache: Utf8PathBuf,
    /// The cluster's copy of the agent.
    pub(super) agent: Utf8PathBuf,
    pub(super) machine_id: String,
    /// The folders of the control group of its earlier life.
    pub(super) leftover: Vec<PathBuf>,
    pub(super) resolv_conf: String,
}

/// What a node that runs is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) node: Target,
    pub(super) addresses: Addresses,
    /// Its limits, where they change.
    pub(super) resources: Option<Resources>,
    /// Whether there is another config in its folder.
    pub(super) config: bool,
}

/// A command to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Exec {
    pub(super) node: Target,
    pub(super) command: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
    /// Whether standard input is empty.
    pub(super) no_input: bool,
    /// Whether it shares the caller's terminal and process group.
    pub(super) inherited: bool,
}

/// A file in a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct FileOrder {
    pub(super) node: Target,
    pub(super) path: Utf8PathBuf,
    /// Permission bits of what is written.
    pub(super) mode: u32,
}

/// A running node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Target {
    pub(super) cluster: ClusterName,
    pub(super) node: NodeName,
    /// Its folder on the host.
    pub(super) folder: NodeFolder,
    /// Its first process, as [`ProcessId`] writes it.
    process: String,
}

impl Target {
    /// The node with this first process.
    pub(super) fn new(
        cluster: ClusterName,
        node: NodeName,
        folder: NodeFolder,
        process: &ProcessId,
    ) -> Self {
        Self { cluster, node, folder, process: process.to_string() }
    }

    /// A handle on its first process.
    pub(super) fn open(&self) -> Result<bivouac_sys::process::PidFd, Problem> {
        let opened = self.process.parse::<ProcessId>().and_then(|process| process.open());
        let message =
            format_args!("node {} of cluster {} cannot be entered", self.node, self.cluster);
        opened.or_problem("enter", message)?.ok_or_else(|| not_running(&self.cluster, &self.node))
    }
}

/// What comes back, each on a line of its own.
pub(super) type Report = Result<Answer, Problem>;

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The node's first process runs.
    Running,
    /// The node is changed.
    Updated,
    /// The command was started, or the file was opened.
    Started,
    /// The file is written.
    Written,
    /// What the ground is like.
    Surveyed(Box<Survey>),
}
