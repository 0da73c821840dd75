//! Version 1: one folder a controller.

use std::path::Path;

use super::{Cgroup, Limits, files};
use crate::{Error, Result};

/// The period to which a quota of processor time refers, in microseconds: the kernel's own default.
const PERIOD: u64 = 100_000;

const MEMORY: &str = "memory.limit_in_bytes";
const WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

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
    set_memory(group, limits.memory)?;
    set(group, "pids", "pids.max", limits.pids, "max")
}

/// Limits memory, and memory with swap to the same where that is counted. What is refused leaves both as they were.
fn set_memory(group: &Cgroup, limit: Option<u64>) -> Result<()> {
    let folder = folder(group, "memory")?;
    if !folder.join(WITH_SWAP).exists() {
        return set(group, "memory", MEMORY, limit, "-1");
    }
    let before = files::read(&folder.join(WITH_SWAP))?;
    let is_lower = |old: u64| limit.is_some_and(|limit| limit < old);
    // Memory with swap is never less than memory.
    let [first, second] = if before.trim().parse().is_ok_and(is_lower) {
        [MEMORY, WITH_SWAP]
    } else {
        [WITH_SWAP, MEMORY]
    };
    let before = files::read(&folder.join(first))?;
    set(group, "memory", first, limit, "-1")?;
    set(group, "memory", second, limit, "-1").inspect_err(|_| {
        // It was permitted a moment ago; of the two errors the first one counts.
        let _ = files::write(&folder.join(first), before.trim());
    })
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

#[cfg(test)]
mod tests {
    use super::super::{Folder, Hierarchy, Version};
    use super::*;
    use crate::process::ChildSetup;
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    fn both(group: &Cgroup) -> [u64; 2] {
        let folder = group.folder("memory").unwrap();
        [MEMORY, WITH_SWAP].map(|name| {
            let text = files::read(&folder.join(name)).unwrap();
            text.trim().parse().unwrap()
        })
    }

    #[test]
    fn a_refused_limit_of_memory_changes_none() {
        let hierarchy = Hierarchy::detect().unwrap();
        let counts = |group: &Cgroup| {
            group.folder("memory").is_some_and(|folder| folder.join(WITH_SWAP).exists())
        };
        if hierarchy.version() != Version::V1 || !counts(&hierarchy.own()) {
            println!("skipped: memory with swap is not counted by a hierarchy of version 1");
            return;
        }
        let name = format!("bivouac-test-memory-{}", std::process::id());
        let group = Cgroup::ensure(&hierarchy, name).unwrap();
        for mebibytes in [256, 512, 128, 256] {
            let limit = mebibytes << 20;
            set_memory(&group, Some(limit)).unwrap();
            assert_eq!(both(&group), [limit; 2]);
        }
        let mut child = Command::new("sh");
        child.args(["-c", "x=$(head -c 33554432 /dev/zero | tr '\\0' x); echo; read y"]);
        let cgroup = group.join_files().unwrap();
        ChildSetup { cgroup, ..ChildSetup::default() }.apply(&mut child);
        let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let refused = set_memory(&group, Some(8 << 20));
        let after = both(&group);
        child.kill().unwrap();
        child.wait().unwrap();
        set_memory(&group, None).unwrap();
        let lifted = both(&group);
        group.remove(Duration::from_secs(120)).unwrap();
        assert!(refused.unwrap_err().is_busy());
        assert_eq!(after, [256 << 20; 2]);
        assert!(lifted[0] > 1 << 60 && lifted[0] == lifted[1], "{lifted:?}");
    }

    #[test]
    fn what_was_written_first_is_written_back() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MEMORY), "50000\n").unwrap();
        // 65536, and nobody can write it.
        std::os::unix::fs::symlink("/proc/sys/kernel/ngroups_max", dir.path().join(WITH_SWAP))
            .unwrap();
        let controllers = vec!["memory".to_owned()];
        let folders = vec![Folder { controllers, path: dir.path().to_owned() }];
        let group = Cgroup { version: Version::V1, folders };
        set_memory(&group, Some(40000)).unwrap_err();
        assert_eq!(both(&group), [50000, 65536]);
    }
}
