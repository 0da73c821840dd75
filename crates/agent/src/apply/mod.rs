//! Making the node equal to its config: modules, mounts, kernel parameters, files. Every step looks first and changes only what
//! differs, so that applying twice changes nothing. Files of a config before that this one does not have are removed.

mod files;
mod modules;
mod mounts;
mod record;
mod sysctls;

use std::io;

use bivouac_spec::{NodeConfig, Problem};
use camino::{Utf8Path, Utf8PathBuf};

use crate::options::RunOptions;

pub(crate) use mounts::leftovers;

/// What applying did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// What was changed, as `file /etc/hosts`.
    pub(crate) changes: Vec<String>,
    /// What could not be done and is not needed.
    pub(crate) warnings: Vec<String>,
    /// Files and links that were made, changed or removed.
    pub(crate) touched: Vec<Utf8PathBuf>,
}

impl Applied {
    /// A file, folder or link was changed.
    pub(crate) fn touch(&mut self, what: &str, path: &Utf8Path) {
        self.changes.push(format!("{what} {path}"));
        self.touched.push(path.to_owned());
    }
}

/// A step that failed and is needed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A file, folder or link.
    #[error("cannot make {what} {path}")]
    File {
        /// What it was to be.
        what: &'static str,
        path: Utf8PathBuf,
        #[source]
        source: io::Error,
    },
    /// A mount.
    #[error("cannot mount {kind} at {target}")]
    Mount {
        kind: String,
        target: Utf8PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let code = match error {
            Error::File { .. } => "agent.apply.file",
            Error::Mount { .. } => "agent.apply.mount",
        };
        Self::from_error(code, &error)
    }
}

/// Applies all of the config but its units. Stops at the first failure that is needed; what was done is told in any case.
pub(crate) fn ensure_applied(
    config: &NodeConfig,
    options: &RunOptions,
    applied: &mut Applied,
) -> Result<(), Error> {
    for module in &config.modules {
        modules::ensure_module(module, applied);
    }
    for mount in &config.mounts {
        mounts::ensure_mount(mount, &options.places, applied)?;
    }
    for sysctl in &config.sysctls {
        sysctls::ensure_sysctl(sysctl, options, applied);
    }
    let record = record::open(&config.files, &options.places, applied);
    for path in record.stale() {
        files::ensure_absent(path, &config.files, &options.places, applied);
    }
    for file in &config.files {
        files::ensure_file(file, &options.places, applied)?;
    }
    record.close(applied);
    Ok(())
}
