//! Who is at the other end of a socket.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use crate::Result;
use crate::error::Context;

/// The process that connected a Unix socket, by its number in the caller's pid namespace; `None` if it has none there.
pub fn peer_of(socket: &impl AsFd) -> Result<Option<u32>> {
    let peer = getsockopt(socket, PeerCredentials).at("getsockopt", "SO_PEERCRED")?;
    Ok(u32::try_from(peer.pid()).ok().filter(|pid| *pid != 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_other_end_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(peer_of(&one).unwrap(), Some(std::process::id()));
    }
}
