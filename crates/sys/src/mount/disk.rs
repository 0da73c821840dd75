//! A disk in a file: an ext4 file system that is mounted through a loop device.
//!
//! ```text
//! open, flock ──► loop device ──► mount ──► last mount gone ──► device free ──► file closed, lock free
//! ```
//!
//! The device holds the file as it was opened, and so the lock on it. Therefore whoever has the lock knows that the file is mounted nowhere,
//! whatever was killed meanwhile, and nothing is ever left to be taken back.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::loop_device::LoopDevice;
use crate::error::Context;
use crate::process::pass_descriptor;
use crate::{Cause, Error, Result};

/// How often the lock is asked for while a device holds it: flock(2) has no deadline.
const PROBE: Duration = Duration::from_millis(10);

/// `minixdf`: the size is all of the file, without what the file system takes for itself. `discard`: room of what is deleted goes back.
const OPTIONS: &str = "minixdf,discard,errors=remount-ro";

/// A disk that is mounted nowhere, until this is.
#[derive(Debug)]
pub struct Disk {
    file: File,
    path: PathBuf,
}

impl Disk {
    /// Opens it, and waits until the kernel is done with an earlier mount of it, and tools are that were left alone with it.
    pub fn open(path: impl AsRef<Path>, timeout: Duration) -> Result<Self> {
        Self::lock(path.as_ref(), OpenOptions::new().read(true).write(true), timeout)
    }

    /// Makes an empty file of this size that only its owner may read, and waits until nobody works on one that was left there.
    pub fn create(path: impl AsRef<Path>, size: u64, timeout: Duration) -> Result<Self> {
        let mut options = OpenOptions::new();
        // Emptied when it is locked, not before.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let disk = Self::lock(path.as_ref(), &options, timeout)?;
        disk.set_size(0)?;
        disk.set_size(size)?;
        Ok(disk)
    }

    fn lock(path: &Path, options: &OpenOptions, timeout: Duration) -> Result<Self> {
        let file = options.open(path).at("open", path.display())?;
        let deadline = Instant::now() + timeout;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => {}
                other => {
                    other.at("lock", path.display())?;
                    return Ok(Self { file, path: path.to_owned() });
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let text = "it is mounted, or being written out".to_owned();
                return Err(Error::new("lock", path.display(), Cause::TimedOut(text)));
            }
            thread::sleep(PROBE.min(left));
        }
    }

    /// Lets a tool that works on the file hold the lock, too: it may outlive whoever started it.
    pub fn lend(&self, tool: &mut Command) -> Result<()> {
        let file = self.file.try_clone().at("duplicate", self.path.display())?;
        pass_descriptor(tool, file.into());
        Ok(())
    }

    /// The bytes of the file.
    pub fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().at("stat", self.path.display())?.len())
    }

    /// Makes the file this large. The file system in it stays as it is, and must not be larger.
    pub fn set_size(&self, size: u64) -> Result<()> {
        self.file.set_len(size).at("resize", self.path.display())
    }

    /// Waits until all of it is written to the host's disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().at("sync", self.path.display())
    }

    /// The bytes that the file system in it takes.
    pub fn file_system_size(&self) -> Result<u64> {
        let mut block = [0; Superblock::LENGTH];
        self.file.read_exact_at(&mut block, Superblock::OFFSET).at("read", self.path.display())?;
        let found = Superblock(block).size();
        found.ok_or_else(|| Error::invalid("read", self.path.display(), "it holds no ext4"))
    }

    /// Mounts it on an existing directory. It is locked until all mounts of it are gone, in every mount namespace.
    pub fn mount(&self, target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        let device = LoopDevice::attach(&self.file, &self.path)?;
        let options = CString::new(OPTIONS).expect("the options have no zero byte");
        let object = format_args!("{} on {}", self.path.display(), target.display()).to_string();
        let flags = MountFlags::empty();
        // From then on the mount holds the device.
        rustix::mount::mount(device.path(), target, c"ext4", flags, options.as_c_str())
            .at("mount", object)
    }
}

/// The part of an ext4 superblock that tells its size.
struct Superblock([u8; Self::LENGTH]);

impl Superblock {
    /// Where it is in the file.
    const OFFSET: u64 = 1024;
    const LENGTH: usize = 1024;
    const MAGIC: u32 = 0xef53;
    /// The feature that makes block numbers 64 bits long.
    const WIDE: u32 = 0x80;

    fn number(&self, at: usize) -> u32 {
        let bytes = self.0[at..at + 4].try_into().expect("four bytes are four");
        u32::from_le_bytes(bytes)
    }

    fn size(&self) -> Option<u64> {
        if self.number(0x38) & 0xffff != Self::MAGIC {
            return None;
        }
        let high = if self.number(0x60) & Self::WIDE == 0 { 0 } else { self.number(0x150) };
        let blocks = u64::from(high) << 32 | u64::from(self.number(0x4));
        blocks.checked_mul(1024_u64.checked_shl(self.number(0x18))?)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::process::Stdio;

    use super::*;
    use crate::filesystem::space;
    use crate::mount::detach;
    use crate::testing::isolated;

    const SIZE: u64 = 32 << 20;
    const SOON: Duration = Duration::from_secs(120);

    fn make(path: &Path) {
        File::create(path).unwrap().set_len(SIZE).unwrap();
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(path).status();
        assert!(made.unwrap().success());
    }

    #[test]
    fn a_disk_has_the_size_of_its_file_and_is_locked_while_it_is_mounted() {
        let folder = tempfile::tempdir().unwrap();
        let (path, target) = (folder.path().join("disk"), folder.path().join("mounted"));
        std::fs::create_dir(&target).unwrap();
        make(&path);
        isolated(move || {
            let disk = Disk::open(&path, Duration::ZERO).unwrap();
            assert_eq!((disk.size().unwrap(), disk.file_system_size().unwrap()), (SIZE, SIZE));
            disk.mount(&target).unwrap();
            drop(disk);
            assert_eq!(space(&target).unwrap().total, SIZE);
            let full = std::fs::write(target.join("file"), vec![1; SIZE as usize + 1]).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
            let error = Disk::open(&path, Duration::ZERO).unwrap_err();
            assert!(error.is_timeout(), "{error:?}");
            std::fs::write(target.join("file"), "kept").unwrap();
            detach(&target).unwrap();
            let disk = Disk::open(&path, SOON).unwrap();
            disk.mount(&target).unwrap();
            assert_eq!(std::fs::read_to_string(target.join("file")).unwrap(), "kept");
            detach(&target).unwrap();
            drop(disk);
            let disk = Disk::open(&path, SOON).unwrap();
            disk.set_size(2 * SIZE).unwrap();
            assert_eq!((disk.size().unwrap(), disk.file_system_size().unwrap()), (2 * SIZE, SIZE));
        });
    }

    #[test]
    fn a_tool_that_is_left_alone_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        std::fs::write(&path, "what was left there").unwrap();
        let disk = Disk::create(&path, SIZE, Duration::ZERO).unwrap();
        assert_eq!(disk.size().unwrap(), SIZE);
        assert!(std::fs::read(&path).unwrap().iter().all(|byte| *byte == 0));
        let mut command = Command::new("cat");
        disk.lend(&mut command).unwrap();
        let mut tool = command.stdin(Stdio::piped()).spawn().unwrap();
        drop((command, disk));
        for again in
            [Disk::open(&path, Duration::ZERO), Disk::create(&path, 2 * SIZE, Duration::ZERO)]
        {
            assert!(again.unwrap_err().is_timeout());
        }
        assert_eq!(std::fs::metadata(&path).unwrap().len(), SIZE);
        drop(tool.stdin.take());
        tool.wait().unwrap();
        Disk::open(&path, SOON).unwrap();
    }

    #[test]
    fn what_holds_no_file_system_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(SIZE).unwrap();
        let disk = Disk::open(&path, Duration::ZERO).unwrap();
        assert!(disk.file_system_size().unwrap_err().to_string().starts_with("read "));
        assert!(Disk::open(folder.path().join("absent"), SOON).unwrap_err().is_absent());
    }

    #[test]
    fn sizes_beyond_32_bits_of_blocks() {
        let mut block = [0; Superblock::LENGTH];
        let mut put =
            |at: usize, value: u32| block[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0x38, Superblock::MAGIC);
        put(0x4, 5);
        put(0x18, 2);
        put(0x150, 1);
        assert_eq!(Superblock(block).size(), Some(5 * 4096));
        block[0x60..0x64].copy_from_slice(&Superblock::WIDE.to_le_bytes());
        assert_eq!(Superblock(block).size(), Some(((1 << 32) + 5) * 4096));
        assert_eq!(Superblock([0; Superblock::LENGTH]).size(), None);
    }
}
