//! Signals as something to read, for a supervisor that waits on many things at once.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd as Inner};
use rustix::process::Signal;

use crate::error::Context;
use crate::{Error, Result};

/// Signals delivered through a descriptor. They are blocked in the calling thread and in threads started after it, so
/// open it before any other thread exists; children inherit the mask ([`unblock_signals`], [`super::ChildSetup`]).
#[derive(Debug)]
pub struct SignalFd {
    fd: Inner,
}

impl SignalFd {
    /// Blocks the signals and opens a non-blocking, close-on-exec descriptor for them.
    pub fn open(signals: &[Signal]) -> Result<Self> {
        let mut set = SigSet::empty();
        for signal in signals {
            let raw = signal.as_raw();
            let signal = nix::sys::signal::Signal::try_from(raw).map_err(|_| {
                Error::invalid("signalfd", format_args!("signal {raw}"), "has no name")
            })?;
            set.add(signal);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).at("sigprocmask", "caller")?;
        let fd = Inner::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .at("signalfd", "caller")?;
        Ok(Self { fd })
    }

    /// The next pending signal; `None` if there is none. Several of one kind may have become one.
    pub fn read(&self) -> Result<Option<Signal>> {
        let info = self.fd.read_signal().at("read", "signalfd")?;
        Ok(info.and_then(|info| Signal::from_named_raw(i32::try_from(info.ssi_signo).ok()?)))
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Unblocks every signal in the calling thread: for a child that goes on in this program.
pub fn unblock_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).at("sigprocmask", "caller")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait_readable;

    #[test]
    fn reads_a_signal_sent_to_the_thread() {
        std::thread::spawn(|| {
            let signals = SignalFd::open(&[Signal::USR2]).unwrap();
            assert_eq!(signals.read().unwrap(), None);
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGUSR2).unwrap();
            assert_eq!(wait_readable(&[signals.as_fd()], None).unwrap(), [true]);
            assert_eq!(signals.read().unwrap(), Some(Signal::USR2));
            unblock_signals().unwrap();
        })
        .join()
        .unwrap();
    }
}
