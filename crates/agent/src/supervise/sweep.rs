//! Ending what services left behind when the node stops: containers and their shims live on when containerd does not.

use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bivouac_sys::process::{PidFd, Signal, SignalFd, all_processes, wait_readable};

use crate::processes::Processes;

/// How long processes may take to end by themselves.
const GRACE: Duration = Duration::from_secs(2);
/// How long a killed process may take to be gone: one in the kernel's hands cannot be waited for.
const KILLED: Duration = Duration::from_secs(2);

/// Asks every process in reach to end, kills those that do not, and reaps them all.
///
/// In reach is everything in the pid namespace for PID 1, and the descendants of any other agent.
pub(super) fn end_everything(processes: &Processes, signals: &SignalFd) {
    for (signal, patience) in [(Signal::TERM, GRACE), (Signal::KILL, KILLED)] {
        let deadline = Instant::now() + patience;
        let mut signalled = Vec::new();
        loop {
            processes.reap();
            let left = in_reach();
            if left.is_empty() {
                return;
            }
            for pid in left {
                // Again for those that appeared meanwhile, once for each.
                if !signalled.contains(&pid)
                    && let Ok(process) = PidFd::open(pid)
                {
                    let _ = process.send_signal(signal);
                    signalled.push(pid);
                }
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if patience.is_zero() {
                break;
            }
            // Woken by SIGCHLD; a process that is no child of ours tells nobody, hence the upper limit.
            let _ =
                wait_readable(&[signals.as_fd()], Some(patience.min(Duration::from_millis(20))));
            while let Ok(Some(_)) = signals.read() {}
        }
    }
}

/// Every process that this agent answers for, but itself.
pub(super) fn in_reach() -> Vec<u32> {
    let own = std::process::id();
    let all = all_processes().unwrap_or_default();
    if own == 1 {
        return all.into_iter().filter(|pid| *pid != own && !is_kernel_thread(*pid)).collect();
    }
    let parents: Vec<(u32, u32)> =
        all.iter().filter_map(|pid| Some((*pid, parent(*pid)?))).collect();
    let mut found = vec![own];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

/// The process that started this one, or adopted it.
pub(super) fn parent(pid: u32) -> Option<u32> {
    stat_field(pid, 1)
}

/// In a virtual machine PID 1 sees them; they have no program and take no signals.
fn is_kernel_thread(pid: u32) -> bool {
    /// PF_KTHREAD of the kernel's `sched.h`.
    const KERNEL_THREAD: u32 = 0x0020_0000;
    stat_field(pid, 6).is_some_and(|flags| flags & KERNEL_THREAD != 0)
}

/// A field of `/proc/PID/stat`, counted from the one after the name.
fn stat_field(pid: u32, index: usize) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(index)?.parse().ok()
}
