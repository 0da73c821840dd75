//! One error for the whole crate: which call, on which object, and why.

use std::fmt;
use std::io;

use rustix::io::Errno;

/// Result of a kernel interface.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A call that failed. `Display` names the call and the object; the reason is the source.
#[derive(Debug, thiserror::Error)]
#[error("{call} {object} failed")]
pub struct Error {
    call: &'static str,
    object: String,
    #[source]
    cause: Cause,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The kernel's answer.
    #[error("{0}")]
    Os(io::Error),
    /// The kernel's answer with its own explanation (netlink extended acknowledgement).
    #[error("{text} ({errno})")]
    Explained {
        /// The error number.
        errno: io::Error,
        /// What the kernel said about it.
        text: String,
    },
    /// What was read has not the expected form, or what was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// A command exited unsuccessfully; the last lines of its standard error.
    #[error("{status}: {stderr}")]
    Command {
        /// How it ended.
        status: std::process::ExitStatus,
        /// Last lines of standard error.
        stderr: String,
    },
    /// A deadline passed; what was waited for and what was seen last.
    #[error("timed out: {0}")]
    TimedOut(String),
}

impl Error {
    pub(crate) fn new(call: &'static str, object: impl fmt::Display, cause: Cause) -> Self {
        Self { call, object: object.to_string(), cause }
    }

    pub(crate) fn invalid(
        call: &'static str,
        object: impl fmt::Display,
        text: impl Into<String>,
    ) -> Self {
        Self::new(call, object, Cause::Invalid(text.into()))
    }

    /// The call that failed, such as `mount`.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// What it was applied to: a path, an interface, a process.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The reason.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The error number, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match &self.cause {
            Cause::Os(error) | Cause::Explained { errno: error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// True if the object does not exist (no such file, process or device).
    pub fn is_absent(&self) -> bool {
        self.is(&[Errno::NOENT, Errno::SRCH, Errno::NODEV])
    }

    /// True if the caller lacks the right to do this.
    pub fn is_denied(&self) -> bool {
        self.is(&[Errno::PERM, Errno::ACCESS, Errno::ROFS])
    }

    /// True if the object is in use in a way that does not permit this.
    pub fn is_busy(&self) -> bool {
        self.is(&[Errno::BUSY])
    }

    /// True if a deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::TimedOut(_))
    }

    pub(crate) fn is(&self, numbers: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| numbers.iter().any(|n| n.raw_os_error() == errno))
    }
}

/// Adds call and object to an error of the standard library, rustix or nix.
pub(crate) trait Context<T> {
    fn at(self, call: &'static str, object: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn at(self, call: &'static str, object: impl fmt::Display) -> Result<T> {
        self.map_err(|error| Error::new(call, object, Cause::Os(error.into())))
    }
}

/// Makes success of "it was not there": for removals.
pub(crate) fn absent_is_success(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}
