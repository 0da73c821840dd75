//! Signals for a program that is not ready for them yet.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::process::Signal;

use crate::{Error, Result};

/// Lets the command's program start with these signals blocked: what arrives before it has set itself up waits for it. To
/// the first process of a pid namespace, signals that it does not handle are otherwise lost.
#[expect(unsafe_code, reason = "code between fork and exec")]
pub fn keep_pending(command: &mut Command, signals: &[Signal]) -> Result<()> {
    let mut set = SigSet::empty();
    for signal in signals {
        let raw = signal.as_raw();
        let signal = nix::sys::signal::Signal::try_from(raw)
            .map_err(|_| Error::invalid("block", format_args!("signal {raw}"), "has no name"))?;
        set.add(signal);
    }
    let block =
        move || sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(std::io::Error::from);
    // SAFETY: the closure makes one system call: it allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(block) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_starts_with_them_blocked() {
        let mut command = Command::new("grep");
        command.args(["SigBlk", "/proc/self/status"]);
        keep_pending(&mut command, &[Signal::TERM]).unwrap();
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let blocked = u64::from_str_radix(text.trim().trim_start_matches("SigBlk:\t"), 16).unwrap();
        // Whoever runs the test may have others blocked.
        assert_ne!(blocked & 1 << (Signal::TERM.as_raw() - 1), 0, "{text}");
    }
}
