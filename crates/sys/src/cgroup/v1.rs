//! Version 1: one folder a controller.

use std::path::Path;

use super::{Cgroup, Limits, files};
use crate::{Error, Result};

/// The period to which a quota of processor time refers, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;

pub(super) fn ensure(base: &Cgroup, relative: &Path) -> Result<()> {
    for folder in base.folders() {
        let mut parent = folder.to_owned();
        for path in files::steps(folder, relative) {
            files::make(&path)?;
            fill_cpuset(&parent, &path)?;
            account_for_children(&path);
            parent = path;
        }
    }
    Ok(())
}

/// A new cpuset is empty and takes no process until it has processors and memory nodes.
fn fill_cpuset(parent: &Path, folder: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = folder.join(name);
        if file.exists() && files::read(&file)?.trim().is_empty() {
            files::write(&file, files::read(&parent.join(name))?.trim())?;
        }
    }
    Ok(())
}

/// Old kernels limit a memory group without its children unless told so; newer ones always include them.
fn account_for_children(folder: &Path) {
    let file = folder.join("memory.use_hierarchy");
    if files::read(&file).is_ok_and(|text| text.trim() == "0") {
        // Refused where the group has children already; their limits still hold one by one.
        let _ = files::write(&file, 1);
    }
}

pub(super) fn set_limits(group: &Cgroup, limits: Limits) -> Result<()> {
    let quota = limits.cpu_millis.map(|millis| millis * PERIOD / 1000);
    if quota.is_some() {
        set(group, "cpu", "cpu.cfs_period_us", Some(PERIOD), "-1")?;
    }
    set(group, "cpu", "cpu.cfs_quota_us", quota, "-1")?;
    // Memory with swap is never less than memory, and not counted everywhere.
    set(group, "memory", "memory.memsw.limit_in_bytes", None, "-1")?;
    set(group, "memory", "memory.limit_in_bytes", limits.memory, "-1")?;
    if folder(group, "memory")?.join("memory.memsw.limit_in_bytes").exists() {
        set(group, "memory", "memory.memsw.limit_in_bytes", limits.memory, "-1")?;
    }
    set(group, "pids", "pids.max", limits.pids, "max")
}

/// Writes a limit. Where the kernel has no such limit, there is none to lift.
fn set(group: &Cgroup, controller: &str, name: &str, value: Option<u64>, none: &str) -> Result<()> {
    let file = folder(group, controller)?.join(name);
    match value {
        Some(value) => files::write(&file, value),
        None if file.exists() => files::write(&file, none),
        None => Ok(()),
    }
}

fn folder<'a>(group: &'a Cgroup, controller: &str) -> Result<&'a Path> {
    group.folder(controller).ok_or_else(|| {
        Error::invalid("use", format_args!("cgroup controller {controller}"), "it is not mounted")
    })
}
