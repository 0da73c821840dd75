//! Furnishing a room that somebody else built: what a [`Ground`] leaves to be done from inside, before the node config is applied.
//!
//! ```text
//! mounts    /sys and control groups writable, every mount shared        without them no pod runs: a failure is a problem
//! devices   /dev/kmsg, /dev/net/tun, /dev/fuse                          a warning
//! files     /etc/machine-id, /etc/hosts, written in place               a problem
//! routes    to the pods of other nodes, labelled by their protocol      the same
//! resolver  the engine's DNS server, offered at the node's own address  a warning: the node works without the outside world
//! machine   processors and memory as far as the node may use them       the same: it believes that it has more
//! ```
//!
//! What follows the devices is done again when a running node takes a new config: nodes have come or gone, limits are others.
//!
//! Every step looks first and changes only what differs. All of them are tried, so that everything that is wrong is told at once.

mod devices;
mod files;
mod machine;
mod mounts;
mod resolver;
mod routes;

use std::fs;
use std::io;

use bivouac_spec::Problem;
use bivouac_spec::cluster::Resources;
use bivouac_spec::node::Ground;
use bivouac_sys::process::{Resource, set_limit};
use camino::Utf8Path;

use crate::apply::Applied;
use crate::options::RunOptions;

/// Open files: what Kubernetes' own units ask for. Lowered to what is permitted.
const OPEN_FILES: u64 = 1_048_576;

/// A step that failed and is needed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {path}")]
    Unreadable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("{path} is no description of the ground of this version")]
    Malformed {
        path: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot make {target} writable")]
    ReadOnly {
        target: String,
        #[source]
        source: bivouac_sys::Error,
    },
    #[error("cannot share the node's mounts with its pods")]
    Propagation(#[source] bivouac_sys::Error),
    #[error("cannot write {path}")]
    File {
        path: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("cannot route to the pods of other nodes")]
    Routes(#[source] bivouac_sys::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = match error {
            Error::Unreadable { .. } => Self::from_error("agent.ground.unreadable", &error),
            Error::Malformed { .. } => Self::from_error("agent.ground.malformed", &error),
            Error::ReadOnly { .. } => Self::from_error("agent.ground.read_only", &error),
            Error::Propagation(_) => Self::from_error("agent.ground.propagation", &error),
            Error::File { .. } => Self::from_error("agent.ground.file", &error),
            Error::Routes(_) => Self::from_error("agent.ground.routes", &error),
        };
        match error {
            Error::ReadOnly { .. } | Error::Propagation(_) => problem
                .help("start the container with `--privileged`, or at least with CAP_SYS_ADMIN"),
            _ => problem,
        }
    }
}

/// Reads what the ground left to be done; `None` where it left nothing.
pub(crate) fn open_ground(path: &Utf8Path) -> Result<Option<Ground>, Problem> {
    Ok(read(path)?)
}

/// Makes the room itself fit for a node: once, before anything runs that may have mounts of its own.
pub(crate) fn ensure_room(options: &RunOptions, applied: &mut Applied) -> Vec<Problem> {
    let done = [mounts::ensure_writable(applied), mounts::ensure_shared(applied)];
    devices::ensure(&options.places, applied);
    // Of this process, and so of all that it starts.
    if let Err(error) = set_limit(Resource::Nofile, Some(OPEN_FILES), Some(OPEN_FILES)) {
        applied.warnings.push(sentence(&error));
    }
    done.into_iter().filter_map(|done| done.err().map(Problem::from)).collect()
}

/// Shows the node its limits, unless that is what it was shown last.
pub(crate) fn ensure_shown(ground: &Ground, shown: &mut Resources, applied: &mut Applied) {
    if *shown != ground.resources && machine::ensure(ground.resources, applied) {
        *shown = ground.resources;
    }
}

/// Makes the node's surroundings what the ground says: also while it runs.
pub(crate) fn ensure_surroundings(
    ground: &Ground,
    options: &RunOptions,
    applied: &mut Applied,
) -> Vec<Problem> {
    let places = &options.places;
    let mut problems: Vec<Problem> = Vec::new();
    let mut keep = |done: Result<(), Error>| problems.extend(done.err().map(Problem::from));
    keep(files::ensure_content(places, "/etc/machine-id", &line(&ground.machine_id), applied));
    keep(files::ensure_content(places, "/etc/hosts", &ground.hosts, applied));
    keep(routes::ensure(&ground.routes, applied).map_err(Error::Routes));
    if let Some(address) = ground.resolver {
        resolver::ensure(address, places, applied);
    }
    problems
}

fn read(path: &Utf8Path) -> Result<Option<Ground>, Error> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Unreadable { path: path.to_string(), source }),
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|source| Error::Malformed { path: path.to_string(), source }),
    }
}

fn line(text: &str) -> String {
    format!("{}\n", text.trim_end())
}

/// An error of the kernel with its reason, for a warning.
fn sentence(error: &bivouac_sys::Error) -> String {
    format!("{error}: {}", error.cause())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ground_that_left_nothing_is_none_and_a_broken_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("ground.json");
        assert_eq!(open_ground(&path), Ok(None));
        fs::write(&path, r#"{"machineId":"0","hosts":"","rooms":3}"#).unwrap();
        let problem = open_ground(&path).unwrap_err();
        assert_eq!(problem.code, "agent.ground.malformed");
        assert!(problem.message.starts_with(path.as_str()), "{problem:?}");
    }
}
