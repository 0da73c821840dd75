//! The port that every ground implements: [`Provider`] and [`Node`], the values they take, an in-memory [`fake`], and the
//! [`conformance`] suite that runs over the fake and over every real provider.
//!
//! A provider knows nodes, addresses and files. It never knows what runs on the nodes: that is data in a
//! [`NodeConfig`](bivouac_spec::NodeConfig), which it delivers and does not read.
//!
//! ```text
//!             ensure_node                 stop_node
//!   (absent) ------------> (running) <--------------> (stopped)
//!       ^                      |       ensure_node        |
//!       +----------------------+--------------------------+
//!                        destroy_node
//! ```

pub mod conformance;
pub mod fake;
mod node;
mod provider;

pub use node::{ExecRequest, LogRequest, Node, Process, Reader, Stdio, Writer};
pub use provider::{
    ImagePaths, ImageRequest, LayerPath, NetworkRequest, NodeRequest, Progress, Provider,
};
