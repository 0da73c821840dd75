//! Reading and writing the files of a group; a group that has gone meanwhile counts as empty.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::Result;
use crate::error::Context;

pub(super) fn open_for_writing(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).open(path).at("open", path.display())
}

/// Writes a value in one call, as the kernel wants it.
pub(super) fn write(path: &Path, value: impl Display) -> Result<()> {
    let text = value.to_string();
    open_for_writing(path)?
        .write_all(text.as_bytes())
        .at("write", format_args!("{text} to {}", path.display()))
}

pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).at("read", path.display())
}

/// The sum of these lines of a file such as `memory.stat`.
pub(super) fn sum(text: &str, keys: &[&str]) -> u64 {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let wanted = lines.filter(|(key, _)| keys.contains(key));
    wanted.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum()
}

/// Adds the pids of one folder. Processes outside of the caller's pid namespace are shown as 0 and left out.
pub(super) fn read_pids(folder: &Path, pids: &mut BTreeSet<u32>) -> Result<()> {
    let path = folder.join("cgroup.procs");
    match fs::read_to_string(&path) {
        // Not supported: a threaded group, whose processes are listed by its parent.
        Err(error) if is_gone(&error) || is(&error, Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error).at("read", path.display()),
        Ok(text) => {
            let numbers = text.lines().filter_map(|line| line.parse::<u32>().ok());
            pids.extend(numbers.filter(|pid| *pid != 0));
            Ok(())
        }
    }
}

/// Whether a process is listed that the caller's pid namespace does not have.
pub(super) fn has_unseen(folder: &Path) -> Result<bool> {
    let path = folder.join("cgroup.procs");
    match fs::read_to_string(&path) {
        Err(error) if is_gone(&error) || is(&error, Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error).at("read", path.display()),
        Ok(text) => Ok(text.lines().any(|line| line == "0")),
    }
}

/// The folders directly below; none if it is gone.
pub(super) fn subfolders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if is_gone(&error) => return Ok(Vec::new()),
        other => other.at("read", folder.display())?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.at("read", folder.display())?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Visits a folder and all below it, the deepest first.
pub(super) fn walk(folder: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for child in subfolders(folder)? {
        walk(&child, visit)?;
    }
    visit(folder)
}

/// Makes one folder; true if it was not there.
pub(super) fn make(folder: &Path) -> Result<bool> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        other => other.at("mkdir", folder.display()).map(|()| true),
    }
}

/// Each folder on the way from `base` (left out) to `base/relative`.
pub(super) fn steps(base: &Path, relative: &Path) -> Vec<PathBuf> {
    let mut path = base.to_owned();
    relative
        .components()
        .map(|component| {
            path.push(component);
            path.clone()
        })
        .collect()
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || is(error, Errno::NODEV)
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_summed_by_their_whole_key() {
        let text = "anon 5\nanon_thp 7\nshmem 3\nfile 100\n";
        assert_eq!(sum(text, &["anon", "shmem", "absent"]), 8);
    }
}
