//! One verb at a time changes a cluster.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;

use bivouac_spec::{ClusterName, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::writes;

/// Held while a verb changes a cluster. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct ClusterLock {
    _file: File,
    path: Utf8PathBuf,
}

/// Who holds a lock, written into it for others to read.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    verb: String,
    pid: u32,
    since: Timestamp,
}

impl ClusterLock {
    /// Takes the lock of a cluster for `verb`.
    ///
    /// # Errors
    /// When another verb holds it; the message names that one.
    pub fn acquire(path: &Utf8Path, cluster: &ClusterName, verb: &str) -> Result<Self, Problem> {
        let unusable = |error: std::io::Error| {
            Problem::failed("state.lock", format!("cannot lock cluster `{cluster}` by {path}"))
                .because(&error)
        };
        loop {
            let mut file = fs_err::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(unusable)?
                .into_file();
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(&mut file, cluster)),
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
            }
            // `down` removes the file while it holds the lock, so a lock on a removed file is no lock.
            let ours = file.metadata().map_err(unusable)?.ino();
            if std::fs::metadata(path).is_ok_and(|current| current.ino() == ours) {
                let holder = Holder {
                    verb: verb.to_owned(),
                    pid: std::process::id(),
                    since: Timestamp::now(),
                };
                let text = serde_json::to_string(&holder).expect("a holder has string keys only");
                file.set_len(0).and_then(|()| file.write_all(text.as_bytes())).map_err(unusable)?;
                return Ok(Self { _file: file, path: path.to_owned() });
            }
        }
    }

    /// Removes the lock's file and releases the lock: the cluster is gone.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn remove(self) -> Result<(), Problem> {
        let removed = writes::write(&self.path, || fs_err::remove_file(&self.path));
        removed.map_err(|error| Problem::from_error("state.lock", &error))
    }
}

fn held(file: &mut File, cluster: &ClusterName) -> Problem {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    let holder = read.ok().and_then(|_| serde_json::from_str::<Holder>(&text).ok());
    let by = holder.map_or_else(
        || "another bivouac".to_owned(),
        |holder| {
            format!("`bivouac {}` (process {}, since {:.0})", holder.verb, holder.pid, holder.since)
        },
    );
    Problem::failed("state.busy", format!("cluster `{cluster}` is being changed by {by}"))
        .help("wait until it is done, then run the same command again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_verb_is_refused_and_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("demo.lock");
        let name: ClusterName = "demo".parse().unwrap();
        let lock = ClusterLock::acquire(&path, &name, "up").unwrap();
        let refused = ClusterLock::acquire(&path, &name, "down").unwrap_err();
        assert_eq!(refused.code, "state.busy");
        assert!(refused.message.contains(&format!("`bivouac up` (process {}", std::process::id())));
        lock.remove().unwrap();
        assert!(!path.exists());
        ClusterLock::acquire(&path, &name, "down").unwrap();
    }
}
