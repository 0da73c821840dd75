//! Device nodes.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, chmod, makedev, mknodat};
use rustix::io::Errno;

use crate::Result;
use crate::error::Context;

/// A device by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    kind: FileType,
    major: u32,
    minor: u32,
}

impl Device {
    /// A character device, such as 1, 3 for `/dev/null`.
    pub const fn character(major: u32, minor: u32) -> Self {
        Self { kind: FileType::CharacterDevice, major, minor }
    }

    /// A block device.
    pub const fn block(major: u32, minor: u32) -> Self {
        Self { kind: FileType::BlockDevice, major, minor }
    }
}

/// Makes a device node with exactly this mode, whatever the umask. A path that exists keeps what it is, with this mode.
pub fn make_device(path: impl AsRef<Path>, device: Device, mode: u32) -> Result<()> {
    let path = path.as_ref();
    let mode = Mode::from_raw_mode(mode);
    match mknodat(CWD, path, device.kind, mode, makedev(device.major, device.minor)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error).at("mknod", path.display()),
    }
    chmod(path, mode).at("chmod", path.display())
}
