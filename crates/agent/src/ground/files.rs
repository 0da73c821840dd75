//! Files that container engines mount over those of the image: they can only be written in place.

use std::fs;
use std::io;

use camino::Utf8Path;

use super::Error;
use crate::apply::Applied;
use crate::options::Places;

/// Gives the file this content, whether or not something is mounted there.
pub(super) fn ensure_content(
    places: &Places,
    path: &'static str,
    content: &str,
    applied: &mut Applied,
) -> Result<(), Error> {
    let changed = write_in_place(&places.inside(Utf8Path::new(path)), content)
        .map_err(|source| Error::File { path, source })?;
    if changed {
        applied.touch("file", Utf8Path::new(path));
    }
    Ok(())
}

/// False: it had the content already.
pub(super) fn write_in_place(path: &Utf8Path, content: &str) -> io::Result<bool> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
    if is_link {
        // Of the image, and to where only a service manager puts a file.
        fs::remove_file(path)?;
    } else if fs::read(path).is_ok_and(|present| present == content.as_bytes()) {
        return Ok(false);
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, content).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::mount::{Propagation, bind, set_propagation};
    use bivouac_sys::namespace::{Namespace, unshare};

    #[test]
    fn a_mounted_file_is_written_in_place_and_a_link_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        std::thread::spawn(move || {
            unshare(&[Namespace::Mount]).unwrap();
            set_propagation("/", Propagation::Private, true).unwrap();
            let places = Places { root: root.clone(), ..Places::default() };
            fs::create_dir(root.join("etc")).unwrap();
            fs::write(root.join("engines"), "of the engine").unwrap();
            fs::write(root.join("etc/hosts"), "of the image").unwrap();
            bind(root.join("engines"), root.join("etc/hosts")).unwrap();
            std::os::unix::fs::symlink("/nowhere/else", root.join("etc/machine-id")).unwrap();
            let mut applied = Applied::default();
            for _ in 0..2 {
                ensure_content(&places, "/etc/hosts", "of the node\n", &mut applied).unwrap();
                ensure_content(&places, "/etc/machine-id", "ab\n", &mut applied).unwrap();
            }
            assert_eq!(applied.changes, ["file /etc/hosts", "file /etc/machine-id"]);
            assert_eq!(fs::read_to_string(root.join("engines")).unwrap(), "of the node\n");
            assert_eq!(fs::read_to_string(root.join("etc/machine-id")).unwrap(), "ab\n");
        })
        .join()
        .unwrap();
    }
}
