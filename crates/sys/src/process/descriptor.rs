//! Descriptors that pass, or must not pass, to a program that is executed; and process groups.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Signal;

use super::kernel_pid;
use crate::Result;
use crate::error::Context;

/// Lets the child of this command have the descriptor, under the number that is returned. No other child gets it, however
/// many are started at the same time.
#[expect(unsafe_code, reason = "code between fork and exec")]
pub fn pass_descriptor(command: &mut Command, descriptor: OwnedFd) -> i32 {
    let number = descriptor.as_raw_fd();
    let keep = move || fcntl_setfd(&descriptor, FdFlags::empty()).map_err(Into::into);
    // SAFETY: the closure makes one system call: it allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(keep) };
    number
}

/// Keeps every descriptor beyond the standard streams from programs that the caller executes.
#[expect(unsafe_code, reason = "descriptors of unknown owners")]
pub fn close_on_exec_beyond_stdio() -> Result<()> {
    let flags = nix::libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only sets a flag; every descriptor stays open and keeps its meaning for its owner.
    let done = unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 3, u32::MAX, flags) };
    if done == 0 {
        return Ok(());
    }
    // Before Linux 5.11 one by one.
    for entry in std::fs::read_dir("/proc/self/fd").at("read", "/proc/self/fd")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        if let Some(number) = number.filter(|number| *number > 2) {
            // SAFETY: only sets a flag. One that was closed meanwhile is an error without effect.
            unsafe { nix::libc::fcntl(number, nix::libc::F_SETFD, nix::libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// A file in memory with this content, to be read from its start: for what is handed to a child and nobody else may see.
pub fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    let file = memfd_create("request", MemfdFlags::CLOEXEC).at("memfd_create", "request")?;
    let mut file = File::from(file);
    file.write_all(content).at("write", "memory file")?;
    file.rewind().at("seek", "memory file")?;
    Ok(file.into())
}

/// Sends a signal to every process of a group. A group that is gone is success.
pub fn signal_group(leader: u32, signal: Signal) -> Result<()> {
    match rustix::process::kill_process_group(kernel_pid(leader)?, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => other.at("kill", format_args!("process group {leader}")),
    }
}

/// True if standard input is a terminal and the caller's process group is its foreground one.
pub fn has_terminal() -> bool {
    rustix::termios::tcgetpgrp(std::io::stdin().as_fd())
        .is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Makes the caller's process group the foreground one of the terminal at standard input, if there is one: for after a
/// child that was an interactive shell. The caller must have SIGTTOU blocked.
pub fn retake_terminal() {
    let input = std::io::stdin();
    // Not a terminal, or not the controlling one: nothing to take back.
    let _ = rustix::termios::tcsetpgrp(input.as_fd(), rustix::process::getpgrp());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_child_gets_the_file_and_others_do_not() {
        let file = memory_file(b"secret").unwrap();
        let mut command = Command::new("sh");
        let number = pass_descriptor(&mut command, file);
        // Not by the shell's `<&`: some shells know numbers of one digit only.
        let read = format!("cat /proc/self/fd/{number}");
        let other = Command::new("sh").args(["-c", &read]).output().unwrap();
        assert!(!other.status.success());
        assert_eq!(command.args(["-c", &read]).output().unwrap().stdout, b"secret");
    }
}
