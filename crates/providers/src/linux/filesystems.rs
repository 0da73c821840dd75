//! The file systems that a node can keep in a file of its own: those that the kernel has or can load, when there are loop devices.

use std::collections::BTreeSet;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

/// Their names, as the kernel says them.
pub(super) fn file_systems() -> BTreeSet<String> {
    let read = |path: &Utf8Path| fs::read_to_string(path).unwrap_or_default();
    let release = read(Utf8Path::new("/proc/sys/kernel/osrelease"));
    let folder = Utf8PathBuf::from("/lib/modules").join(release.trim());
    let (built_in, modules) =
        (read(Utf8Path::new("/proc/filesystems")), read(&folder.join("modules.dep")));
    let devices = read(Utf8Path::new("/proc/devices"));
    found(&built_in, &modules, &devices)
}

fn found(built_in: &str, modules: &str, devices: &str) -> BTreeSet<String> {
    // `kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/...`
    let paths = || modules.lines().filter_map(|line| line.split(':').next());
    let module =
        |path: &str| path.rsplit('/').next()?.split_once(".ko").map(|(name, _)| name.to_owned());
    let is_loop = |path: &str| module(path).as_deref() == Some("loop");
    let has_loop = devices.lines().any(|line| line.split_whitespace().nth(1) == Some("loop"));
    if !has_loop && !paths().any(is_loop) {
        return BTreeSet::new();
    }
    let names = built_in
        .lines()
        .filter(|line| !line.starts_with("nodev"))
        .map(|line| line.trim().to_owned());
    let loadable = paths().filter(|path| path.contains("/fs/")).filter_map(module);
    names.chain(loadable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT_IN: &str = "nodev\tproc\n\text4\nnodev\toverlay\n";
    const MODULES: &str = "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6/raid6_pq.ko.xz\nkernel/net/8021q/8021q.ko:\n";

    #[test]
    fn what_the_kernel_has_or_can_load() {
        let names = |modules: &str, devices: &str| {
            found(BUILT_IN, modules, devices).into_iter().collect::<Vec<_>>()
        };
        let devices = "Block devices:\n  7 loop\n259 blkext\n";
        assert_eq!(names("", devices), ["ext4"]);
        assert_eq!(names(MODULES, devices), ["btrfs", "ext4"]);
        assert!(names(MODULES, "Block devices:\n259 blkext\n").is_empty());
        let with_loop = format!("{MODULES}kernel/drivers/block/loop.ko.zst:\n");
        assert_eq!(names(&with_loop, ""), ["btrfs", "ext4"]);
    }
}
