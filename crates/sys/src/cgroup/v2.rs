//! Version 2: one folder; controllers are handed down from parent to child, and a group that hands them down may hold
//! no process itself.

use std::collections::BTreeSet;
use std::path::Path;

use rustix::io::Errno;

use super::hierarchy::REQUIRED;
use super::{Cgroup, Folder, Hierarchy, Limits, Version, files};
use crate::{Error, Result};

/// The controllers that nodes use, where there are such.
const WANTED: [&str; 6] = ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"];

/// The period to which a quota of processor time refers, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;

/// The limit of swap.
const SWAP: &str = "memory.swap.max";

/// The caller's own group, or the nearest above it that can hand controllers down.
pub(super) fn base(hierarchy: &Hierarchy) -> Result<Cgroup> {
    let Some(mounted) = hierarchy.mounted().first() else {
        return Err(Error::invalid("use", "cgroup v2", "it is not mounted"));
    };
    let needed =
        REQUIRED.into_iter().filter(|name| mounted.controllers.iter().any(|one| one == name));
    let needed: Vec<&str> = needed.collect();
    // From the top, because a group can hand down only what it was given.
    if let Ok(below) = mounted.own.strip_prefix(&mounted.target) {
        let above = below.parent().unwrap_or(Path::new(""));
        let steps = files::steps(&mounted.target, above);
        for folder in std::iter::once(&mounted.target).chain(&steps) {
            hand_down(folder)?;
        }
    }
    for folder in mounted.own.ancestors().take_while(|path| path.starts_with(&mounted.target)) {
        let given = hand_down(folder)?;
        if needed.iter().all(|name| given.contains(*name)) {
            let controllers = mounted.controllers.clone();
            let folders = vec![Folder { controllers, path: folder.to_owned() }];
            return Ok(Cgroup { version: Version::V2, folders });
        }
    }
    let text = format!(
        "no group up to {} can hand down {}: each holds processes itself or was not given them",
        mounted.target.display(),
        needed.join(", ")
    );
    Err(Error::invalid("delegate from", mounted.own.display(), text))
}

pub(super) fn ensure(base: &Cgroup, relative: &Path) -> Result<()> {
    for folder in base.folders() {
        let mut parent = folder.to_owned();
        for path in files::steps(folder, relative) {
            hand_down(&parent)?;
            files::make(&path)?;
            parent = path;
        }
    }
    Ok(())
}

/// Enables every wanted controller that the group has for its children; returns what is enabled in the end. One that
/// cannot be (the group holds processes, or the right is missing) is left out.
fn hand_down(folder: &Path) -> Result<BTreeSet<String>> {
    let words = |name: &str| -> Result<BTreeSet<String>> {
        let text = files::read(&folder.join(name))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let (available, mut enabled) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    for name in WANTED.iter().filter(|name| available.contains(**name)) {
        if enabled.contains(*name) {
            continue;
        }
        // One at a time: together they would fail together.
        match files::write(&folder.join("cgroup.subtree_control"), format_args!("+{name}")) {
            Ok(()) => _ = enabled.insert((*name).to_owned()),
            Err(error) if error.is_denied() => {}
            Err(error)
                if error.is(&[Errno::BUSY, Errno::INVAL, Errno::OPNOTSUPP, Errno::NOENT]) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(enabled)
}

/// Within a node: moves every process of the group at `root` into its child `init` and hands all controllers down, so
/// that groups with limits can be made beside `init`. On v1, where there is no such rule, it does nothing.
pub fn delegate_inside(root: impl AsRef<Path>) -> Result<()> {
    let root = root.as_ref();
    if !root.join("cgroup.controllers").exists() {
        return Ok(());
    }
    let init = root.join("init");
    files::make(&init)?;
    // Again until none is left: a process may have forked meanwhile.
    loop {
        let mut pids = BTreeSet::new();
        files::read_pids(root, &mut pids)?;
        if pids.is_empty() {
            break;
        }
        for pid in pids {
            match files::write(&init.join("cgroup.procs"), pid) {
                Err(error) if error.is_absent() => {}
                other => other?,
            }
        }
    }
    hand_down(root).map(|_| ())
}

pub(super) fn set_limits(group: &Cgroup, limits: Limits) -> Result<()> {
    let quota = limits.cpu_millis.map(|millis| format!("{} {PERIOD}", millis * PERIOD / 1000));
    set(group, "cpu.max", quota.as_deref())?;
    set(group, "memory.max", limits.memory.map(|bytes| bytes.to_string()).as_deref())?;
    // Absent where swap is not counted.
    let swap = limits.memory.filter(|_| group.folders().all(|path| path.join(SWAP).exists()));
    set(group, SWAP, swap.map(|_| "0"))?;
    set(group, "pids.max", limits.pids.map(|count| count.to_string()).as_deref())
}

/// Writes a limit. Where the controller is not there, there is none to lift.
fn set(group: &Cgroup, name: &str, value: Option<&str>) -> Result<()> {
    for folder in group.folders() {
        let file = folder.join(name);
        match value {
            Some(value) => files::write(&file, value)?,
            None if file.exists() => files::write(&file, "max")?,
            None => {}
        }
    }
    Ok(())
}
