//! The user's kubeconfig file: a cluster's context comes in on `up` and goes on `down`, all else in it stays.

use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};

use crate::state::write_atomically;

/// The user whose file it is, where that is not the one who runs bivouac (under sudo).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// The user's kubeconfig file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserFile {
    /// Where it is. Need not exist.
    pub path: Utf8PathBuf,
    /// Whose it becomes when it is made.
    pub owner: Option<Owner>,
}

/// Held while a kubeconfig file is changed, in the way that kubectl does it: `FILE.lock`, made exclusively.
struct EditLock(Utf8PathBuf);

impl EditLock {
    fn acquire(path: &Utf8Path) -> Result<Self, Problem> {
        let path = Utf8PathBuf::from(format!("{path}.lock"));
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => Ok(Self(path)),
            Err(error) => {
                let message = format!("cannot lock the kubeconfig file by {path}");
                let help =
                    format!("when no kubectl is running, remove {path} and run the command again");
                Err(Problem::failed("kubeconfig.lock", message).because(&error).help(help))
            }
        }
    }
}

impl Drop for EditLock {
    fn drop(&mut self) {
        // The file only says that somebody edits; one that cannot be removed is reported by the next edit.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl UserFile {
    /// Its content, if it exists.
    ///
    /// # Errors
    /// When it exists and cannot be read.
    pub fn read(&self) -> Result<Option<String>, Problem> {
        match fs_err::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Problem::failed("kubeconfig.unreadable", error.to_string())),
        }
    }

    /// Changes its content by `change`, which is given what is there. Writes nothing when nothing changes. Mode and owner of
    /// an existing file stay; a link is followed.
    ///
    /// # Errors
    /// When the file cannot be read or written, or `change` refuses.
    pub fn edit(
        &self,
        change: impl FnOnce(Option<&str>) -> Result<String, Problem>,
    ) -> Result<(), Problem> {
        let unwritable = |error: std::io::Error| {
            Problem::failed(
                "kubeconfig.unwritable",
                format!("cannot write the kubeconfig file {}", self.path),
            )
            .because(&error)
            .help("name another file with `--kubeconfig` or $KUBECONFIG")
        };
        let path = self.path.canonicalize_utf8().unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path.parent()
            && !folder.exists()
        {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
            self.give(folder).map_err(unwritable)?;
        }
        let _lock = EditLock::acquire(&path)?;
        let before = self.read()?;
        let after = change(before.as_deref())?;
        if before.as_deref() == Some(after.as_str()) {
            return Ok(());
        }
        let metadata = std::fs::metadata(&path).ok();
        let mode = metadata.as_ref().map_or(0o600, |file| file.permissions().mode() & 0o7777);
        write_atomically(&path, after.as_bytes(), mode).map_err(unwritable)?;
        match metadata {
            Some(file) => std::os::unix::fs::chown(&path, Some(file.uid()), Some(file.gid()))
                .map_err(unwritable),
            None => self.give(&path).map_err(unwritable),
        }
    }

    /// Removes it. An absent file is success.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), Problem> {
        match fs_err::remove_file(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Problem::failed("kubeconfig.unwritable", error.to_string()))
            }
            _ => Ok(()),
        }
    }

    fn give(&self, path: &Utf8Path) -> std::io::Result<()> {
        match self.owner {
            Some(owner) => std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_keeps_mode_and_leaves_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("sub/config");
        let file = UserFile { path: path.clone(), owner: None };
        file.edit(|before| {
            assert_eq!(before, None);
            Ok("a".to_owned())
        })
        .unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        file.edit(|before| Ok(format!("{}b", before.unwrap()))).unwrap();
        assert_eq!(file.read().unwrap().unwrap(), "ab");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(!path.with_file_name("config.lock").exists());
    }

    #[test]
    fn a_refused_edit_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("config");
        std::fs::write(&path, "mine").unwrap();
        let file = UserFile { path, owner: None };
        file.edit(|_| Err(Problem::failed("test", "no"))).unwrap_err();
        assert_eq!(file.read().unwrap().unwrap(), "mine");
    }
}
