//! Copying a file at the price the file system asks for: nothing where blocks can be shared.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::ioctl_ficlone;

use crate::Result;
use crate::error::Context;

/// Copies contents and mode of a file; the target is made or replaced in place. Shares blocks where the file system can
/// (reflink), else copies within the kernel.
pub fn copy_file(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let mut from = File::open(source).at("open", source.display())?;
    let permissions = from.metadata().at("stat", source.display())?.permissions();
    let mut to = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(permissions.mode())
        .open(target)
        .at("create", target.display())?;
    if ioctl_ficlone(&to, &from).is_err() {
        // The standard library copies with copy_file_range(2) or sendfile(2), and reads and writes where neither can.
        let object = format_args!("{} to {}", source.display(), target.display()).to_string();
        io::copy(&mut from, &mut to).at("copy", object)?;
    }
    // Made with the umask taken off, and an existing target keeps its own.
    fs::set_permissions(target, permissions).at("chmod", target.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_contents_and_mode() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::write(&from, vec![7; 100_000]).unwrap();
        fs::set_permissions(&from, fs::Permissions::from_mode(0o4751)).unwrap();
        fs::write(&to, vec![1; 200_000]).unwrap();
        copy_file(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::metadata(&to).unwrap().permissions().mode() & 0o7777, 0o4751);
        let error = copy_file(dir.path().join("absent"), &to).unwrap_err();
        assert!(error.is_absent() && error.object().ends_with("absent"));
    }
}
