//! Whether processes that were told to stop have.

use std::fs;

use super::identity::state;
use crate::Result;
use crate::error::Context;

/// Calls in which a thread sleeps until its child has executed a program or ended (vfork). It cannot be stopped meanwhile, and does
/// nothing.
#[cfg(target_arch = "x86_64")]
const AWAITS_CHILD: &[nix::libc::c_long] =
    &[nix::libc::SYS_clone, nix::libc::SYS_vfork, nix::libc::SYS_clone3];
#[cfg(not(target_arch = "x86_64"))]
const AWAITS_CHILD: &[nix::libc::c_long] = &[nix::libc::SYS_clone, nix::libc::SYS_clone3];

/// True if the process is stopped by a signal or by who traces it, or has ended.
pub fn is_stopped(pid: u32) -> Result<bool> {
    Ok(matches!(state(&format!("/proc/{pid}"))?, None | Some('T' | 't' | 'Z' | 'X')))
}

/// True if no thread of the process runs or is about to change anything: all are stopped or have ended. A process that is gone is still.
pub fn is_still(pid: u32) -> Result<bool> {
    let path = format!("/proc/{pid}/task");
    let threads = match fs::read_dir(&path).at("read", &path) {
        Err(error) if error.is_absent() => return Ok(true),
        other => other?,
    };
    for thread in threads {
        let thread = match thread.at("read", &path) {
            Err(error) if error.is_absent() => continue,
            other => other?,
        };
        let path = thread.path();
        let path = path.to_string_lossy();
        match state(&path)? {
            None | Some('T' | 't' | 'Z' | 'X') => {}
            Some('D') if awaits_child(&path) => {}
            Some(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn awaits_child(thread: &str) -> bool {
    let text = fs::read_to_string(format!("{thread}/syscall")).unwrap_or_default();
    let number = text.split(' ').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| AWAITS_CHILD.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{PidFd, Signal};
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn who_is_stopped_is_still() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let (pid, process) = (child.id(), PidFd::open(child.id()).unwrap());
        assert!(!is_stopped(pid).unwrap() && !is_still(pid).unwrap());
        process.send_signal(Signal::STOP).unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while !is_still(pid).unwrap() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert!(is_stopped(pid).unwrap());
        process.send_signal(Signal::CONT).unwrap();
        assert!(!is_stopped(pid).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(is_stopped(pid).unwrap() && is_still(pid).unwrap());
    }

    #[test]
    fn a_process_with_another_thread_is_not_still_and_the_own_one_never_is() {
        assert!(!is_still(std::process::id()).unwrap());
    }
}
