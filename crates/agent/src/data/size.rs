//! How much there is to copy, before anything is: what has no room is refused then.

use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What an archive has of each file beside its content: the head, and what rounds it up.
const HEAD: u64 = 1024;

/// About the bytes of these folders in an archive. The node goes on meanwhile: what goes away counts nothing. A file may have more blocks than
/// it is long, and more length than it has blocks.
pub(super) fn of(
    root: &Path,
    paths: impl IntoIterator<Item = PathBuf>,
    left: &[PathBuf],
) -> io::Result<u64> {
    let (mut size, mut met) = (0, HashSet::new());
    let mut todo: Vec<PathBuf> = paths.into_iter().collect();
    while let Some(path) = todo.pop() {
        let source = root.join(&path);
        let Some(metadata) = present(fs::symlink_metadata(&source))? else { continue };
        size += HEAD;
        if metadata.is_dir() && !left.contains(&path) {
            let Some(entries) = present(fs::read_dir(&source))? else { continue };
            for entry in entries {
                todo.push(path.join(entry?.file_name()));
            }
        } else if metadata.is_file()
            && (metadata.nlink() == 1 || met.insert((metadata.dev(), metadata.ino())))
        {
            size += metadata.len().min(metadata.blocks() * 512);
        }
    }
    Ok(size)
}

fn present<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok(None)
        }
        found => found.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_an_archive_has() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("var/left")).unwrap();
        fs::create_dir_all(root.join("var/kept")).unwrap();
        fs::write(root.join("var/kept/data"), vec![1; 300_000]).unwrap();
        fs::hard_link(root.join("var/kept/data"), root.join("var/again")).unwrap();
        fs::write(root.join("var/left/cache"), vec![1; 300_000]).unwrap();
        let hole = fs::File::create(root.join("var/hole")).unwrap();
        hole.set_len(1 << 30).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("var/link")).unwrap();
        let paths = || ["var".into(), "absent".into()];
        let size = of(root, paths(), &["var/left".into()]).unwrap();
        assert!((300_000..320_000).contains(&size), "{size}");
        assert!(of(root, paths(), &[]).unwrap() > 600_000);
    }
}
