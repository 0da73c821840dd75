//! Processes: identity, signals, waiting, limits, and how a child is set up before it runs its program.
//!
//! Pids are `u32` as in the standard library. A pid alone may be recycled: keep a [`ProcessId`].

mod child;
mod descriptor;
mod detach;
mod identity;
mod limit;
mod peer;
mod pending;
mod pidfd;
mod reap;
mod signal;
mod still;

pub use child::ChildSetup;
pub use descriptor::{
    close_on_exec_beyond_stdio, has_terminal, memory_file, pass_descriptor, retake_terminal,
    signal_group,
};
pub use detach::{detach, fork_child, set_child_subreaper};
pub(crate) use identity::stat_fields;
pub use identity::{ProcessId, all_processes, boot_id};
pub use limit::{Limit, Resource, set_limit};
pub use peer::peer_of;
pub use pending::keep_pending;
pub use pidfd::{PidFd, Wait, wait_all, wait_readable};
pub use reap::reap;
pub use rustix::process::Signal;
pub use signal::{SignalFd, unblock_signals};
pub use still::{is_still, is_stopped};

use crate::{Error, Result};

pub(crate) fn kernel_pid(pid: u32) -> Result<rustix::process::Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
        .ok_or_else(|| Error::invalid("open", format_args!("process {pid}"), "not a process id"))
}
