//! Deleting what nodes leave behind, quickly on every disk. A file system that is mounted with `discard` and has no journal tells the disk
//! of each freed file and waits for it. That takes milliseconds, of which there are thousands in the instances or images of one node; asked
//! for many at the same moment, disks answer in hardly more time than for one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, io, thread};

use camino::Utf8Path;

/// How many are deleted at the same moment.
const AT_ONCE: usize = 16;

/// Deletes a folder in which no process is at work any more, quickly. Absent is success.
pub(super) fn remove_quiet_tree(path: &Utf8Path) -> io::Result<()> {
    remove_at_once(path);
    // What could not be deleted is met again, and told.
    remove_tree(path)
}

/// Deletes a folder, without following links, even ones that are put in the place of folders meanwhile. Absent is success.
pub(super) fn remove_tree(path: &Utf8Path) -> io::Result<()> {
    match fs_err::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Goes by paths, so whoever could change what is in the folder could lead it elsewhere.
fn remove_at_once(path: &Utf8Path) {
    let found = Tree::read(path.as_std_path());
    at_once(&found.files, |(folder, name)| {
        let _ = fs::remove_file(found.folders[*folder].join(name));
    });
    for level in found.levels.iter().rev() {
        at_once(&found.folders[level.clone()], |folder| {
            let _ = fs::remove_dir(folder);
        });
    }
}

/// What is in a folder, as far as it can be read.
struct Tree {
    /// Each after the one that it is in.
    folders: Vec<PathBuf>,
    /// The folders of each depth: ranges of `folders`.
    levels: Vec<std::ops::Range<usize>>,
    /// Everything else: the number of its folder, and its name.
    files: Vec<(usize, OsString)>,
}

impl Tree {
    fn read(path: &Path) -> Self {
        let mut tree = Self { folders: Vec::new(), levels: Vec::new(), files: Vec::new() };
        // A link is not what it leads to.
        if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
            tree.folders.push(path.to_owned());
        }
        let mut level = 0..tree.folders.len();
        while !level.is_empty() {
            tree.levels.push(level.clone());
            level.clone().for_each(|folder| tree.read_folder(folder));
            level = level.end..tree.folders.len();
        }
        tree
    }

    fn read_folder(&mut self, folder: usize) {
        let entries = fs::read_dir(&self.folders[folder]).into_iter().flatten().flatten();
        for entry in entries {
            // That of a link itself.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.folders.push(entry.path());
            } else {
                self.files.push((folder, entry.file_name()));
            }
        }
    }
}

/// Does this with all of them, in no order.
fn at_once<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let worker = || {
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(one);
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(all.len()) {
            // One thread fewer makes it slower, not wrong.
            if thread::Builder::new().spawn_scoped(scope, worker).is_err() {
                break;
            }
        }
        worker();
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn all_of_a_folder_goes_and_nothing_that_links_lead_to() {
        let outside = tempfile::tempdir().unwrap();
        let kept = outside.path().join("kept");
        fs::write(&kept, "").unwrap();
        let inside = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(inside.path()).unwrap().join("tree");
        for folder in ["a/b/c", "a/empty", "d"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).unwrap();
            for number in 0..50 {
                fs::write(folder.join(number.to_string()), "content").unwrap();
            }
        }
        symlink(outside.path(), root.join("a/folder")).unwrap();
        symlink(&kept, root.join("d/file")).unwrap();
        symlink("nowhere", root.join("dangling")).unwrap();
        let tree = Tree::read(root.as_std_path());
        assert_eq!((tree.folders.len(), tree.files.len()), (6, 153));
        assert_eq!(tree.levels, [0..1, 1..3, 3..5, 5..6]);
        remove_at_once(&root);
        assert!(!root.exists() && kept.exists());
        remove_quiet_tree(&root).unwrap();
    }

    #[test]
    fn a_link_in_its_place_goes_and_what_it_leads_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(folder.path()).unwrap();
        fs::create_dir(root.join("kept")).unwrap();
        fs::write(root.join("kept/file"), "").unwrap();
        symlink(root.join("kept"), root.join("link")).unwrap();
        remove_quiet_tree(&root.join("link")).unwrap();
        assert!(!root.join("link").is_symlink() && root.join("kept/file").exists());
    }
}
