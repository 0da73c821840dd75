//! What runs inside a node: applies a node config and supervises its services.
//!
//! ```text
//! Ground -----[ground]--> control groups, routes, names: what a container engine left to be done
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
//! gRPC on a small runtime of its own, and only balancing, a process of its own, runs on one.
//!
//! A config that arrives while the node runs goes the same way (`bivouac agent apply`): the machine becomes that of the new config,
//! and what is the same in both is not touched.
//!
//! [`balance()`] stands apart: a service that a config may name (`bivouac agent balance`), and which connects clients in the node to
//! whichever of several servers is healthy.
//!
//! So does [`guard()`], which watches over the memory and the health of a member of an Incus cluster (`bivouac agent guard`).
//!
//! [`load_balance()`] gives Services of Kubernetes addresses that others on the nodes' network reach (`bivouac agent load-balance`).
//!
//! [`image_cache()`] keeps what containerd pulls, for all nodes of a host (`bivouac agent image-cache`).
//!
//! [`save()`] and [`restore()`] copy the data of a node, while the loop keeps everything else in the node from moving.
//!
//! [`etcd_log_end()`] and [`confirm_etcd_log()`] are about copies of etcd's data, in a node in which it does not run (`bivouac agent etcd-log`).
//!
//! Not here: what a node should be (a stack decides) and where it runs (a provider).

mod apply;
mod balance;
mod client;
mod clock;
mod config;
mod data;
mod etcd_log;
mod ground;
mod guard;
mod image_cache;
pub mod images;
mod load_balance;
mod logs;
mod machine;
mod options;
mod pool;
mod probe;
mod processes;
mod protocol;
pub mod remote;
mod supervise;
mod task;
#[cfg(test)]
mod testing;

pub use balance::{BalanceRequest, balance};
pub use client::{apply, is_healthy, restart, status, stop};
pub use data::{RestoreRequest, SaveRequest, restore, save};
pub use etcd_log::{LogEnd, confirm_etcd_log, etcd_log_end};
pub use guard::{GuardRequest, HealthWatch, MemoryWatch, guard};
pub use image_cache::{CacheUsage, ImageCacheRequest, cache_usage, empty_cache, image_cache};
pub use images::{Registered, register_images};
pub use load_balance::{LoadBalanceRequest, load_balance};
pub use options::{Places, RunOptions};
pub use supervise::run;
