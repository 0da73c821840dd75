//! Resource limits, as far as the caller may set them.

use rustix::io::Errno;
pub use rustix::process::Resource;
use rustix::process::{Rlimit, prlimit};

use crate::Result;
use crate::error::Context;

/// A resource limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force.
    pub soft: Option<u64>,
    /// How far the process itself may raise it.
    pub hard: Option<u64>,
}

impl Limit {
    /// Applies the limit to the calling process and returns what it got: without CAP_SYS_RESOURCE the hard limit
    /// cannot be raised, and both are then lowered to it.
    pub(crate) fn apply(self, pid: Option<rustix::process::Pid>) -> rustix::io::Result<Self> {
        let wanted = Rlimit { current: lower(self.soft, self.hard), maximum: self.hard };
        let got = match prlimit(pid, self.resource, wanted) {
            Ok(_) => wanted,
            Err(Errno::PERM) => {
                // A process may always set its soft limit to the hard one that it has.
                let hard = rustix::process::getrlimit(self.resource).maximum;
                let got =
                    Rlimit { current: lower(self.soft, hard), maximum: lower(self.hard, hard) };
                prlimit(pid, self.resource, got)?;
                got
            }
            Err(error) => return Err(error),
        };
        Ok(Self { resource: self.resource, soft: got.current, hard: got.maximum })
    }
}

fn lower(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Sets a limit of the calling process, lowered to what is permitted; returns the limit it got.
pub fn set_limit(resource: Resource, soft: Option<u64>, hard: Option<u64>) -> Result<Limit> {
    Limit { resource, soft, hard }.apply(None).at("setrlimit", format_args!("{resource:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_beyond_the_hard_one_is_lowered_or_granted() {
        let before = rustix::process::getrlimit(Resource::Core);
        let got = set_limit(Resource::Core, before.maximum, None).unwrap();
        let now = rustix::process::getrlimit(Resource::Core);
        assert_eq!((got.soft, got.hard), (now.current, now.maximum));
        assert_eq!(got.soft, before.maximum);
    }
}
