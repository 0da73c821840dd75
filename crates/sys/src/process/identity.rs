//! Who a process is, so that a recycled pid is never mistaken for it.

use std::fmt;
use std::fs;
use std::str::FromStr;

use super::PidFd;
use crate::error::Context;
use crate::{Error, Result};

/// One process of one boot: pid, start time in clock ticks since boot, and the boot. Written as `pid:start:boot`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessId {
    /// The number in the caller's pid namespace.
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: clock ticks since boot.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
}

impl ProcessId {
    /// The identity of a running process. Absent or a zombie: an error for which `is_absent` holds.
    pub fn of(pid: u32) -> Result<Self> {
        Ok(Self { pid, start_time: start_time(pid)?, boot_id: boot_id()? })
    }

    /// The calling process.
    pub fn own() -> Result<Self> {
        Self::of(std::process::id())
    }

    /// A handle on this very process; `None` if it has exited, whoever has the number now.
    pub fn open(&self) -> Result<Option<PidFd>> {
        let handle = match PidFd::open(self.pid) {
            Err(error) if error.is_absent() => return Ok(None),
            other => other?,
        };
        // Looked at after opening: the handle is then known to be of the process that was looked at.
        Ok(self.is_alive()?.then_some(handle))
    }

    /// True while this very process runs (a zombie does not).
    pub fn is_alive(&self) -> Result<bool> {
        match Self::of(self.pid) {
            Err(error) if error.is_absent() => Ok(false),
            other => Ok(other? == *self),
        }
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.pid, self.start_time, self.boot_id)
    }
}

impl FromStr for ProcessId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::invalid("parse", format_args!("process id `{text}`"), "expected PID:START:BOOT")
        };
        let mut parts = text.splitn(3, ':');
        let mut next = || parts.next().ok_or_else(invalid);
        Ok(Self {
            pid: next()?.parse().map_err(|_| invalid())?,
            start_time: next()?.parse().map_err(|_| invalid())?,
            boot_id: next()?.to_owned(),
        })
    }
}

/// The identity of this boot of the kernel.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(path).at("read", path)?.trim().to_owned())
}

/// Every pid of the caller's pid namespace, ascending.
pub fn all_processes() -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in fs::read_dir("/proc").at("read", "/proc")? {
        let entry = entry.at("read", "/proc")?;
        pids.extend(entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The fields of `/proc/PID/stat` after the command name; the first is the state (field 3 of proc(5)).
pub(crate) fn stat_fields(pid: u32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read(&path).at("read", &path)?;
    let text = String::from_utf8_lossy(&text);
    // The name may hold spaces and parentheses: the last one closes it.
    let Some((_, fields)) = text.rsplit_once(')') else {
        return Err(Error::invalid("read", path, "no command name in it"));
    };
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// The state letter of a process or thread by its folder in `/proc`; `None` if it is gone.
pub(super) fn state(folder: &str) -> Result<Option<char>> {
    let path = format!("{folder}/stat");
    let text = match fs::read(&path).at("read", &path) {
        Err(error) if error.is_absent() => return Ok(None),
        other => other?,
    };
    let text = String::from_utf8_lossy(&text);
    let after_name = text.rsplit_once(')').map(|(_, fields)| fields.trim_start());
    Ok(after_name.and_then(|fields| fields.chars().next()))
}

fn start_time(pid: u32) -> Result<u64> {
    let object = format!("process {pid}");
    let fields = stat_fields(pid)?;
    match fields.first().map(String::as_str) {
        Some("Z" | "X") => return Err(rustix::io::Errno::SRCH).at("identify", object),
        Some(_) => {}
        None => return Err(Error::invalid("identify", object, "its stat is empty")),
    }
    fields
        .get(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| Error::invalid("identify", object, "its stat has no start time"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_identity_survives_text() {
        let own = ProcessId::own().unwrap();
        assert_eq!(own.to_string().parse::<ProcessId>().unwrap(), own);
        assert!(own.is_alive().unwrap());
        assert_eq!(own.open().unwrap().unwrap().pid(), own.pid);
        assert!(all_processes().unwrap().contains(&own.pid));
    }

    #[test]
    fn another_process_with_the_same_number_is_not_it() {
        let mut other = ProcessId::own().unwrap();
        other.start_time += 1;
        assert!(!other.is_alive().unwrap());
        assert!(other.open().unwrap().is_none());
        assert!("12:x".parse::<ProcessId>().is_err());
    }

    #[test]
    fn a_zombie_is_gone() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        PidFd::open(child.id()).unwrap().wait(None).unwrap();
        assert!(ProcessId::of(child.id()).unwrap_err().is_absent());
        child.wait().unwrap();
    }
}
