//! The user's kubeconfig file: a cluster's context comes in on `up` and goes on `down`, all else in it stays.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::{NamedTempFile, PersistError};

use crate::state::write_atomically;
use crate::writes;

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
    /// How long another edit may take.
    const PATIENCE: Duration = Duration::from_secs(20);
    /// How often it is asked whether it is over: the file's removal is the only sign, and its folder may be on any file system.
    const PROBE: Duration = Duration::from_millis(20);

    fn acquire(path: &Utf8Path) -> Result<Self, Problem> {
        let path = Utf8PathBuf::from(format!("{path}.lock"));
        let deadline = Instant::now() + Self::PATIENCE;
        let mut own = Self::own(&path).map_err(|error| Self::refused(&path, &error))?;
        loop {
            let PersistError { error, file } = match own.persist_noclobber(&path) {
                Ok(_) => return Ok(Self(path)),
                Err(refused) => refused,
            };
            own = file;
            if error.kind() != ErrorKind::AlreadyExists {
                return Err(Self::refused(&path, &error));
            }
            if Self::holder_is_gone(&path) {
                drop(std::fs::remove_file(&path));
            } else if Instant::now() >= deadline {
                return Err(Self::refused(&path, &error));
            } else {
                std::thread::sleep(Self::PROBE);
            }
        }
    }

    /// What becomes the lock. It has its holder in it before it is one: whoever is killed in between leaves none that looks like kubectl's.
    fn own(lock: &Utf8Path) -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(lock.parent().unwrap_or(Utf8Path::new(".")))?;
        write!(file, "{}", std::process::id())?;
        // Under sudo it lies in the folder of another user, who must be able to read it.
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        Ok(file)
    }

    /// Whether the lock is that of a bivouac that was killed. One of kubectl's is empty and never taken over.
    fn holder_is_gone(path: &Utf8Path) -> bool {
        let holder = std::fs::read_to_string(path).ok().and_then(|text| text.parse::<u32>().ok());
        holder.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    }

    fn refused(path: &Utf8Path, error: &std::io::Error) -> Problem {
        let message = format!("cannot lock the kubeconfig file by {path}");
        let help = format!("when no kubectl is running, remove {path} and run the command again");
        Problem::failed("kubeconfig.lock", message).because(error).help(help)
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
            Err(error) => Err(Problem::failed("kubeconfig.unreadable", error.to_string())
                .help("look whose file it is, or name another one with the variable `KUBECONFIG`")),
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
        if before.as_deref().unwrap_or_default() == after {
            return Ok(());
        }
        let metadata = std::fs::metadata(&path).ok();
        let mode = metadata.as_ref().map_or(0o600, |file| file.permissions().mode() & 0o7777);
        let owner = match metadata {
            Some(file) => Some(Owner { uid: file.uid(), gid: file.gid() }),
            None => self.owner,
        };
        write_atomically(&path, after.as_bytes(), mode, owner).map_err(unwritable)
    }

    /// Removes it. An absent file is success.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), Problem> {
        match writes::write(&self.path, || fs_err::remove_file(&self.path)) {
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
    fn the_lock_of_a_process_that_is_gone_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("config");
        std::fs::write(format!("{path}.lock"), u32::MAX.to_string()).unwrap();
        UserFile { path: path.clone(), owner: None }.edit(|_| Ok("ours".to_owned())).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "ours");
    }

    #[test]
    fn a_lock_says_from_its_first_moment_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("config");
        let lock = Utf8PathBuf::from(format!("{path}.lock"));
        let own = EditLock::own(&lock).unwrap();
        assert!(!lock.exists());
        let holder = std::fs::read_to_string(own.path()).unwrap();
        assert_eq!(holder, std::process::id().to_string());
        drop(own);
        let held = EditLock::acquire(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), holder);
        drop(held);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
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
