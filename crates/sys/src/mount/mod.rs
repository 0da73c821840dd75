//! Mounts: binds, propagation, pivot_root, the file systems a node needs, and the mount table.
//!
//! The classic mount(2) is used throughout: it works on every kernel that Kubernetes does, while overlays through
//! fsconfig(2) take paths with `,` only since Linux 6.5 and none longer than 255 bytes.

mod device;
mod disk;
mod fstab;
mod loop_device;
mod overlay;
mod table;

use std::ffi::CString;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

pub use device::{Device, make_device};
pub use disk::Disk;
pub use fstab::mount_fstab;
pub use overlay::Overlay;
pub use table::{Mount, mounts, mounts_below, mounts_of};

use crate::error::Context;
use crate::{Error, Result};

/// How mounts below a mount point spread between mount namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// From the original here, not back.
    Slave,
}

/// What a mount forbids; nothing by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// No writing.
    pub read_only: bool,
    /// Set-user-id bits have no effect.
    pub no_suid: bool,
    /// Device nodes do not work.
    pub no_dev: bool,
    /// Nothing is executed from it.
    pub no_exec: bool,
}

impl Attributes {
    /// No set-user-id, no devices, no execution: right for proc, sys and cgroup.
    pub const INERT: Self = Self { read_only: false, no_suid: true, no_dev: true, no_exec: true };

    fn flags(self) -> MountFlags {
        let mut flags = MountFlags::empty();
        flags.set(MountFlags::RDONLY, self.read_only);
        flags.set(MountFlags::NOSUID, self.no_suid);
        flags.set(MountFlags::NODEV, self.no_dev);
        flags.set(MountFlags::NOEXEC, self.no_exec);
        flags
    }
}

/// A file system to mount anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filesystem {
    /// Processes of the caller's pid namespace.
    Proc,
    /// Devices, and the interfaces of the caller's network namespace.
    Sysfs,
    /// Pseudo terminals, a new instance; `ptmx` is usable by everybody.
    Devpts,
    /// POSIX message queues.
    Mqueue,
    /// Memory, with an upper size in bytes (half the memory if `None`) and the mode of its root.
    Tmpfs {
        /// Size in bytes.
        size: Option<u64>,
        /// Mode of the root directory.
        mode: u32,
    },
    /// A cgroup v1 hierarchy: controllers such as `cpu` or `cpu,cpuacct`, or `name=systemd`.
    Cgroup1 {
        /// Controllers separated by commas.
        controllers: String,
    },
    /// The cgroup v2 hierarchy.
    Cgroup2,
    /// Layers united.
    Overlay(Overlay),
}

impl Filesystem {
    fn kind(&self) -> &'static str {
        match self {
            Self::Proc => "proc",
            Self::Sysfs => "sysfs",
            Self::Devpts => "devpts",
            Self::Mqueue => "mqueue",
            Self::Tmpfs { .. } => "tmpfs",
            Self::Cgroup1 { .. } => "cgroup",
            Self::Cgroup2 => "cgroup2",
            Self::Overlay(_) => "overlay",
        }
    }

    fn data(&self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Proc | Self::Sysfs | Self::Mqueue | Self::Cgroup2 => Vec::new(),
            Self::Devpts => b"newinstance,ptmxmode=0666,mode=0620,gid=5".to_vec(),
            Self::Tmpfs { size: Some(size), mode } => format!("size={size},mode={mode:o}").into(),
            Self::Tmpfs { size: None, mode } => format!("mode={mode:o}").into(),
            Self::Cgroup1 { controllers } if controllers.starts_with("name=") => {
                format!("none,{controllers}").into()
            }
            Self::Cgroup1 { controllers } => controllers.clone().into(),
            Self::Overlay(overlay) => overlay.render_data()?,
        })
    }
}

/// Mounts a new file system on an existing directory.
pub fn mount(
    filesystem: &Filesystem,
    target: impl AsRef<Path>,
    attributes: Attributes,
) -> Result<()> {
    let (kind, target) = (filesystem.kind(), target.as_ref());
    let object = format_args!("{kind} on {}", target.display()).to_string();
    let data = CString::new(filesystem.data()?)
        .map_err(|_| Error::invalid("mount", &object, "an option holds a zero byte"))?;
    rustix::mount::mount(kind, target, kind, attributes.flags(), data.as_c_str())
        .at("mount", object)
}

/// Makes `source` (directory or file) visible at `target`, which must exist. Mounts below it are left out.
pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    rustix::mount::mount_bind(source, target).at("bind mount", onto(source, target))
}

/// Changes what an existing mount (a bind mount too) forbids; mounts below it stay as they are.
pub fn remount(target: impl AsRef<Path>, attributes: Attributes) -> Result<()> {
    let target = target.as_ref();
    let flags = attributes.flags() | MountFlags::BIND;
    rustix::mount::mount_remount(target, flags, c"").at("remount", target.display())
}

/// Makes an existing mount writable; what else it forbids stays.
pub fn make_writable(mount: &Mount) -> Result<()> {
    let has = |options: &str, name: &str| options.split(',').any(|option| option == name);
    let forbids = |name: &str| has(&mount.options, name);
    let attributes = Attributes {
        read_only: false,
        no_suid: forbids("nosuid"),
        no_dev: forbids("nodev"),
        no_exec: forbids("noexec"),
    };
    if forbids("ro") {
        remount(&mount.target, attributes)?;
    }
    if has(&mount.super_options, "ro") {
        // The file system itself, which is of this mount namespace's own where a container engine mounted it so.
        rustix::mount::mount_remount(&mount.target, attributes.flags(), c"")
            .at("remount", mount.target.display())?;
    }
    Ok(())
}

/// Binds a path read-only.
pub fn bind_read_only(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    bind(source, &target)?;
    remount(&target, Attributes { read_only: true, ..Attributes::default() })
}

/// Sets how mounts spread, for this mount or for all below it too.
pub fn set_propagation(
    target: impl AsRef<Path>,
    propagation: Propagation,
    recursive: bool,
) -> Result<()> {
    let target = target.as_ref();
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Shared => MountPropagationFlags::SHARED,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
    };
    flags.set(MountPropagationFlags::REC, recursive);
    rustix::mount::mount_change(target, flags).at("set propagation of", target.display())
}

/// Moves a mount. Refused by the kernel where its parent is shared.
pub fn move_mount(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    rustix::mount::mount_move(source, target).at("move mount", onto(source, target))
}

/// Makes `new_root`, a mount point, the root of the caller's mount namespace; the old root is detached, and the working
/// directory is the new root.
pub fn pivot_root(new_root: impl AsRef<Path>) -> Result<()> {
    let new_root = new_root.as_ref();
    rustix::process::chdir(new_root).at("chdir", new_root.display())?;
    // Both the same: the old root then lies on top of the new one, and no directory for it is needed in there.
    rustix::process::pivot_root(".", ".").at("pivot_root", new_root.display())?;
    rustix::mount::unmount(".", UnmountFlags::DETACH).at("detach", "the old root")?;
    rustix::process::chdir("/").at("chdir", "/")
}

/// Takes a mount and all below it out of the mount table at once; what still uses it keeps it until done. Nothing
/// mounted there, or no such path, is success.
pub fn detach(target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    match rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        other => other.at("unmount", target.display()),
    }
}

fn onto(source: &Path, target: &Path) -> String {
    format!("{} on {}", source.display(), target.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;
    use std::fs;

    #[test]
    fn binds_are_read_only_and_go_away() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("file"), "x").unwrap();
        isolated(move || {
            bind_read_only(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(to.join("file")).unwrap(), "x");
            assert!(fs::write(to.join("file"), "y").is_err());
            fs::write(from.join("file"), "z").unwrap();
            assert_eq!(mounts_below(&to).unwrap().len(), 1);
            detach(&to).unwrap();
            detach(&to).unwrap();
            detach(to.join("absent")).unwrap();
            assert!(mounts_below(&to).unwrap().is_empty());
        });
    }

    #[test]
    fn what_was_mounted_read_only_becomes_writable() {
        let dir = tempfile::tempdir().unwrap();
        let [bound, whole] = ["bound", "whole"].map(|name| dir.path().join(name));
        fs::create_dir_all(&bound).unwrap();
        fs::create_dir_all(&whole).unwrap();
        isolated(move || {
            let memory = Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o755 };
            mount(&memory, &bound, Attributes::INERT).unwrap();
            remount(&bound, Attributes { read_only: true, ..Attributes::INERT }).unwrap();
            mount(&memory, &whole, Attributes { read_only: true, ..Attributes::default() })
                .unwrap();
            for path in [&bound, &whole] {
                assert!(fs::write(path.join("file"), "x").is_err());
                make_writable(&mounts_below(path).unwrap()[0]).unwrap();
                fs::write(path.join("file"), "x").unwrap();
            }
            let table = mounts_below(&bound).unwrap();
            assert!(table[0].options.starts_with("rw,nosuid,nodev,noexec"), "{table:?}");
            make_writable(&table[0]).unwrap();
        });
    }

    #[test]
    fn file_systems_of_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        isolated(move || {
            mount(
                &Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o750 },
                &root,
                Attributes::default(),
            )
            .unwrap();
            let kinds =
                [Filesystem::Proc, Filesystem::Sysfs, Filesystem::Devpts, Filesystem::Mqueue];
            for kind in kinds {
                let target = root.join(kind.kind());
                fs::create_dir(&target).unwrap();
                mount(&kind, &target, Attributes::INERT).unwrap();
            }
            let table = mounts_below(&root).unwrap();
            let found: Vec<_> = table.iter().map(|mount| mount.kind.as_str()).collect();
            assert_eq!(found, ["tmpfs", "proc", "sysfs", "devpts", "mqueue"]);
            let device = root.join("null");
            make_device(&device, Device::character(1, 3), 0o666).unwrap();
            make_device(&device, Device::character(1, 3), 0o666).unwrap();
            fs::write(&device, "gone").unwrap();
            let error =
                mount(&Filesystem::Proc, root.join("absent"), Attributes::INERT).unwrap_err();
            assert!(error.is_absent() && error.to_string().starts_with("mount proc on /"));
        });
    }

    #[test]
    fn shared_mounts_spread_and_move() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        isolated(move || {
            let [a, b, c] = ["a", "b", "c"].map(|name| root.join(name));
            for path in [&a, &b, &c] {
                fs::create_dir(path).unwrap();
            }
            mount(&Filesystem::Tmpfs { size: None, mode: 0o755 }, &a, Attributes::default())
                .unwrap();
            set_propagation(&a, Propagation::Shared, false).unwrap();
            bind(&a, &b).unwrap();
            fs::create_dir(a.join("in")).unwrap();
            mount(
                &Filesystem::Tmpfs { size: None, mode: 0o755 },
                a.join("in"),
                Attributes::default(),
            )
            .unwrap();
            fs::write(a.join("in/file"), "x").unwrap();
            assert!(b.join("in/file").exists());
            assert!(mounts().unwrap().iter().any(|mount| mount.target == *a && mount.shared));
            move_mount(&b, &c).unwrap();
            assert!(c.join("in/file").exists());
        });
    }
}
