//! What the end-to-end tests stand on: a [`Ground`] of their own on the real machine, the real binary run as a person would
//! ([`Run`], [`Outcome`]), waiting with a deadline and a sentence ([`wait_until`]), and a picture of the host to hold against
//! another one ([`HostSnapshot`]).
//!
//! The tests need root, a disk folder for state (`$BIVOUAC_E2E_DIR`, or `/var/tmp`) and the node image, which the first test
//! builds into `$BIVOUAC_STORE` when it is not there. They use `$BIVOUAC`, or else build the binary. Clusters of theirs are
//! called `e2e-…`; other clusters of the machine are left alone.
//!
//! Not here: the scenarios, which are in `tests/e2e`.

mod archive;
mod binary;
mod cluster;
mod ground;
mod host;
mod run;
mod wait;
mod web;

pub use archive::TestImage;
pub use cluster::Cluster;
pub use ground::{Ground, Mounted, OwnLink};
pub use host::HostSnapshot;
pub use run::{Outcome, Run, Running};
pub use wait::{SOON, wait_until};
pub use web::{fetch, serve_once};
