//! What a run of the agent can be told.

use bivouac_spec::node::paths;
use camino::{Utf8Path, Utf8PathBuf};

/// How the agent runs.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The node config to apply.
    pub config: Utf8PathBuf,
    /// What the ground left to be done first; absent where it left nothing.
    pub ground: Utf8PathBuf,
    /// The kernel is shared with a host, whose own parameters must stay as they are.
    pub shares_kernel: bool,
    /// Where it keeps its own things.
    pub places: Places,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            config: paths::CONFIG.into(),
            ground: paths::GROUND.into(),
            shares_kernel: true,
            places: Places::default(),
        }
    }
}

/// Where the agent keeps its own things: as in every node by default, elsewhere in tests.
#[derive(Debug, Clone)]
pub struct Places {
    /// The agent's socket.
    pub socket: Utf8PathBuf,
    /// The folder of log files.
    pub logs: Utf8PathBuf,
    /// Put before the path of every file of the config; `/` in a node.
    pub root: Utf8PathBuf,
    /// The folder of what it remembers over a restart of the node.
    pub state: Utf8PathBuf,
    /// A folder that does not outlive the node, for files that are mounted over kernel parameters.
    pub runtime: Utf8PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            socket: paths::SOCKET.into(),
            logs: paths::LOGS.into(),
            root: "/".into(),
            state: paths::STATE.into(),
            runtime: "/run/bivouac".into(),
        }
    }
}

impl Places {
    /// A path of the config below the root.
    pub(crate) fn inside(&self, path: &Utf8Path) -> Utf8PathBuf {
        let relative = path.strip_prefix("/").unwrap_or(path);
        self.root.join(relative)
    }
}
