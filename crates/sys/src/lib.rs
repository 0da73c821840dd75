//! The kernel interfaces bivouac needs: processes, namespaces, mounts, cgroups, netlink, nftables, and what programs see of the machine.
//!
//! Everything here is synchronous and typed; every error names the call and the object it was for. This is the only
//! crate with unsafe code. It knows nothing of clusters, nodes or files of ours: names and paths come from the caller.
//!
//! Not here: a policy of what to make and in which order (providers and agent), asynchronous wrappers (callers use
//! `spawn_blocking`, except for namespaces, which are entered only in a single-threaded process).

pub mod capability;
pub mod cgroup;
mod error;
pub mod filesystem;
pub mod machine;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod neighbour;
pub mod netlink;
pub mod nft;
pub mod process;
pub mod sysctl;
#[cfg(test)]
mod testing;

pub use error::{Cause, Error, Result};
