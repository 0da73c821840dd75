//! The user's kubeconfig file: a cluster's context comes in on `up` and goes on `down`, all else in it stays.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

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
    /// How long another edit may take.
    const PATIENCE: Duration = Duration::from_secs(5);
    /// How often it is asked whether it is over: the file's removal is the only sign, and its folder may be on any file system.
    const PROBE: Duration = Duration::from_millis(20);

    fn acquire(path: &Utf8Path) -> Result<Self, Problem> {
        let path = Utf8PathBuf::from(format!("{path}.lock"));
        let deadline = Instant::now() + Self::PATIENCE;
        loop {
            let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&path);
            match made.and_then(|mut file| write!(file, "{}", std::process::id())) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(Self::refused(&path, &error));
                }
                Err(_) if Self::holder_is_gone(&path) => drop(std::fs::remove_file(&path)),
                Err(error) if Instant::now() >= deadline => {
                    return Err(Self::refused(&path, &error));
                }
                Err(_) => std::thread::sleep(Self::PROBE),
            }
        }
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
    fn the_lock_of_a_process_that_is_gone_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("config");
        std::fs::write(format!("{path}.lock"), u32::MAX.to_string()).unwrap();
        UserFile { path: path.clone(), owner: None }.edit(|_| Ok("ours".to_owned())).unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "ours");
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
