//! Snapshots on this host.
//!
//! ```text
//! STATE/snapshots/CLUSTER/NAME/NODE.tar        the data of a node
//!                              keys.json       the keys of the cluster, 0600
//!                              snapshot.json   Snapshot; written last
//! STATE/snapshots/CLUSTER/.fork-NEW/           the same, saved for one fork and removed after it
//! ```
//!
//! A folder without `snapshot.json` is one that was not finished, or that is being removed: nobody sees it, and the next verb about the
//! cluster's snapshots removes it. The cluster's lock is held by whoever writes.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;

use bivouac_spec::name::nearest;
use bivouac_spec::{ClusterName, NodeName, Problem, Problems, SnapshotName};
use bivouac_stacks::Keys;
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::state::{make_private, read_json, unreadable, unwritable, write_json};
use crate::{ClusterState, StateDirectory, writes};

/// The format of [`Snapshot`] that this version writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// What makes a folder a snapshot.
const RECORD: &str = "snapshot.json";

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// The format of this document.
    pub format: u32,
    /// The version of bivouac that saved it.
    pub bivouac: String,
    /// Its name among those of the cluster.
    pub name: SnapshotName,
    /// When it was saved.
    pub created: Timestamp,
    /// The kind of ground that the cluster was on.
    pub provider: String,
    /// What ran on it: `Kubernetes v1.36.3`.
    pub stack: String,
    /// How long the cluster was paused, in milliseconds.
    pub paused_for: u64,
    /// The bytes of it on this host.
    pub size: u64,
    /// The bytes of each node's data.
    pub nodes: BTreeMap<NodeName, u64>,
    /// The cluster, as it was recorded.
    pub state: ClusterState,
}

impl Snapshot {
    /// A snapshot of a cluster that is about to be saved.
    pub(super) fn new(name: SnapshotName, state: ClusterState) -> Self {
        let spec = &state.applied.cluster.spec;
        Self {
            format: FORMAT,
            bivouac: env!("CARGO_PKG_VERSION").to_owned(),
            name,
            created: Timestamp::now(),
            provider: spec.provider.name().to_owned(),
            stack: bivouac_stacks::open(&spec.stack).describe(),
            paused_for: 0,
            size: 0,
            nodes: BTreeMap::new(),
            state,
        }
    }

    /// The cluster that was saved.
    #[must_use]
    pub const fn cluster(&self) -> &ClusterName {
        self.state.applied.cluster.name()
    }
}

/// The part of every version's record that tells its format.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
    #[serde(default)]
    bivouac: String,
}

/// Which folder of a cluster's snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that has a name.
    Named(SnapshotName),
    /// What was saved for a fork of this name.
    ForFork(ClusterName),
}

impl Place {
    fn folder(&self) -> String {
        match self {
            Self::Named(name) => name.to_string(),
            Self::ForFork(fork) => format!(".fork-{fork}"),
        }
    }

    /// What the snapshot there is called.
    pub(crate) fn name(&self) -> SnapshotName {
        match self {
            Self::Named(name) => name.clone(),
            Self::ForFork(fork) => {
                format!("fork-{fork}").parse().expect("a word before a name of a cluster fits")
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => write!(f, "snapshot `{name}`"),
            Self::ForFork(fork) => write!(f, "what was saved for the fork `{fork}`"),
        }
    }
}

/// The snapshots of all clusters of a state folder.
#[derive(Debug, Clone)]
pub struct Snapshots {
    folder: Utf8PathBuf,
    state: StateDirectory,
}

impl Snapshots {
    /// Those of this state folder.
    #[must_use]
    pub fn of(state: &StateDirectory) -> Self {
        Self { folder: state.path().join("snapshots"), state: state.clone() }
    }

    /// The clusters that there are snapshots of, in order of their names. They may be gone themselves.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn clusters(&self) -> Result<Vec<ClusterName>, Problem> {
        let mut clusters = Vec::new();
        for name in folders(&self.folder)?.iter().filter_map(|name| name.parse().ok()) {
            if !self.names(&name)?.is_empty() {
                clusters.push(name);
            }
        }
        Ok(clusters)
    }

    /// The names of a cluster's snapshots, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn names(&self, cluster: &ClusterName) -> Result<Vec<SnapshotName>, Problem> {
        let folder = self.folder.join(cluster.as_str());
        let is_whole = |name: &SnapshotName| folder.join(name.as_str()).join(RECORD).is_file();
        let names = folders(&folder)?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).filter(is_whole).collect())
    }

    /// A snapshot of a cluster.
    ///
    /// # Errors
    /// When there is none of this name (the nearest is named), or a newer bivouac saved it.
    pub fn read(&self, cluster: &ClusterName, name: &SnapshotName) -> Result<Snapshot, Problem> {
        let found = self.open(cluster, &Place::Named(name.clone()))?;
        found.map_or_else(|| Err(self.absent(cluster, name)), Ok)
    }

    /// Whether there is a snapshot of this name.
    pub(super) fn has(&self, cluster: &ClusterName, place: &Place) -> bool {
        self.path(cluster, place).join(RECORD).is_file()
    }

    /// What is in this place, if that is whole.
    pub(super) fn open(
        &self,
        cluster: &ClusterName,
        place: &Place,
    ) -> Result<Option<Snapshot>, Problem> {
        let path = self.path(cluster, place).join(RECORD);
        let damaged = |problem| damaged(problem, cluster, place);
        let Some(format) = read_json::<FormatOnly>(&path).map_err(damaged)? else {
            return Ok(None);
        };
        if format.format > FORMAT {
            let (theirs, version) = (format.format, format.bivouac);
            let message = format!(
                "{place} of cluster `{cluster}` has format {theirs} (bivouac {version}), this bivouac knows format {FORMAT}"
            );
            return Err(Problem::usage("snapshot.format", message)
                .help(format!("use bivouac {version}, or a newer one")));
        }
        read_json(&path).map_err(damaged)
    }

    fn absent(&self, cluster: &ClusterName, name: &SnapshotName) -> Problem {
        let message = format!("cluster `{cluster}` has no snapshot `{name}`");
        let problem = Problem::usage("snapshot.unknown", message);
        let names = self.names(cluster).unwrap_or_default();
        let names: Vec<&str> = names.iter().map(SnapshotName::as_str).collect();
        match nearest(name.as_str(), names.iter().copied()) {
            Some(near) => problem.help(format!("name `{near}` if you mean that")),
            None if names.is_empty() => {
                problem.help(format!("save one with `bivouac snapshot save {name} {cluster}`"))
            }
            None => problem.help(format!("name one of: {}", names.join(", "))),
        }
    }

    pub(super) fn path(&self, cluster: &ClusterName, place: &Place) -> Utf8PathBuf {
        self.folder.join(cluster.as_str()).join(place.folder())
    }

    /// The data of a node.
    pub(super) fn data(
        &self,
        cluster: &ClusterName,
        place: &Place,
        node: &NodeName,
    ) -> Utf8PathBuf {
        self.path(cluster, place).join(format!("{node}.tar"))
    }

    /// The keys of the cluster as they were.
    pub(super) fn keys(&self, cluster: &ClusterName, place: &Place) -> Result<Keys, Problem> {
        let path = self.path(cluster, place).join("keys.json");
        let found = read_json(&path).map_err(|problem| damaged(problem, cluster, place))?;
        found.ok_or_else(|| incomplete(format!("{path} is not there any more"), cluster, place))
    }

    /// Compares the files with what was recorded of them.
    pub(super) fn check(&self, snapshot: &Snapshot, place: &Place) -> Result<(), Problems> {
        let cluster = snapshot.cluster();
        let nodes = snapshot.state.applied.cluster.nodes().into_iter();
        let wrong = nodes.filter_map(|node| {
            let path = self.data(cluster, place, &node.name);
            let recorded = snapshot.nodes.get(&node.name);
            let message = match (fs_err::metadata(&path), recorded) {
                (Ok(file), Some(size)) if file.len() == *size => return None,
                (Ok(file), Some(size)) => {
                    format!("{path} has {} bytes, and {size} were written", file.len())
                }
                (Ok(_), None) => format!("nothing is recorded of {path}"),
                (Err(_), _) => format!("{path} is not there any more"),
            };
            Some(incomplete(message, cluster, place))
        });
        Problems::check(wrong.collect())
    }

    /// Makes an empty folder for a snapshot.
    pub(super) fn begin(&self, cluster: &ClusterName, place: &Place) -> Result<(), Problem> {
        self.remove(cluster, place)?;
        let path = self.path(cluster, place);
        writes::write(&path, || make_private(&path))
    }

    /// Makes the folder a snapshot: all else is there.
    pub(super) fn finish(
        &self,
        snapshot: &Snapshot,
        keys: &Keys,
        place: &Place,
    ) -> Result<(), Problem> {
        let folder = self.path(snapshot.cluster(), place);
        write_json(&folder, "keys.json", keys)?;
        // The record must not outlive what it tells of when the machine fails.
        sync(&folder)?;
        write_json(&folder, RECORD, snapshot)?;
        folder.ancestors().take(3).try_for_each(sync)
    }

    /// Removes what is in this place. Nothing is success.
    pub(crate) fn remove(&self, cluster: &ClusterName, place: &Place) -> Result<(), Problem> {
        let folder = self.path(cluster, place);
        // First what makes it a snapshot: what is left of a removal that was cut short is none.
        let record = folder.join(RECORD);
        for removed in [
            writes::write(&record, || fs_err::remove_file(&record)),
            writes::write(&folder, || fs_err::remove_dir_all(&folder)),
        ] {
            match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(unwritable(&error));
                }
                _ => {}
            }
        }
        self.remove_if_empty(cluster);
        Ok(())
    }

    /// Removes the folders that are no snapshots. Only for whoever holds the cluster's lock.
    pub(super) fn sweep(&self, cluster: &ClusterName) -> Result<(), Problem> {
        let folder = self.folder.join(cluster.as_str());
        for name in folders(&folder)? {
            let path = folder.join(&name);
            // What a fork has for itself is its own.
            if !name.starts_with('.') && !path.join(RECORD).is_file() {
                fs_err::remove_dir_all(path).map_err(|error| unwritable(&error))?;
            }
        }
        self.remove_if_empty(cluster);
        Ok(())
    }

    fn remove_if_empty(&self, cluster: &ClusterName) {
        // A folder that is not empty stays: that is the question asked.
        let removed = std::fs::remove_dir(self.folder.join(cluster.as_str()))
            .and_then(|()| std::fs::remove_dir(&self.folder));
        if removed.is_ok() {
            self.state.remove_if_empty();
        }
    }
}

/// Has a folder's names on the disk.
fn sync(folder: &Utf8Path) -> Result<(), Problem> {
    let synced = fs_err::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| unwritable(&error))
}

/// What is missing of a snapshot cannot be had again.
pub(super) fn incomplete(message: String, cluster: &ClusterName, place: &Place) -> Problem {
    Problem::failed("snapshot.damaged", message).help(match place {
        Place::Named(name) => format!(
            "delete the snapshot with `bivouac snapshot delete {name} -c {cluster}`, and save another"
        ),
        Place::ForFork(fork) => {
            format!("remove the fork with `bivouac down {fork}`, then run the same command again")
        }
    })
}

/// A document of a snapshot that cannot be understood says nothing about the cluster.
fn damaged(problem: Problem, cluster: &ClusterName, place: &Place) -> Problem {
    if problem.code != "state.damaged" {
        return problem;
    }
    let Problem { causes, .. } = problem;
    Problem { causes, ..incomplete(problem.message, cluster, place) }
}

/// The names of the folders in a folder, in order. Without it there are none.
fn folders(folder: &Utf8Path) -> Result<Vec<String>, Problem> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(&error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&error))?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}
