//! The folder of an export: whose it is, and what is kept there for the next export of the same cluster.
//!
//! ```text
//! cluster.json   the cluster as it was exported, with its addresses
//! keys.json      its keys, 0600: without them the next export would lock out whoever has the kubeconfig
//! ```

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};

use bivouac_spec::facts::Applied;
use bivouac_spec::{Addresses, Cluster, ClusterName, Problem};
use bivouac_stacks::Keys;
use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::home;

const RECORD: &str = "cluster.json";
const KEYS: &str = "keys.json";

/// The format of the record. Another one belongs to another bivouac.
const FORMAT: u32 = 1;

/// The cluster as it was exported.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    format: u32,
    bivouac: String,
    /// The cluster and its addresses.
    pub applied: Applied,
}

impl Record {
    /// That of this bivouac.
    pub fn new(cluster: Cluster, addresses: Addresses) -> Self {
        let bivouac = env!("CARGO_PKG_VERSION").to_owned();
        Self { format: FORMAT, bivouac, applied: Applied::new(cluster, addresses) }
    }
}

/// A folder into which this cluster may be exported.
pub struct ExportFolder {
    pub path: Utf8PathBuf,
    /// What was exported there before.
    pub record: Option<Record>,
}

impl ExportFolder {
    /// Makes the folder if it is absent. One with anything else in it is refused.
    ///
    /// # Errors
    /// When it is not empty and no export of this cluster, or cannot be read or made.
    pub fn open(path: &Utf8Path, cluster: &ClusterName) -> Result<Self, Problem> {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700).create(path).map_err(|error| {
            Problem::failed("cli.export_folder", format!("the folder {path} cannot be made"))
                .because(&error)
                .help("name another folder with `--output-dir`")
        })?;
        let folder = Self { path: path.to_owned(), record: None };
        let record: Option<Record> = folder.read(RECORD)?;
        let is_empty = || path.read_dir_utf8().is_ok_and(|mut entries| entries.next().is_none());
        let refused = |what: String| {
            let message = format!("the folder {path} {what}");
            Problem::usage("cli.export_folder", message)
                .help("name an empty folder with `--output-dir`")
        };
        match record {
            None if is_empty() => Ok(folder),
            None => Err(refused("is not empty, and no export of bivouac".to_owned())),
            Some(record) if record.format != FORMAT => {
                Err(refused(format!("is an export of bivouac {}", record.bivouac)))
            }
            Some(record) if record.applied.cluster.name() != cluster => {
                let other = record.applied.cluster.name();
                Err(refused(format!("is an export of cluster {other}, not of {cluster}")))
            }
            record => Ok(Self { record, ..folder }),
        }
    }

    /// The keys that were exported before.
    pub fn keys(&self) -> Result<Option<Keys>, Problem> {
        self.read(KEYS)
    }

    /// Keeps the keys.
    pub fn write_keys(&self, keys: &Keys) -> Result<(), Problem> {
        self.write_json(KEYS, keys)
    }

    /// Keeps the record.
    pub fn write_record(&self, record: &Record) -> Result<(), Problem> {
        self.write_json(RECORD, record)
    }

    /// Writes a file whole or not at all.
    pub fn write(&self, name: &str, content: &[u8], mode: u32) -> Result<(), Problem> {
        let (path, new) = (self.path.join(name), self.path.join(format!(".{name}.new")));
        let write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(content)?;
            file.set_permissions(std::fs::Permissions::from_mode(mode))?;
            file.sync_all()?;
            std::fs::rename(&new, &path)
        };
        write().map_err(|error| {
            let _ = std::fs::remove_file(&new);
            Problem::failed("cli.export_folder", format!("{path} cannot be written"))
                .because(&error)
        })
    }

    /// Gives all of it to the user who called sudo, if one did.
    pub fn hand_over(&self) -> Result<(), Problem> {
        let Some(owner) = home::kubeconfig_file(None).and_then(|file| file.owner) else {
            return Ok(());
        };
        give(&self.path, owner.uid, owner.gid).map_err(|error| {
            let message = format!("the folder {} cannot be given to its user", self.path);
            Problem::failed("cli.export_folder", message).because(&error)
        })
    }

    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Problem> {
        let json = serde_json::to_vec_pretty(value)
            .map_err(|error| Problem::from_error("cli.encode", &error))?;
        self.write(name, &json, 0o600)
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Problem> {
        let path = self.path.join(name);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                let message = format!("{path} cannot be read");
                return Err(Problem::failed("cli.export_folder", message).because(&error));
            }
        };
        // Not the error: the text around it may be a key.
        serde_json::from_slice(&text).map(Some).map_err(|_| {
            Problem::failed("cli.export_folder", format!("{path} is not what bivouac wrote"))
                .help("name an empty folder with `--output-dir`")
        })
    }
}

fn give(path: &Utf8Path, uid: u32, gid: u32) -> io::Result<()> {
    lchown(path, Some(uid), Some(gid))?;
    if path.symlink_metadata()?.is_dir() {
        for entry in path.read_dir_utf8()? {
            give(entry?.path(), uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_export_of_the_same_cluster_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("export")).unwrap();
        let (demo, other): (ClusterName, ClusterName) =
            ("demo".parse().unwrap(), "other".parse().unwrap());
        let folder = ExportFolder::open(&path, &demo).unwrap();
        assert!(folder.record.is_none() && folder.keys().unwrap().is_none());
        let cluster = Cluster::named(demo.clone());
        let addresses =
            bivouac_plan::assign_addresses(&cluster, &Default::default(), None).unwrap();
        folder.write_record(&Record::new(cluster, addresses)).unwrap();
        assert!(ExportFolder::open(&path, &demo).unwrap().record.is_some());
        let refused = |name: &ClusterName| ExportFolder::open(&path, name).err().unwrap();
        assert!(refused(&other).message.ends_with("is an export of cluster demo, not of other"));
        std::fs::remove_file(path.join(RECORD)).unwrap();
        std::fs::write(path.join("mine"), "").unwrap();
        assert_eq!(refused(&demo).class, bivouac_spec::Class::Usage);
        assert!(path.join("mine").exists());
    }
}
