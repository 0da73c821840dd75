//! Loop devices: a file as a block device (loop(4)).

use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, Setter, ioctl};

use super::device::{Device, make_device};
use crate::error::Context;
use crate::{Cause, Error, Result};

/// Gives out the numbers of devices.
const CONTROL: &str = "/dev/loop-control";

/// The major number of loop devices.
const MAJOR: u32 = 7;

/// How often another device is asked for when somebody else was quicker.
const ATTEMPTS: usize = 64;

/// `LOOP_CTL_GET_FREE`.
const GET_FREE: Opcode = 0x4c82;

/// `LOOP_CONFIGURE`, since Linux 5.8: all at once, so that nothing stays when this process is killed in between.
const CONFIGURE: Opcode = 0x4c0a;

/// `LO_FLAGS_AUTOCLEAR`: whoever closes it last frees it.
const AUTOCLEAR: u32 = 4;

/// A loop device that is free again when this is dropped and it is mounted nowhere.
#[derive(Debug)]
pub(super) struct LoopDevice {
    path: PathBuf,
    _device: File,
}

impl LoopDevice {
    /// One for this file. It holds the file as it was opened here, and with it a lock of flock(2) on it.
    pub(super) fn attach(file: &File, backing: &Path) -> Result<Self> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().read(true).write(true).open(path);
            opened.at("open", path.display())
        };
        let control = open(Path::new(CONTROL))?;
        for _ in 0..ATTEMPTS {
            let number = free_device(&control).at("ask for a device of", CONTROL)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            if !path.exists() {
                // A `/dev` that the kernel does not fill.
                make_device(&path, Device::block(MAJOR, number), 0o600)?;
            }
            let device = match open(&path) {
                // The kernel is still freeing it.
                Err(error) if error.is(&[Errno::NXIO]) => continue,
                other => other?,
            };
            match configure(&device, file) {
                // Somebody else has taken it in between, or it is being freed.
                Err(Errno::BUSY | Errno::NXIO) => {}
                other => {
                    let object = format_args!("{} to {}", backing.display(), path.display());
                    return other.at("attach", object).map(|()| Self { path, _device: device });
                }
            }
        }
        let text = "others were quicker each time".to_owned();
        Err(Error::new("attach", backing.display(), Cause::TimedOut(text)))
    }

    /// The device.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// `struct loop_info64`.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    names: [u8; 128],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    descriptor: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304, "the kernel's struct has this size");

#[expect(unsafe_code, reason = "ioctl")]
fn free_device(control: &File) -> rustix::io::Result<u32> {
    // SAFETY: the call takes no argument, and its result is a number.
    unsafe { ioctl(control, GetFree) }
}

#[expect(unsafe_code, reason = "ioctl")]
fn configure(device: &File, file: &File) -> rustix::io::Result<()> {
    let info = Info {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: AUTOCLEAR,
        names: [0; 128],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    let descriptor = u32::try_from(file.as_raw_fd()).map_err(|_| Errno::BADF)?;
    let config = Config { descriptor, block_size: 0, info, reserved: [0; 8] };
    // SAFETY: the call reads a `struct loop_config`, which this has the layout of.
    unsafe { ioctl(device, Setter::<CONFIGURE, Config>::new(config)) }
}

/// `LOOP_CTL_GET_FREE` answers by its result.
struct GetFree;

#[expect(unsafe_code, reason = "ioctl")]
// SAFETY: nothing is read or written through the pointer.
unsafe impl Ioctl for GetFree {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(number: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        u32::try_from(number).map_err(|_| Errno::RANGE)
    }
}
