//! `/dev` of a node: what programs expect to find, and nothing of the host's hardware.

use std::os::unix::fs::symlink;

use bivouac_spec::Problem;
use bivouac_sys::mount::{Attributes, Device, Filesystem, bind, make_device, mount};
use camino::Utf8Path;
use fs_err as fs;

use super::super::problem::OrProblem as _;

/// Name, major and minor number.
const ALWAYS: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The same for those that only some hosts have.
const WHERE_PRESENT: [(&str, u32, u32); 3] =
    [("kmsg", 1, 11), ("net/tun", 10, 200), ("fuse", 10, 229)];

const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Fills `/dev` below `root`. `console` is the file that takes what is written to the node's console.
pub(super) fn fill(root: &Utf8Path, console: &Utf8Path) -> Result<(), Problem> {
    let dev = root.join("dev");
    file_systems(&dev).or_problem("dev", "the file systems of /dev cannot be mounted")?;
    for (name, major, minor) in ALWAYS {
        device(&dev, name, major, minor)?;
    }
    for (name, major, minor) in WHERE_PRESENT {
        if Utf8Path::new("/dev").join(name).exists() {
            device(&dev, name, major, minor)?;
        }
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name))
            .or_problem("dev", format_args!("the link /dev/{name} cannot be made"))?;
    }
    // Not the real console: that is the host's.
    let path = dev.join("console");
    fs::write(&path, "").or_problem("dev", "/dev/console cannot be made")?;
    bind(console, &path).or_problem("dev", "/dev/console cannot be made")
}

fn file_systems(dev: &Utf8Path) -> Result<(), Problem> {
    let memory = |mode| Filesystem::Tmpfs { size: None, mode };
    let quiet = Attributes { no_suid: true, no_exec: true, ..Attributes::default() };
    let inert = Attributes { no_dev: true, ..quiet };
    let make = |filesystem: &Filesystem, path: &Utf8Path, attributes| -> Result<(), Problem> {
        fs::create_dir_all(path).or_problem("dev", format_args!("{path} cannot be made"))?;
        mount(filesystem, path, attributes)
            .or_problem("dev", format_args!("{path} cannot be mounted"))
    };
    make(&memory(0o755), dev, quiet)?;
    make(&Filesystem::Devpts, &dev.join("pts"), quiet)?;
    make(&memory(0o1777), &dev.join("shm"), inert)?;
    make(&Filesystem::Mqueue, &dev.join("mqueue"), inert)?;
    fs::create_dir_all(dev.join("net")).or_problem("dev", "/dev/net cannot be made")
}

/// Makes a device, or shows the host's own where making devices is forbidden (a container without CAP_MKNOD, or the cgroup's
/// device rules).
fn device(dev: &Utf8Path, name: &str, major: u32, minor: u32) -> Result<(), Problem> {
    let path = dev.join(name);
    let made = make_device(&path, Device::character(major, minor), 0o666);
    let Err(error) = made else { return Ok(()) };
    if !error.is_denied() {
        return Err(error).or_problem("dev", format_args!("/dev/{name} cannot be made"));
    }
    fs::write(&path, "").or_problem("dev", format_args!("/dev/{name} cannot be made"))?;
    bind(Utf8Path::new("/dev").join(name), &path)
        .or_problem("dev", format_args!("/dev/{name} cannot be made"))
}
