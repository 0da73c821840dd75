//! What one node must be.

use std::collections::BTreeMap;
use std::fmt;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::unit::{Condition, Service, Task};
use crate::{ClusterName, NodeName};

/// The format of [`NodeConfig`] that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Everything one node must be. Applying it twice changes nothing.
///
/// A running node takes another config in place (`bivouac agent apply`): what is new is added, what is gone is removed as far as
/// each field says, and what is the same is not touched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// [`FORMAT`] of the version that wrote it.
    pub format: u32,
    /// The cluster that the node is a member of.
    pub cluster: ClusterName,
    /// The node's name and host name.
    pub node: NodeName,
    /// Kernel modules to load, in order. One that is absent may be built in, so absence is not an error. None is ever unloaded.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Kernel parameters. One that is no longer named keeps its value until the node starts again.
    #[serde(default)]
    pub sysctls: Vec<Sysctl>,
    /// Mounts, in order, made before any file is written. One that is no longer named stays until the node starts again.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Files, folders and links, in order. Files and links that the config before named and this one does not are removed, folders
    /// stay.
    #[serde(default)]
    pub files: Vec<File>,
    /// Processes to keep running. One that is no longer named is stopped.
    #[serde(default)]
    pub services: Vec<Service>,
    /// Work to be done once after every start of the node, and after every change of it.
    #[serde(default)]
    pub tasks: Vec<Task>,
    /// The node is usable when all services are ready, all tasks are done and all of these hold.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl NodeConfig {
    /// A node in which nothing runs but its agent: what it is to hold is put there before it becomes one of a cluster.
    #[must_use]
    pub const fn bare(cluster: ClusterName, node: NodeName) -> Self {
        Self {
            format: FORMAT,
            cluster,
            node,
            modules: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            tasks: Vec::new(),
            conditions: Vec::new(),
        }
    }

    /// An identity of the whole: `sha256:HEX` of its JSON form. Two configs with the same digest make the same node.
    #[must_use]
    pub fn digest(&self) -> String {
        let json = serde_json::to_vec(self).expect("a node config has string keys only");
        format!("sha256:{}", hex::encode(Sha256::digest(json)))
    }
}

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sysctl {
    /// Dotted name: `net.ipv4.ip_forward`.
    pub name: String,
    /// The wanted value.
    pub value: String,
    /// How the value is brought about.
    pub scope: SysctlScope,
}

/// How a kernel parameter is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SysctlScope {
    /// Written. For parameters that belong to a namespace of the node.
    Namespaced,
    /// Belongs to the whole kernel. Written where the node has a kernel of its own; where it shares the host's, only what the
    /// node's processes read is changed (a file mounted over the parameter), because a cluster must not alter its host.
    Kernel,
}

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// What is mounted: a path for `bind`, otherwise a name.
    pub source: String,
    /// Where. Made when absent.
    pub target: Utf8PathBuf,
    /// `bind`, `tmpfs`, `bpf`, …
    pub kind: String,
    /// Options as in fstab, `ro` among them.
    #[serde(default)]
    pub options: Vec<String>,
}

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct File {
    /// Where. Missing parents are made with mode 0755.
    pub path: Utf8PathBuf,
    /// Permission bits, ignored for links.
    pub mode: u32,
    /// User and group number.
    #[serde(default)]
    pub owner: (u32, u32),
    /// What it is.
    pub kind: FileKind,
}

/// What a [`File`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file with this content.
    Regular(Content),
    /// A folder. What is in it stays.
    Directory,
    /// A symbolic link to this target.
    Link(Utf8PathBuf),
}

/// The content of a file. Its [`fmt::Debug`] never shows what it holds, because it may be a key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(pub String);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

impl File {
    /// A file of root's that everybody may read.
    pub fn public(path: impl Into<Utf8PathBuf>, content: impl Into<String>) -> Self {
        Self::regular(path, 0o644, content)
    }

    /// A file of root's that only root may read.
    pub fn secret(path: impl Into<Utf8PathBuf>, content: impl Into<String>) -> Self {
        Self::regular(path, 0o600, content)
    }

    /// A folder of root's with the given mode.
    pub fn directory(path: impl Into<Utf8PathBuf>, mode: u32) -> Self {
        Self { path: path.into(), mode, owner: (0, 0), kind: FileKind::Directory }
    }

    fn regular(path: impl Into<Utf8PathBuf>, mode: u32, content: impl Into<String>) -> Self {
        let kind = FileKind::Regular(Content(content.into()));
        Self { path: path.into(), mode, owner: (0, 0), kind }
    }
}

/// Environment variables.
pub type Environment = BTreeMap<String, String>;
