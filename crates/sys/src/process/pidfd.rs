//! Handles on processes that cannot be recycled, and waiting on them by poll.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::kernel_pid;
use crate::Result;
use crate::error::Context;

/// A handle on one process: stays on that process even if its number is used again.
#[derive(Debug)]
pub struct PidFd {
    pid: u32,
    fd: OwnedFd,
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The process is gone (or a zombie that its parent has not reaped yet).
    Exited,
    /// It still runs.
    TimedOut,
}

impl PidFd {
    /// Opens a process by its number. Absent: an error for which `is_absent` holds.
    pub fn open(pid: u32) -> Result<Self> {
        let fd = pidfd_open(kernel_pid(pid)?, PidfdFlags::empty())
            .at("pidfd_open", format_args!("process {pid}"))?;
        Ok(Self { pid, fd })
    }

    /// The number of the process in the caller's pid namespace when it was opened.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal. A process that is gone already is success.
    pub fn send_signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.fd, signal) {
            Err(Errno::SRCH) => Ok(()),
            other => other.at("pidfd_send_signal", format_args!("process {}", self.pid)),
        }
    }

    /// Waits until the process has exited; `None` waits for ever. Does not reap: works for processes that are no child.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<Wait> {
        let ready = wait_readable(&[self.as_fd()], timeout)?;
        Ok(if ready[0] { Wait::Exited } else { Wait::TimedOut })
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until all of these processes have exited or the timeout passes; returns the pids that still run.
pub fn wait_all(processes: &[PidFd], timeout: Duration) -> Result<Vec<u32>> {
    let deadline = Instant::now() + timeout;
    let mut running: Vec<&PidFd> = processes.iter().collect();
    while !running.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let fds: Vec<_> = running.iter().map(|process| process.as_fd()).collect();
        let ready = wait_readable(&fds, Some(left))?;
        if !ready.contains(&true) {
            break;
        }
        let mut exited = ready.into_iter();
        running.retain(|_| !exited.next().unwrap_or(false));
    }
    Ok(running.into_iter().map(PidFd::pid).collect())
}

/// Waits until at least one descriptor is readable (or hung up); tells which. All false: the timeout passed.
pub fn wait_readable(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Result<Vec<bool>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let mut set: Vec<_> = fds.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        let left = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut set, left.as_ref()) {
            Err(Errno::INTR) => {}
            other => {
                other.at("poll", format_args!("{} descriptors", fds.len()))?;
                return Ok(set.iter().map(|entry| !entry.revents().is_empty()).collect());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn waits_and_signals() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap();
        assert_eq!(process.wait(Some(Duration::from_millis(5))).unwrap(), Wait::TimedOut);
        process.send_signal(Signal::KILL).unwrap();
        assert_eq!(wait_all(&[process], Duration::from_secs(120)).unwrap(), Vec::<u32>::new());
        child.wait().unwrap();
        assert!(PidFd::open(child.id()).unwrap_err().is_absent());
    }

    #[test]
    fn tells_who_still_runs() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = PidFd::open(child.id()).unwrap();
        let left = wait_all(std::slice::from_ref(&process), Duration::from_millis(5)).unwrap();
        assert_eq!(left, [child.id()]);
        process.send_signal(Signal::KILL).unwrap();
        child.wait().unwrap();
        process.send_signal(Signal::KILL).unwrap();
    }
}
