//! The disks of the guest: Debian, and the node images. Each is made once, and again when what it is made of changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::check;

const SUITE: &str = "bookworm";
/// Its own packages, what the `linux` provider needs of a host, and what rootless containers need.
const PACKAGES: &str = "linux-image-amd64,systemd-sysv,udev,dbus,dbus-user-session,libpam-systemd,nftables,iproute2,kmod,procps,mount,\
                        util-linux,e2fsprogs,uidmap,sudo,less,strace";
const STACKS: [&str; 2] = ["kubernetes", "incus"];

/// Files of the guest before its kernel is installed.
const FILES: [(&str, &str); 7] = [
    // Only what leads to the root disk: the rest is on that.
    ("etc/initramfs-tools/conf.d/bivouac", "MODULES=list\nRESUME=none\n"),
    ("usr/share/initramfs-tools/modules.d/bivouac", "virtio_pci\nvirtio_blk\next4\n"),
    (
        "etc/fstab",
        "/dev/vda / ext4 noinit_itable 0 0\n\
         /dev/vdb /var/lib/bivouac ext4 noinit_itable 0 0\n\
         share /share 9p trans=virtio,version=9p2000.L,msize=262144 0 0\n",
    ),
    ("etc/hostname", "guest\n"),
    ("etc/hosts", "127.0.0.1 localhost guest\n::1 localhost\n"),
    // A way out is there as on any host, but leads nowhere.
    (
        "etc/systemd/network/wire.network",
        "[Match]\nName=en*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nIPv6AcceptRA=no\n",
    ),
    (
        "etc/systemd/system/bivouac-tests.service",
        "[Unit]\n\
         Description=what the guest is for\n\
         RequiresMountsFor=/share /var/lib/bivouac\n\
         Wants=network-online.target\n\
         After=network-online.target multi-user.target\n\
         [Service]\n\
         Type=exec\n\
         ExecStart=/share/xtask guest\n\
         StandardInput=tty\n\
         TTYPath=/dev/hvc0\n\
         StandardOutput=tty\n\
         StandardError=tty\n\
         Environment=HOME=/root\n\
         # What it started lives on, as after the end of a session.\n\
         KillMode=process\n",
    ),
];

/// Folders in which others are mounted.
const FOLDERS: [&str; 2] = ["share", "var/lib/bivouac"];

/// A disk to boot from.
pub(super) struct Guest {
    pub(super) disk: PathBuf,
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
}

/// Debian with its kernel.
pub(super) fn ensure_guest(folder: &Path) -> Result<Guest, String> {
    let own = folder.join(format!("guest-{}", key(&(SUITE, PACKAGES, FILES, FOLDERS))));
    let guest = Guest {
        disk: own.join("root.img"),
        kernel: own.join("vmlinuz"),
        initrd: own.join("initrd.img"),
    };
    if !own.exists() {
        eprintln!("making a guest of Debian {SUITE}, once; this can take 5 minutes");
        let new = fresh(&folder.join("guest.new"))?;
        let (files, root) = (new.join("files"), new.join("root"));
        write_files(&files)?;
        let mut command = Command::new("mmdebstrap");
        command.args(["--variant=minbase", "--quiet", &format!("--include={PACKAGES}")]);
        command.arg(format!("--essential-hook=sync-in {} /", files.display()));
        command.args(["--dpkgopt=path-exclude=/usr/share/doc/*", SUITE]).arg(&root);
        check("mmdebstrap", command.status())?;
        for (name, to) in [("vmlinuz", "vmlinuz"), ("initrd.img", "initrd.img")] {
            let boot = find(&root.join("boot"), &format!("{name}-"))?;
            fs::copy(&boot, new.join(to))
                .map_err(|error| format!("{}: {error}", boot.display()))?;
        }
        make_disk(&root, &new.join("root.img"), "24G")?;
        for done in [files, root] {
            remove(&done)?;
        }
        rename(&new, &own)?;
    }
    Ok(guest)
}

/// The node images of the binary, built where they are missing.
pub(super) fn ensure_store(folder: &Path, binary: &Path) -> Result<PathBuf, String> {
    let store =
        std::env::var_os("BIVOUAC_STORE").unwrap_or_else(|| "/var/lib/bivouac/store".into());
    let store = PathBuf::from(store);
    let bivouac = || {
        let mut command = Command::new(binary);
        command.env("BIVOUAC_STORE", &store);
        command
    };
    for stack in STACKS {
        let built = bivouac().args(["image", "build", "--stack", stack]).output();
        let built = built.map_err(|error| format!("{}: {error}", binary.display()))?;
        if !built.status.success() {
            let said = String::from_utf8_lossy(&built.stderr).into_owned();
            return Err(format!("the node image of {stack} cannot be built: {said}"));
        }
    }
    let list = bivouac().args(["image", "list", "--output", "json"]).output();
    let list = list.map_err(|error| format!("{}: {error}", binary.display()))?;
    let list: Value = serde_json::from_slice(&list.stdout)
        .map_err(|error| format!("`bivouac image list`: {error}"))?;
    let current = list.as_array().into_iter().flatten().filter(|image| image["current"] == true);
    let keys: Vec<&str> = current.filter_map(|image| image["key"].as_str()).collect();
    let disk = folder.join(format!("store-{}.img", key(&keys)));
    if !disk.exists() {
        let new = fresh(&folder.join("store.new"))?;
        let images = new.join("store/images");
        create(&images)?;
        for key in keys {
            let image = store.join("images").join(key);
            // Links cost nothing, and are not to be had across disks.
            if copy("-al", &image, &images).is_err() {
                copy("-a", &image, &images)?;
            }
        }
        let made = folder.join("store.img.new");
        make_disk(&new, &made, "16G")?;
        remove(&new)?;
        rename(&made, &disk)?;
    }
    Ok(disk)
}

fn copy(how: &str, from: &Path, to: &Path) -> Result<(), String> {
    check("cp", Command::new("cp").arg(how).args([from, to]).status())
}

fn write_files(folder: &Path) -> Result<(), String> {
    for (path, content) in FILES {
        let path = folder.join(path);
        create(path.parent().unwrap_or(folder))?;
        fs::write(&path, content).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for path in FOLDERS {
        create(&folder.join(path))?;
    }
    let wants = folder.join("etc/systemd/system/multi-user.target.wants");
    create(&wants)?;
    let unit = "/lib/systemd/system/systemd-networkd.service";
    symlink(unit, wants.join("systemd-networkd.service"))
        .map_err(|error| format!("{unit}: {error}"))
}

/// A file of this size with a file system of these files, which takes as much room as they do.
fn make_disk(from: &Path, disk: &Path, size: &str) -> Result<(), String> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d"]);
    check("mke2fs", command.arg(from).arg(disk).arg(size).status())
}

fn find(folder: &Path, start: &str) -> Result<PathBuf, String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(start));
    let found = found.next().map(|entry| entry.path());
    found.ok_or_else(|| format!("no {start}* in {}", folder.display()))
}

fn key(of: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// An empty folder, whatever an interrupted run left there.
fn fresh(folder: &Path) -> Result<PathBuf, String> {
    remove(folder)?;
    create(folder)?;
    Ok(folder.to_owned())
}

fn create(folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))
}

fn remove(folder: &Path) -> Result<(), String> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| format!("{}: {error}", to.display()))
}
