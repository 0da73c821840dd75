//! Capabilities of the caller (capabilities(7)): what root may do here, which in a container is not everything.

pub use rustix::thread::CapabilitySet as Capabilities;

use crate::Result;
use crate::error::Context;

/// The effective set of the calling thread.
pub fn effective() -> Result<Capabilities> {
    Ok(rustix::thread::capabilities(None).at("capget", "caller")?.effective)
}

/// True if the caller has all of these, such as `Capabilities::SYS_RESOURCE`.
pub fn has(capabilities: Capabilities) -> Result<bool> {
    Ok(effective()?.contains(capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_proc() {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        assert_eq!(u64::from_str_radix(line, 16).unwrap(), effective().unwrap().bits());
        assert!(has(Capabilities::empty()).unwrap());
    }
}
