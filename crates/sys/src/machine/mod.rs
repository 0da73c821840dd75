//! What programs see of the machine: how many processors and how much memory, as `/proc` and `/sys` tell them.
//!
//! Control groups limit what is used, but the kernel tells everybody of the whole machine. Programs that plan by what they see, such as
//! the kubelet, are shown less by files mounted over those of the kernel:
//!
//! ```text
//! /proc/meminfo, /proc/swaps                           memory: the total is the limit, no swap
//! /proc/cpuinfo, /sys/devices/system/cpu               processors: the first N that can be used
//! /sys/devices/system/node                             one NUMA node with both
//! ```
//!
//! They are copies: numbers that change, such as free memory, are those of the moment at which they were made. A new mount of `proc`
//! or `sysfs` shows the whole machine again, and so do system calls such as sysinfo(2) and sched_getaffinity(2). In a user namespace
//! such mounts are permitted only where whole ones are seen: who shows less keeps spare ones somewhere.

mod cpus;
mod proc;
mod tree;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::Result;
use crate::error::Context;
use crate::filesystem::{Kind, kind};
use crate::mount::{Attributes, Filesystem, bind, detach, mount, remount};
use cpus::{Cpus, parse_list};
use tree::{Entry, Files};

/// What is shown, and where.
const COVERED: [(&str, &str); 5] = [
    ("meminfo", "proc/meminfo"),
    ("swaps", "proc/swaps"),
    ("cpuinfo", "proc/cpuinfo"),
    ("cpu", "sys/devices/system/cpu"),
    ("node", "sys/devices/system/node"),
];

/// More covers than anybody puts over each other.
const MOST: usize = 16;

/// How much of the machine is shown; `None` is all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Processors.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory: Option<u64>,
}

impl View {
    /// What is seen with these limits, in thousandths of a processor and bytes of memory: a part of a processor is one.
    #[must_use]
    pub fn within(cpu_millis: Option<u32>, memory: Option<u64>) -> Self {
        Self { cpus: cpu_millis.map(|millis| millis.div_ceil(1000)), memory }
    }
}

/// Shows this much of the machine below `root`, where `proc` and `sys` are mounted, whatever was shown before. Between the two the
/// whole machine is seen for a moment. `stage` is a path where nothing is but what a call that was killed left, and where nothing is
/// left; its folder must be there.
///
/// # Errors
/// When the files cannot be made or mounted.
pub fn show(view: View, root: impl AsRef<Path>, stage: impl AsRef<Path>) -> Result<()> {
    let (root, stage) = (root.as_ref(), stage.as_ref());
    for (_, path) in COVERED {
        uncover(&root.join(path))?;
    }
    clear(stage)?;
    let files = collect(view, root);
    if files.is_empty() {
        return Ok(());
    }
    fs::create_dir(stage).at("mkdir", stage.display())?;
    let shown = mount(&Filesystem::Tmpfs { size: None, mode: 0o755 }, stage, Attributes::INERT)
        .and_then(|()| cover(&files, root, stage));
    // The covers keep the files.
    shown.and(clear(stage))
}

/// Takes away the stage, with all that was mounted there. The mount table is not asked: a caller that has entered a node only in part
/// has no `/proc` that tells its own.
fn clear(stage: &Path) -> Result<()> {
    for _ in 0..MOST {
        detach(stage)?;
    }
    match fs::symlink_metadata(stage) {
        Ok(_) => fs::remove_dir(stage).at("rmdir", stage.display()),
        Err(_) => Ok(()),
    }
}

fn cover(files: &Files, root: &Path, stage: &Path) -> Result<()> {
    for (path, entry) in files {
        write(&stage.join(path), entry)?;
    }
    for (name, path) in COVERED {
        let (source, target) = (stage.join(name), root.join(path));
        // A kernel may do without swap, or without NUMA.
        if source.exists() && target.exists() {
            bind(source, &target)?;
            // Each cover alone: the stage would be busy for as long as a child that another thread starts just now has a file open that
            // was written here.
            remount(target, Attributes { read_only: true, ..Attributes::INERT })?;
        }
    }
    Ok(())
}

/// What the kernel has there is in no memory file system, so that one is ours.
fn uncover(path: &Path) -> Result<()> {
    for _ in 0..MOST {
        match kind(path) {
            Ok(Kind::Tmpfs) => detach(path)?,
            Err(error) if !error.is_absent() => return Err(error),
            _ => break,
        }
    }
    Ok(())
}

fn write(path: &Path, entry: &Entry) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).at("mkdir", folder.display())?;
    }
    match entry {
        Entry::Text(text) => fs::write(path, text).at("write", path.display()),
        Entry::Link(target) => symlink(target, path).at("symlink", path.display()),
    }
}

/// What is to be shown in place of the kernel's own, by name in [`COVERED`].
fn collect(view: View, root: &Path) -> Files {
    let system = root.join("sys/devices/system");
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let online = parse_list(&read("sys/devices/system/cpu/online"));
    let cpus = view.cpus.map(|count| choose(&usable(&online), count));
    let cpus = cpus.filter(|cpus| cpus.len() < online.len());
    let meminfo = read("proc/meminfo");
    let whole = proc::total(&meminfo).unwrap_or_default();
    let memory = view.memory.map(|bytes| bytes / 1024).filter(|total| *total < whole);

    let mut files = Files::new();
    if cpus.is_none() && memory.is_none() {
        return files;
    }
    if let Some(total) = memory {
        files.insert("meminfo".into(), Entry::Text(proc::limit_memory(&meminfo, total)));
        files.insert("swaps".into(), Entry::Text(proc::NO_SWAPS.to_owned()));
    }
    let keep = cpus.as_ref().unwrap_or(&online);
    let nodes = tree::memory(&system.join("node"), keep, memory.unwrap_or(whole));
    if let Some(keep) = &cpus {
        let info = proc::keep_processors(&read("proc/cpuinfo"), keep);
        files.insert("cpuinfo".into(), Entry::Text(info));
        let mut processors = tree::processors(&system.join("cpu"), keep);
        tree::link_nodes(&mut processors, &nodes);
        files.extend(below("cpu", processors));
    }
    files.extend(below("node", nodes));
    files
}

fn below(folder: &str, files: Files) -> impl Iterator<Item = (std::path::PathBuf, Entry)> {
    files.into_iter().map(move |(path, entry)| (Path::new(folder).join(path), entry))
}

/// Those of the processors on which the caller may run; all where that cannot be told.
fn usable(online: &Cpus) -> Cpus {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else { return online.clone() };
    let is_allowed = |cpu: &&u32| usize::try_from(**cpu).is_ok_and(|cpu| allowed.is_set(cpu));
    online.iter().filter(is_allowed).copied().collect()
}

fn choose(cpus: &Cpus, count: u32) -> Cpus {
    let count = usize::try_from(count.max(1)).unwrap_or(usize::MAX);
    cpus.iter().take(count).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    fn read(path: &str) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn less_of_the_machine_is_shown_and_then_all_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let stage = dir.path().join("stage");
        isolated(move || {
            // This thread's network namespace has a `sysfs` of its own only when it is mounted anew, which is not needed here.
            let before = (read("/proc/meminfo"), read("/sys/devices/system/cpu/online"));
            let show = |view| {
                super::show(view, "/", &stage).unwrap();
                assert!(!stage.exists());
            };
            show(View { cpus: Some(1), memory: Some(256 << 20) });
            assert_eq!(proc::total(&read("/proc/meminfo")), Some(256 << 10));
            assert_eq!(read("/proc/swaps").lines().count(), 1);
            assert!(fs::write("/proc/meminfo", "").is_err());
            let cpus = || parse_list(&read("/sys/devices/system/cpu/online")).len();
            let is_single = parse_list(&before.1).len() == 1;
            assert_eq!(cpus(), 1);
            assert!(is_single || read("/proc/cpuinfo").matches("processor\t:").count() <= 1);
            if let Ok(text) = fs::read_to_string("/sys/devices/system/node/node0/meminfo") {
                assert_eq!(proc::total(&text), Some(256 << 10));
                assert!(Path::new("/sys/devices/system/node/node0/cpu0/topology/core_id").exists());
            }
            // What a call leaves that is killed in between, twice.
            fs::create_dir(&stage).unwrap();
            for _ in 0..2 {
                let memory = Filesystem::Tmpfs { size: None, mode: 0o755 };
                mount(&memory, &stage, Attributes { read_only: true, ..Attributes::INERT })
                    .unwrap();
            }
            show(View { cpus: None, memory: Some(512 << 20) });
            assert_eq!(proc::total(&read("/proc/meminfo")), Some(512 << 10));
            assert_eq!(cpus(), parse_list(&before.1).len());
            // More than there is is all there is.
            fs::create_dir(&stage).unwrap();
            show(View { cpus: Some(1 << 20), memory: Some(1 << 60) });
            show(View::default());
            assert_eq!(proc::total(&read("/proc/meminfo")), proc::total(&before.0));
            assert!(!COVERED.iter().any(|(_, path)| {
                kind(Path::new("/").join(path)).is_ok_and(|kind| kind == Kind::Tmpfs)
            }));
        });
    }
}
