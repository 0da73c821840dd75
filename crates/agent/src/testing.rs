//! What tests of sockets share.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

/// An address of the loopback interface that no other test uses, also of other programs, unless by rare chance: a port of it that was let go
/// of is taken by nobody else.
pub(crate) fn loopback() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = std::process::id().wrapping_mul(97) + NEXT.fetch_add(1, Ordering::Relaxed);
    let [_, a, b, c] = number.to_be_bytes();
    // Neither the first nor the last of all.
    Ipv4Addr::new(127, a | 1, b, c)
}
