//! What the end-to-end tests stand on: a [`Case`] that says over which [`Setting`]s it runs, a [`Ground`] of its own on the real
//! machine, the real binary run as a person would ([`Run`], [`Outcome`]), waiting with a deadline and a sentence ([`wait_until`]), and a
//! picture of the host to hold against another one ([`HostSnapshot`]).
//!
//! The tests need root, a disk folder for state (`$BIVOUAC_E2E_DIR`, or `/var/tmp`) and the node images, which the first test
//! builds into `$BIVOUAC_STORE` when they are not there. They use `$BIVOUAC`, or else build the binary. Settings with an [`Engine`] use
//! that of `$DOCKER_HOST`, or the machine's, or start a `dockerd`. `$BIVOUAC_E2E_PATIENCE`
//! multiplies all deadlines, for slow machines. Clusters of theirs are called `e2e-…`; other clusters of the
//! machine are left alone.
//!
//! Not here: the scenarios, which are in `tests/e2e`.

mod archive;
mod binary;
mod case;
mod cluster;
mod compose;
mod engine;
mod ground;
mod hello;
mod host;
mod power;
mod props;
mod reboot;
mod registry;
mod run;
mod say;
mod setting;
mod soak;
mod tally;
mod wait;
mod web;

pub use archive::TestImage;
pub use case::{About, Case, Skip, case};
pub use cluster::Cluster;
pub use compose::Project;
pub use engine::{Engine, end_daemon, new_daemon_folder, without_ways};
pub use ground::Ground;
pub use hello::Hello;
pub use host::HostSnapshot;
pub use props::{Mounted, OwnLink};
pub use registry::{Login, TestAuthority, TestProxy, TestRegistry};
pub use run::{Outcome, Run, Running};
pub use say::say;
pub use setting::{Bootstrap, Provider, Setting};
pub use soak::{Round, Soak};
pub use tally::Tally;
pub use wait::{SOON, wait_until};
pub use web::{fetch, free_ports, serve_once};
