//! Reaping children, for PID 1 and for child subreapers.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

use crate::Result;
use crate::error::Context;

/// Reaps every child that has exited, without blocking: pid and how it ended.
///
/// It takes children of `std::process::Child` too: who reaps like this keeps pids and never calls `Child::wait`.
pub fn reap() -> Result<Vec<(u32, ExitStatus)>> {
    let mut reaped = Vec::new();
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => reaped
                .push((pid.as_raw_pid().unsigned_abs(), ExitStatus::from_raw(status.as_raw()))),
            Ok(None) | Err(Errno::CHILD) => return Ok(reaped),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error).at("waitpid", "children"),
        }
    }
}
