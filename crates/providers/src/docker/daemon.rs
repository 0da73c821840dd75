//! What `/proc` says of an engine's process on this machine: containers get no more than it has.

use bollard::models::ResourcesUlimits;

/// How the kernel names limits in `/proc/PID/limits`.
const FILES: &str = "Max open files";
const PROCESSES: &str = "Max processes";

/// CAP_SYS_RESOURCE, see capability.h.
const SYS_RESOURCE: u32 = 24;

/// Names of processes that are engines.
const ENGINES: [&str; 2] = ["dockerd", "podman"];

/// Where dockerd says which process it is. Its socket may be made for it by another, and be passed on to it.
const PID_FILE: &str = "/var/run/docker.pid";

/// An engine on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Daemon {
    /// Its process, where that can be told.
    pid: Option<u32>,
}

impl Daemon {
    /// The engine of a socket that this process listens on.
    pub(super) fn of(peer: Option<u32>) -> Self {
        let text = std::fs::read_to_string(PID_FILE).unwrap_or_default();
        let mut candidates = peer.into_iter().chain(text.trim().parse().ok());
        Self { pid: candidates.find(|pid| is_engine(*pid)) }
    }

    /// Whether containers can raise their limits. What cannot be read is taken for what engines usually have.
    pub(super) fn raises_limits(self) -> bool {
        bounding_set(&self.read("status")).is_none_or(|set| set & (1 << SYS_RESOURCE) != 0)
    }

    /// The most files that a process of a container can have open, where that can be told.
    pub(super) fn open_files(self, raises_limits: bool) -> Option<u64> {
        if raises_limits {
            let most = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
            if let Ok(most) = most.trim().parse() {
                return Some(most);
            }
        }
        hard_limit(&self.read("limits"), FILES)
    }

    /// Whether its bridges are interfaces of this machine, as far as this user may know: it could have a network of its own.
    pub(super) fn shares_network(self) -> bool {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let its = self.pid.and_then(|pid| namespace(&pid.to_string()));
        its.is_none() || its == namespace("self")
    }

    /// The limits that containers get in place of more than the engine has itself, where they can be told.
    pub(super) fn limits(self) -> Option<Vec<ResourcesUlimits>> {
        let limits = self.read("limits");
        let named = [("nofile", FILES), ("nproc", PROCESSES)];
        let found = named.into_iter().filter_map(|(name, line)| {
            let hard = i64::try_from(hard_limit(&limits, line)?).ok();
            Some(ResourcesUlimits { name: Some(name.to_owned()), soft: hard, hard })
        });
        self.pid.map(|_| found.collect())
    }

    fn read(self, file: &str) -> String {
        let path = self.pid.map(|pid| format!("/proc/{pid}/{file}"));
        path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
    }
}

/// Whether a process is an engine, and not one that passes on what is said to it.
fn is_engine(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    ENGINES.contains(&name.trim())
}

fn bounding_set(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn hard_limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_no_engine() {
        assert!(!is_engine(std::process::id()));
        let unknown = Daemon { pid: None };
        assert!(unknown.raises_limits());
        assert_eq!((unknown.open_files(false), unknown.limits()), (None, None));
        assert!(unknown.shares_network());
        assert!(Daemon { pid: Some(std::process::id()) }.shares_network());
    }

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
