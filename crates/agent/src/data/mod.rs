//! The data of a node as a tar: taken while nothing in the node moves, and brought into a node in which nothing runs.
//!
//! ```text
//! save:    [view] > "ready" .. pause > "paused" .. copy > tar to a file without a name > go on > "copied" .. send > the tar
//! restore: [view] > what is there is removed > tar from standard input
//! ```
//!
//! Each is a process of its own in the node. Copies are written by [`archive`] and unpacked by tar(1). The file has no name, so that nothing
//! is left of a copy that nobody wants any more.

mod archive;
mod restore;
mod save;
mod size;
mod view;

pub use restore::{RestoreRequest, restore};
pub use save::{SaveRequest, save};

/// What a node has of its own in the same folders, and which is of no use in another: programs of its image know of each other, and logs
/// tell of its own life.
const LEFT: [&str; 4] = ["/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log/bivouac"];
