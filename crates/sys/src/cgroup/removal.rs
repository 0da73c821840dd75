//! Ending a group: its processes, then its folders.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Signal;

use super::{Cgroup, Version, files};
use crate::error::Context;
use crate::process::{PidFd, wait_all};
use crate::{Cause, Error, Result};

/// How long the kernel usually needs to let go of a task that has exited.
const PROBE: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Kills every process in the group and below it, except the caller, and waits until they are gone. A group that is
    /// not there is success.
    pub fn kill_all(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            // Before the pids are read: what is killed in one stroke cannot fork between two readings.
            if self.version == Version::V2 && !self.processes()?.contains(&std::process::id()) {
                self.kill_by_kernel();
            }
            let open = self.open_processes()?;
            if open.is_empty() {
                return Ok(());
            }
            for process in &open {
                process.send_signal(Signal::KILL)?;
            }
            let left = wait_all(&open, deadline.saturating_duration_since(Instant::now()))?;
            // Checked also when all of these are gone: others may have been forked, again and again.
            if Instant::now() >= deadline && !self.processes()?.is_empty() {
                return Err(self.timed_out("kill", &left));
            }
        }
    }

    /// `cgroup.kill`, since Linux 5.14; without it the signals do.
    fn kill_by_kernel(&self) {
        for folder in self.folders() {
            let _ = files::write(&folder.join("cgroup.kill"), 1);
        }
    }

    /// Handles on the processes of the group. A process counts only if its number is still in the group after the handle
    /// was opened: the number may have been given to a stranger between reading and opening.
    fn open_processes(&self) -> Result<Vec<PidFd>> {
        let mut open = Vec::new();
        for pid in self.processes()? {
            match PidFd::open(pid) {
                Err(error) if error.is_absent() => {}
                _ if pid == std::process::id() => {}
                other => open.push(other?),
            }
        }
        let still: BTreeSet<u32> =
            if open.is_empty() { BTreeSet::new() } else { self.processes()? };
        open.retain(|process| still.contains(&process.pid()));
        Ok(open)
    }

    /// Removes the group and all groups below it. Absent is success. Processes that are exiting are waited for; live ones
    /// make it fail after the timeout.
    pub fn remove(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        for folder in self.folders() {
            files::walk(folder, &mut |path| self.remove_folder(path, deadline))?;
        }
        Ok(())
    }

    fn remove_folder(&self, path: &Path, deadline: Instant) -> Result<()> {
        loop {
            match fs::remove_dir(path).at("rmdir", path.display()) {
                Err(error) if error.is_absent() => return Ok(()),
                Err(error) if error.is(&[Errno::BUSY]) => {}
                other => return other,
            }
            let mut pids = BTreeSet::new();
            files::read_pids(path, &mut pids)?;
            let open: Vec<PidFd> =
                pids.into_iter().filter_map(|pid| PidFd::open(pid).ok()).collect();
            let left = wait_all(&open, deadline.saturating_duration_since(Instant::now()))?;
            if Instant::now() >= deadline {
                return Err(self.timed_out("remove", &left));
            }
            // An exited task leaves its group a moment after its handle says so, and nothing tells when.
            thread::sleep(PROBE);
        }
    }

    fn timed_out(&self, call: &'static str, pids: &[u32]) -> Error {
        let object =
            self.folders().next().map(|path| path.display().to_string()).unwrap_or_default();
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let text = if pids.is_empty() {
            "the kernel still holds it although no process is in it".to_owned()
        } else {
            format!("processes {} are still in it", pids.join(", "))
        };
        Error::new(call, format_args!("cgroup {object}"), Cause::TimedOut(text))
    }
}
