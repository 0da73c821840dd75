//! Places inside every node that more than one crate must agree on.

/// The one binary, as the agent and for `exec`.
pub const AGENT: &str = "/usr/local/bin/bivouac";

/// The node config as the provider delivered it. Holds keys: mode 0600.
pub const CONFIG: &str = "/etc/bivouac/node.json";

/// What the ground left to be done from inside, as the provider delivered it: a [`super::Ground`]. Absent where it left nothing.
pub const GROUND: &str = "/etc/bivouac/ground.json";

/// The agent's socket: one JSON request a line, see the agent's protocol.
pub const SOCKET: &str = "/run/bivouac/agent.sock";

/// A folder with one log file for each service, and the agent's own `agent.log`.
pub const LOGS: &str = "/var/log/bivouac";

/// What the agent must remember over a restart of the node, such as which files it made.
pub const STATE: &str = "/var/lib/bivouac";

/// The container image directory that came with the node image.
pub const IMAGES: &str = "/usr/share/bivouac/images";

/// The container image directory that nodes of a host share, where `load` puts images. Absent where a ground has none.
pub const SHARED_IMAGES: &str = "/var/lib/bivouac-images";

/// The node's own container image directory, where `load` puts images on a ground without [`SHARED_IMAGES`]. Below [`STATE`], because
/// layers are mounted where they lie.
pub const OWN_IMAGES: &str = "/var/lib/bivouac/images";

/// A folder that nodes of a host share and write to, for what any of them can use again. Absent where a ground has none. Nothing in it is the
/// only one of its kind: it can be emptied at any time.
pub const SHARED_CACHE: &str = "/srv/bivouac/cache";

/// The kernel's whole `proc` where a stack mounts one. The one at `/proc` may be covered: a ground with limits of its own puts files
/// over parts of it, and those stay as they were when they were written.
pub const WHOLE_PROC: &str = "/run/pristine/proc";

/// Folders that must be on a real file system: overlay on overlay is refused by the kernel, and databases want fsync to mean it.
pub const REAL_DIRECTORIES: [&str; 5] =
    ["/var/lib/etcd", "/var/lib/containerd", "/var/lib/kubelet", STATE, LOGS];
