//! The grounds that nodes run on, a module and a feature each.
//!
//! - [`linux`]: this machine's kernel, each node a set of namespaces

#[cfg(feature = "linux")]
pub mod linux;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use bivouac_provider::Provider;
use bivouac_spec::cluster;
use camino::Utf8Path;

/// Every ground that clusters can be on, with its default settings.
#[must_use]
pub fn all() -> Vec<cluster::Provider> {
    vec![cluster::Provider::default()]
}

/// Opens the ground that a cluster file names. `state` is the folder with what bivouac knows; each ground has its own in it.
#[must_use]
pub fn open(provider: &cluster::Provider, state: &Utf8Path) -> Arc<dyn Provider> {
    match provider {
        cluster::Provider::Linux(_) => {
            Arc::new(linux::open(linux::LinuxRequest { state: state.join("linux") }))
        }
    }
}

/// Runs the hidden command of a ground, if these are the arguments of one: processes that make or enter namespaces. Must be
/// called before any thread exists.
#[must_use]
pub fn dispatch(arguments: &[OsString]) -> Option<ExitCode> {
    linux::dispatch(arguments.iter().cloned())
}
