//! What runs inside a node: applies a node config and supervises its services.
//!
//! ```text
//! NodeConfig --[apply]--> modules, mounts, sysctls, files
//!     |
//!     +--[machine]--> which unit starts, is asked, is stopped       pure
//!             |  ^
//!     effects v  | events
//!       [supervise]: one loop owns all state; processes, signals, deadlines, the socket
//!             |  ^
//!        asks v  | answers
//!       [pool] of a few threads: [probe] (sockets, HTTP, DNS, commands), [task] (requests, [images])
//! ```
//!
//! The agent is PID 1 of a node, or an ordinary process that reaps its descendants. It is synchronous; only [`images`] talks
//! gRPC on a small runtime of its own. Not here: what a node should be (a stack decides) and where it runs (a provider).

mod apply;
mod client;
mod clock;
mod config;
pub mod images;
mod logs;
mod machine;
mod options;
mod pool;
mod probe;
mod processes;
mod protocol;
mod supervise;
mod task;

pub use client::{restart, status, stop};
pub use images::{Registered, register_images};
pub use options::{Places, RunOptions};
pub use supervise::run;
