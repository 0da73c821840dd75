//! Files and file systems: space, kind, fast copies, locks, growing files.

mod copy;
mod lock;
mod tail;

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statfs, statvfs, statx};
use rustix::io::Errno;

pub use copy::copy_file;
pub use lock::{Attempt, FileLock, Holder};
pub use tail::Tail;

use crate::Result;
use crate::error::Context;

/// Space of a file system in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total: u64,
    /// What an unprivileged user may still write: a part may be reserved for root.
    pub available: u64,
    /// Inodes left; 0 where the file system does not count them.
    pub free_inodes: u64,
}

/// A file system by its magic number (statfs(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Layers united: cannot be the upper layer of another overlay.
    Overlay,
    /// Memory.
    Tmpfs,
    /// ext2, ext3 or ext4.
    Ext,
    /// XFS.
    Xfs,
    /// Btrfs.
    Btrfs,
    /// ZFS.
    Zfs,
    /// NFS.
    Nfs,
    /// FUSE.
    Fuse,
    /// 9p, as in virtual machines.
    NineP,
    /// cgroup v2.
    Cgroup2,
    /// Another, by its number.
    Other(u64),
}

/// Space of the file system that holds the path.
pub fn space(path: impl AsRef<Path>) -> Result<Space> {
    let path = path.as_ref();
    let stat = statvfs(path).at("statvfs", path.display())?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        available: stat.f_bavail.saturating_mul(stat.f_frsize),
        free_inodes: stat.f_favail,
    })
}

/// The file system that holds the path.
pub fn kind(path: impl AsRef<Path>) -> Result<Kind> {
    let path = path.as_ref();
    let stat = statfs(path).at("statfs", path.display())?;
    Ok(match stat.f_type.cast_unsigned() {
        0x794c_7630 => Kind::Overlay,
        0x0102_1994 => Kind::Tmpfs,
        0xef53 => Kind::Ext,
        0x5846_5342 => Kind::Xfs,
        0x9123_683e => Kind::Btrfs,
        0x2fc1_2fc1 => Kind::Zfs,
        0x6969 => Kind::Nfs,
        0x6573_5546 => Kind::Fuse,
        0x0102_1997 => Kind::NineP,
        0x6367_7270 => Kind::Cgroup2,
        other => Kind::Other(other),
    })
}

/// True if something is mounted at the path itself (bind mounts too). A path that is not there is no mount point.
pub fn is_mount_point(path: impl AsRef<Path>) -> Result<bool> {
    let path = path.as_ref();
    match statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).at("statx", path.display()),
        Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
            Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        // Before Linux 5.8 only the mount table says so.
        Ok(_) => {
            let path = std::fs::canonicalize(path).at("canonicalize", path.display())?;
            Ok(crate::mount::mounts()?.iter().any(|mount| mount.target == path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::{Attributes, Filesystem, bind, mount};
    use crate::testing::isolated;

    #[test]
    fn tells_mount_points_kinds_and_space() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        isolated(move || {
            assert!(!is_mount_point(&root).unwrap());
            assert!(!is_mount_point(root.join("absent")).unwrap());
            mount(
                &Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o755 },
                &root,
                Attributes::default(),
            )
            .unwrap();
            assert!(is_mount_point(&root).unwrap());
            assert_eq!(kind(&root).unwrap(), Kind::Tmpfs);
            assert_eq!(space(&root).unwrap().total, 1 << 20);
            assert!(space(&root).unwrap().available <= 1 << 20);
            let sub = root.join("sub");
            std::fs::create_dir(&sub).unwrap();
            bind(&sub, &sub).unwrap();
            assert!(is_mount_point(&sub).unwrap());
            assert!(space(root.join("absent")).unwrap_err().is_absent());
        });
    }
}
