//! Making single files, links and folders inside a layer's folder, never outside it.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

/// What a header says besides the kind and the path.
pub(crate) struct Attributes {
    pub(crate) mode: Mode,
    pub(crate) owner: Uid,
    pub(crate) group: Gid,
    pub(crate) times: Timestamps,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
}

/// Opens a folder by a path that cannot leave the root, whatever links are on the way.
pub(crate) fn open_inside(root: BorrowedFd<'_>, folder: &[u8]) -> Result<OwnedFd, Errno> {
    let folder = folder.strip_suffix(b"/").unwrap_or(folder);
    let folder = if folder.is_empty() { b".".as_slice() } else { folder };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, folder, flags, Mode::empty(), resolve)
}

/// Creates something in place of what is there, unless that is a folder with content.
pub(crate) fn replace<T>(
    parent: BorrowedFd<'_>,
    name: &[u8],
    mut create: impl FnMut() -> Result<T, Errno>,
) -> Result<T, Errno> {
    match create() {
        Err(Errno::EXIST) => {
            match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?,
                result => result?,
            }
            create()
        }
        result => result,
    }
}

pub(crate) fn make_folder(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok(());
            }
            rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
            rustix::fs::mkdirat(parent, name, Mode::RWXU)
        }
        result => result,
    }
}

/// Owner first: changing it clears set-id bits and capabilities.
pub(crate) fn set_attributes(file: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(attributes.owner), Some(attributes.group))?;
    rustix::fs::fchmod(file, attributes.mode)?;
    for (name, value) in &attributes.xattrs {
        match rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // Not every file system has `user.` attributes.
            Err(Errno::NOTSUP) if name.starts_with("user.") => {}
            result => result?,
        }
    }
    rustix::fs::futimens(file, &attributes.times)
}

pub(crate) fn set_link_attributes(
    parent: BorrowedFd<'_>,
    name: &[u8],
    attributes: &Attributes,
) -> Result<(), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, name, Some(attributes.owner), Some(attributes.group), flags)?;
    rustix::fs::utimensat(parent, name, &attributes.times, flags)
}

/// Seconds with an optional fraction, as PAX writes times.
pub(crate) fn parse_time(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9}");
    Some(Timespec { tv_sec: seconds.parse().ok()?, tv_nsec: nanoseconds.get(..9)?.parse().ok()? })
}
