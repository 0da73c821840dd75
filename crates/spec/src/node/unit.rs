//! Services, tasks and conditions: what runs in a node, and when the node is usable.
//!
//! Services and tasks are *units* with one name space. A unit starts when all units in its `after` are ready: a service when its
//! probe succeeds, a task when it was done. Nothing else orders them.

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::config::Environment;
use super::probe::{Expect, HttpRequest, Probe};
use crate::quantity::Span;

/// A process that is kept running. When a running node takes a new config, the process stays if the new config would start the
/// same one and no file in `watch` changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Service {
    /// Unique among the node's units; also the name of its log file.
    pub name: String,
    /// Program (absolute path) and arguments. No secrets: everybody can read them.
    pub command: Vec<String>,
    /// Added to a minimal environment (`PATH`, `HOME`).
    #[serde(default)]
    pub environment: Environment,
    /// Units that must be ready before this starts. Stopping goes the other way round.
    #[serde(default)]
    pub after: Vec<String>,
    /// When the service counts as ready; without it, as soon as it runs.
    #[serde(default)]
    pub ready: Option<Probe>,
    /// What happens when it ends by itself.
    #[serde(default)]
    pub restart: Restart,
    /// How it is stopped.
    #[serde(default)]
    pub stop: Stop,
    /// Resource limits; absent ones are inherited.
    #[serde(default)]
    pub limits: Limits,
    /// Wish for `oom_score_adj`, -1000 to 1000; given up where the kernel does not permit it.
    #[serde(default)]
    pub oom_score: Option<i16>,
    /// Files whose change restarts the service when a running node takes a new config; a folder stands for all in it. For programs
    /// that read a file only when they start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Utf8PathBuf>,
}

impl Service {
    /// Whether a process of `self` is a process of `other` too: what differs concerns its order, its probe or its end.
    #[must_use]
    pub fn runs_as(&self, other: &Self) -> bool {
        self.command == other.command
            && self.environment == other.environment
            && self.limits == other.limits
            && self.oom_score == other.oom_score
    }
}

/// Work that is done once after each start of the node, and again when a new config changes it. It is tried until it succeeds.
/// Must be safe to do twice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Task {
    /// Unique among the node's units.
    pub name: String,
    /// Units that must be ready before this is done.
    #[serde(default)]
    pub after: Vec<String>,
    /// The work.
    pub run: Run,
    /// Files whose change makes it be done again when a running node takes a new config; a folder stands for all in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watch: Vec<Utf8PathBuf>,
    /// The node is usable before this is done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub late: bool,
}

/// The work of a [`Task`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Run {
    /// A command that exits with 0 when it is done: program (absolute path) and arguments.
    Command(Vec<String>),
    /// HTTP requests, one after another over one connection. Each is tried again until its answer is as expected.
    Requests(Vec<Request>),
    /// Registers the images of a container image directory in containerd, without copying or unpacking anything.
    Images {
        /// The directory: `index.json`, `blobs/sha256/`, `layers/`.
        directory: Utf8PathBuf,
        /// containerd's socket.
        containerd: Utf8PathBuf,
    },
}

/// A request and what must come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// What it does, for the status: `node worker-0`.
    pub name: String,
    /// The request.
    pub request: HttpRequest,
    /// The answer that means done.
    pub expect: Expect,
}

/// Something that must hold for a node to be usable, beyond its services and tasks. All are asked anew under a new config.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Condition {
    /// What must hold, as a person would say it: `a pod gets a DNS answer`.
    pub name: String,
    /// Units that must be ready before it is worth asking.
    #[serde(default)]
    pub after: Vec<String>,
    /// How it is asked.
    pub probe: Probe,
}

/// What happens when a service ends by itself: it is started again after a wait that doubles from `initial` to `max`, and is
/// back at `initial` after it was ready for as long as `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restart {
    /// The first wait.
    pub initial: Span,
    /// The longest wait.
    pub max: Span,
}

impl Default for Restart {
    fn default() -> Self {
        Self { initial: Span::millis(100), max: Span::seconds(10) }
    }
}

/// How a service is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stop {
    /// The first signal.
    pub signal: Signal,
    /// How long it may take before SIGKILL.
    pub grace: Span,
}

impl Default for Stop {
    fn default() -> Self {
        Self { signal: Signal::Terminate, grace: Span::seconds(10) }
    }
}

/// A signal that asks a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signal {
    /// SIGTERM
    Terminate,
    /// SIGINT
    Interrupt,
    /// SIGQUIT
    Quit,
    /// SIGKILL
    Kill,
}

/// Resource limits of a process. What the kernel does not permit is lowered to what it does, and the log says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Open files.
    #[serde(default)]
    pub open_files: Option<u64>,
    /// Processes and threads of the user.
    #[serde(default)]
    pub processes: Option<u64>,
    /// Locked memory in bytes.
    #[serde(default)]
    pub locked_memory: Option<u64>,
    /// Size of core dumps in bytes.
    #[serde(default)]
    pub core: Option<u64>,
}
