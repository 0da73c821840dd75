//! Forking and detaching, in programs with a single thread.

use std::fs::{self, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::unistd::{ForkResult, fork};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::Context;
use crate::{Error, Result};

/// Forks; the child runs `child`, exits with the code that it returns (101 after a panic) and runs no destructor of the
/// caller. Returns the child's pid. For programs that executed themselves anew: refused when there is another thread,
/// because locks held by it would stay locked in the child for ever.
#[expect(unsafe_code, reason = "fork")]
pub fn fork_child(child: impl FnOnce() -> u8) -> Result<u32> {
    let threads = fs::read_dir("/proc/self/task").at("read", "/proc/self/task")?.count();
    if threads != 1 {
        let text = format!("{threads} threads, and only a single-threaded process may fork");
        return Err(Error::invalid("fork", "caller", text));
    }
    // SAFETY: this is the only thread of the process, so the child may do all that the parent may; it leaves through
    // `_exit` and never returns into the caller's frames.
    match unsafe { fork() }.at("fork", "caller")? {
        ForkResult::Parent { child } => Ok(child.as_raw().unsigned_abs()),
        ForkResult::Child => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends this process at once; nothing is used after it.
            unsafe { nix::libc::_exit(i32::from(code)) }
        }
    }
}

/// Leaves the terminal and session of the caller: new session, standard input from /dev/null, output and errors to
/// `output` or /dev/null. The caller must not lead a process group: call it in a forked child.
pub fn detach(output: Option<BorrowedFd<'_>>) -> Result<()> {
    rustix::process::setsid().at("setsid", "caller")?;
    let null =
        OpenOptions::new().read(true).write(true).open("/dev/null").at("open", "/dev/null")?;
    let output = output.unwrap_or(null.as_fd());
    dup2_stdin(&null).at("dup2", "standard input")?;
    dup2_stdout(output).at("dup2", "standard output")?;
    dup2_stderr(output).at("dup2", "standard error")
}

/// Makes the caller the parent of orphans among its descendants.
pub fn set_child_subreaper() -> Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).at("prctl", "child subreaper")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_multithreaded_program_may_not_fork() {
        std::thread::spawn(|| {
            let error = fork_child(|| 0).unwrap_err();
            assert_eq!(error.to_string(), "fork caller failed");
        })
        .join()
        .unwrap();
    }
}
