//! Snapshots: what a cluster was at one moment, to be restored or to be made another cluster.
//!
//! ```text
//!  save:     every node is ready -> pauses -> all have paused -> each copies its data, and goes on -> sends its copy -> STATE/snapshots
//!  restore:  refuse | record -> destroy -> image, network -> bare nodes -> data ----------> real configs -> usable -> record
//!  fork:     refuse | record -> save ---> image, network -> bare nodes -> data -> steps --> real configs -> usable -> record
//! ```
//!
//! Before the steps of a fork, the node that founds it gets the copy of whichever knows more ([`bivouac_stacks::Stack::fork_shares`]).
//!
//! All nodes have stopped before the first copies: nothing that happened in one after its pause is in the copy of another. What a copy
//! holds is the agent's matter, what makes it another cluster's the stack's. Until the end the record says what is going on
//! ([`Restoring`](crate::Restoring)), so that no other verb takes nodes that are half filled for a cluster; the same command starts over.

mod agent;
mod copy;
mod delete;
mod fork;
mod networks;
mod ports;
mod restore;
mod save;
mod shared;
mod store;

pub use delete::{DeleteRequest, delete_snapshots};
pub use fork::{ForkRequest, fork};
pub use restore::{RestoreRequest, restore};
pub use save::{SaveRequest, save};
pub use store::{Snapshot, Snapshots};

pub(crate) use store::Place;
