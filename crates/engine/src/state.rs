//! What only bivouac knows of its clusters, one folder each: the spec as applied, addresses, keys. Everything else is asked of
//! the ground.
//!
//! ```text
//! STATE/clusters/NAME/cluster.json   ClusterState
//!                     keys.json      the stack's keys, 0600
//!                     events*.jsonl  what the verbs did, see `events`
//! STATE/clusters/NAME.lock           ClusterLock
//! STATE/PROVIDER/…                   the provider's own
//! ```

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use bivouac_spec::facts::Applied;
use bivouac_spec::{ClusterName, Facts, Problem, SnapshotName};
use bivouac_stacks::{Keys, RenderRequest};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ClusterLock;
use crate::kubeconfig::Owner;
use crate::snapshot::Place;
use crate::writes;

/// The format of [`ClusterState`] that this version writes and reads.
const FORMAT: u32 = 1;

/// The folder with what only bivouac knows.
#[derive(Debug, Clone)]
pub struct StateDirectory {
    path: Utf8PathBuf,
}

/// Held while addresses are chosen and recorded.
#[derive(Debug)]
pub struct AddressLock(
    #[expect(dead_code, reason = "the kernel holds the lock as long as the file is open")] File,
);

/// What is known of one cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterState {
    /// The format of this document.
    pub format: u32,
    /// The version of bivouac that wrote it.
    pub bivouac: String,
    /// When the cluster was made.
    pub created: Timestamp,
    /// What was asked for, and the addresses that it got.
    pub applied: Applied,
    /// The ground as it was then.
    pub facts: Facts,
    /// The key of the node image that its nodes were made from.
    pub image: String,
    /// The node image with which all of it was usable last; absent before the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_image: Option<String>,
    /// Whether nodes may be out of work, until all of it is usable again: they are being made anew from another node image, or were to be
    /// removed and stay.
    #[serde(default)]
    pub remaking: bool,
    /// The kubeconfig file that its context was merged into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<Utf8PathBuf>,
    /// Whether that file was not there before.
    #[serde(default)]
    pub kubeconfig_made: bool,
    /// The configuration of the `incus` client that the cluster was entered into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Utf8PathBuf>,
    /// What it is being made from, until that has come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<Restoring>,
}

/// What a cluster is being made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Restoring {
    /// The cluster that was saved: the same one where it is restored, another one where it is a fork of that.
    pub cluster: ClusterName,
    /// Its snapshot; absent for a fork that saves what it is made from by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotName>,
}

impl Restoring {
    /// Where that is.
    pub(crate) fn place(&self, cluster: &ClusterName) -> Place {
        match &self.snapshot {
            Some(name) => Place::Named(name.clone()),
            None => Place::ForFork(cluster.clone()),
        }
    }

    /// The command that does it.
    #[must_use]
    pub fn command(&self, cluster: &ClusterName) -> String {
        match (&self.snapshot, &self.cluster) {
            (Some(name), before) if before == cluster => {
                format!("bivouac snapshot restore {name} {cluster}")
            }
            (Some(name), before) => format!("bivouac fork {cluster} {before} --snapshot {name}"),
            (None, before) => format!("bivouac fork {cluster} {before}"),
        }
    }

    /// Why nothing else can be done with a cluster in which this has not come to its end.
    #[must_use]
    pub fn refusal(&self, cluster: &ClusterName) -> Problem {
        let message = if self.cluster == *cluster {
            format!("cluster `{cluster}` is being restored, and that has not come to its end")
        } else {
            let before = &self.cluster;
            format!(
                "cluster `{cluster}` is being made from `{before}`, and that has not come to its end"
            )
        };
        let command = self.command(cluster);
        Problem::usage("engine.restoring", message).help(format!(
            "run `{command}` to do it again, or `bivouac down {cluster}` to remove it"
        ))
    }
}

impl ClusterState {
    /// The state of a cluster that is about to be made.
    #[must_use]
    pub fn new(applied: Applied, facts: Facts, image: String) -> Self {
        Self {
            format: FORMAT,
            bivouac: env!("CARGO_PKG_VERSION").to_owned(),
            created: Timestamp::now(),
            applied,
            facts,
            image,
            completed_image: None,
            remaking: false,
            kubeconfig: None,
            kubeconfig_made: false,
            remote: None,
            restoring: None,
        }
    }
}

impl ClusterState {
    /// What the cluster's stack renders it from.
    #[must_use]
    pub const fn render_request(&self) -> RenderRequest<'_> {
        let Applied { cluster, addresses, joined, .. } = &self.applied;
        RenderRequest { cluster, addresses, facts: &self.facts, joined }
    }
}

/// The part of every version's state that tells its format.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
    #[serde(default)]
    bivouac: String,
}

impl StateDirectory {
    /// The state in this folder, which is made when something is written.
    #[must_use]
    pub const fn open(path: Utf8PathBuf) -> Self {
        Self { path }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    fn clusters_path(&self) -> Utf8PathBuf {
        self.path.join("clusters")
    }

    pub(crate) fn cluster_path(&self, name: &ClusterName) -> Utf8PathBuf {
        self.clusters_path().join(name.as_str())
    }

    /// Takes the lock of a cluster for `verb`.
    ///
    /// # Errors
    /// When another verb holds it.
    pub fn lock(&self, name: &ClusterName, verb: &str) -> Result<ClusterLock, Problem> {
        make_private(&self.clusters_path())?;
        ClusterLock::acquire(&self.clusters_path().join(format!("{name}.lock")), name, verb)
    }

    /// Taken while addresses are chosen and recorded, so that two clusters that are made at once do not choose the same. Waits
    /// for the other, which takes a tenth of a second.
    ///
    /// # Errors
    /// When the folder cannot be locked.
    pub fn lock_addresses(&self) -> Result<AddressLock, Problem> {
        let locked =
            File::open(self.clusters_path()).and_then(|folder| folder.lock().map(|()| folder));
        locked.map(AddressLock).map_err(|error| unwritable(&error))
    }

    /// The clusters that there is state of, in order of their names.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn clusters(&self) -> Result<Vec<ClusterName>, Problem> {
        let entries = match fs_err::read_dir(self.clusters_path()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| unreadable(&error))?;
            if entry.path().is_dir()
                && let Some(Ok(name)) = entry.file_name().to_str().map(str::parse)
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether anything is known of a cluster.
    pub(crate) fn knows(&self, name: &ClusterName) -> bool {
        self.cluster_path(name).exists()
    }

    /// What is known of a cluster, if anything.
    ///
    /// # Errors
    /// When it cannot be read, or another version of bivouac wrote it in a format that this one does not know.
    pub fn read(&self, name: &ClusterName) -> Result<Option<ClusterState>, Problem> {
        let path = self.cluster_path(name).join("cluster.json");
        let Some(format) = read_json::<FormatOnly>(&path)? else { return Ok(None) };
        if format.format != FORMAT {
            let (theirs, version) = (format.format, format.bivouac);
            let message = format!(
                "the state of cluster `{name}` has format {theirs} (bivouac {version}), this bivouac knows format {FORMAT}"
            );
            return Err(Problem::usage("state.format", message)
                .help(format!("use bivouac {version} for this cluster, or remove the cluster with that version's `down`")));
        }
        read_json(&path)
    }

    /// Records what is known of a cluster, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &ClusterState) -> Result<(), Problem> {
        self.write_json(state.applied.cluster.name(), "cluster.json", state)
    }

    /// The keys of a cluster, if it has any.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_keys(&self, name: &ClusterName) -> Result<Option<Keys>, Problem> {
        read_json(&self.cluster_path(name).join("keys.json"))
    }

    /// Keeps the keys of a cluster where only root reads them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_keys(&self, name: &ClusterName, keys: &Keys) -> Result<(), Problem> {
        self.write_json(name, "keys.json", keys)
    }

    /// Forgets a cluster. An unknown one is success.
    ///
    /// # Errors
    /// When its folder cannot be removed.
    pub fn remove(&self, name: &ClusterName) -> Result<(), Problem> {
        // Last what makes it known: a removal that was cut short is found and finished by the next.
        for file in ["keys.json", crate::events::NEWEST, crate::events::OLDER] {
            let path = self.cluster_path(name).join(file);
            let _ = writes::write(&path, || std::fs::remove_file(&path));
        }
        let path = self.cluster_path(name);
        match writes::write(&path, || fs_err::remove_dir_all(&path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(unwritable(&error)),
            _ => Ok(()),
        }
    }

    /// Removes the folder of clusters when there is none, and this folder when nothing else is in it.
    pub(crate) fn remove_if_empty(&self) {
        // A folder that is not empty stays: that is the question asked.
        let _ = std::fs::remove_dir(self.clusters_path())
            .and_then(|()| std::fs::remove_dir(&self.path));
    }

    fn write_json<T: Serialize>(
        &self,
        name: &ClusterName,
        file: &str,
        value: &T,
    ) -> Result<(), Problem> {
        let folder = self.cluster_path(name);
        make_private(&folder)?;
        write_json(&folder, file, value)
    }
}

/// Writes a document that only its owner may read.
pub(crate) fn write_json<T: Serialize>(
    folder: &Utf8Path,
    file: &str,
    value: &T,
) -> Result<(), Problem> {
    let json = serde_json::to_vec_pretty(value)
        .map_err(|error| Problem::from_error("state.encode", &error))?;
    write_atomically(&folder.join(file), &json, 0o600, None).map_err(|error| unwritable(&error))
}

/// Writes a file so that a reader sees the old or the new content and nothing between, and never another owner.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn write_atomically(
    path: &Utf8Path,
    content: &[u8],
    mode: u32,
    owner: Option<Owner>,
) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Utf8Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    if let Some(owner) = owner {
        std::os::unix::fs::fchown(file.as_file(), Some(owner.uid), Some(owner.gid))?;
    }
    file.as_file().sync_all()?;
    writes::write(path, || file.persist(path))?;
    Ok(())
}

pub(crate) fn make_private(folder: &Utf8Path) -> Result<(), Problem> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| {
        Problem::failed("state.unwritable", format!("cannot make the state folder {folder}"))
            .because(&error)
            .help("run it as root, or name another folder with `--state-dir`")
    })
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Utf8Path) -> Result<Option<T>, Problem> {
    let text = match fs_err::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&error)),
    };
    let value = serde_json::from_slice(&text).map_err(|error| {
        Problem::failed("state.damaged", format!("{path} is not what bivouac wrote"))
            .because(&error)
            .help("remove the cluster with `bivouac down` and make it again")
    })?;
    Ok(Some(value))
}

pub(crate) fn unreadable(error: &std::io::Error) -> Problem {
    Problem::failed("state.unreadable", "cannot read the state folder")
        .because(error)
        .help("run it as root")
}

pub(crate) fn unwritable(error: &std::io::Error) -> Problem {
    let problem =
        Problem::failed("state.unwritable", "cannot write the state folder").because(error);
    if error.kind() == std::io::ErrorKind::StorageFull {
        return problem.help("free some disk and run the command again: nothing is lost");
    }
    problem.help("run it as root, or name another folder with `--state-dir`")
}
