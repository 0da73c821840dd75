//! What `/proc` says of an engine's process on this machine: containers get no more than it has.

use bollard::models::ResourcesUlimits;

/// How the kernel names limits in `/proc/PID/limits`.
const FILES: &str = "Max open files";
const PROCESSES: &str = "Max processes";

/// CAP_SYS_RESOURCE, see capability.h.
const SYS_RESOURCE: u32 = 24;

/// Whether containers can raise their limits.
pub(super) fn raises_limits(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    // What cannot be read is taken for what engines usually have.
    bounding_set(&status).is_none_or(|set| set & (1 << SYS_RESOURCE) != 0)
}

fn bounding_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// The most files that a process of a container can have open.
pub(super) fn open_files(pid: u32, raises_limits: bool) -> u64 {
    if raises_limits {
        let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
        if let Ok(most) = most.trim().parse() {
            return most;
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    hard_limit(&limits, FILES).unwrap_or(u64::MAX)
}

/// The limits that containers get in place of more than the engine has itself.
pub(super) fn limits(pid: u32) -> Vec<ResourcesUlimits> {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let named = [("nofile", FILES), ("nproc", PROCESSES)];
    let found = named.into_iter().filter_map(|(name, line)| {
        let hard = i64::try_from(hard_limit(&limits, line)?).ok();
        Some(ResourcesUlimits { name: Some(name.to_owned()), soft: hard, hard })
    });
    found.collect()
}

fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let status = "Name:\tdockerd\nCapBnd:\t000001ffffffffff\n";
        assert_eq!(bounding_set(status), Some(0x1ff_ffff_ffff));
        assert_eq!(bounding_set(""), None);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(hard_limit(limits, FILES), Some(524_288));
        assert_eq!(hard_limit("Max open files 1 unlimited files", FILES), None);
        assert_eq!(hard_limit(limits, PROCESSES), None);
    }
}
