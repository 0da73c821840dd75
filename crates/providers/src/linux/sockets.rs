//! Who has a port of the host.

use std::net::SocketAddr;

use bivouac_spec::cluster::Protocol;
use procfs::ProcResult;
use procfs::net::{self, TcpState};
use procfs::process::{FDTarget, Process, all_processes};

use super::ports::HostPort;

/// The process whose socket keeps others from this port: `nginx (process 12)`. `None` when it cannot be told.
pub(super) fn user(port: HostPort) -> Option<String> {
    let inode = inode(port).ok().flatten()?;
    let processes = all_processes().ok()?.filter_map(Result::ok);
    let process = processes.into_iter().find(|process| has(process, inode))?;
    Some(format!("{} (process {})", process.stat().ok()?.comm, process.pid))
}

fn has(process: &Process, inode: u64) -> bool {
    let Ok(mut open) = process.fd() else { return false };
    open.any(|one| one.is_ok_and(|one| one.target == FDTarget::Socket(inode)))
}

fn inode(port: HostPort) -> ProcResult<Option<u64>> {
    let sockets: Vec<(SocketAddr, u64)> = match port.protocol {
        Protocol::Tcp => {
            let all = net::tcp()?.into_iter().chain(net::tcp6().unwrap_or_default());
            let listening = all.filter(|one| one.state == TcpState::Listen);
            listening.map(|one| (one.local_address, one.inode)).collect()
        }
        Protocol::Udp => {
            let all = net::udp()?.into_iter().chain(net::udp6().unwrap_or_default());
            all.map(|one| (one.local_address, one.inode)).collect()
        }
    };
    let found = sockets.into_iter().find(|(address, _)| keeps(*address, port.address));
    Ok(found.map(|(_, inode)| inode))
}

/// Whether a socket at one address keeps others from the wanted one. One at all IPv6 addresses may have all IPv4 ones, too.
fn keeps(address: SocketAddr, wanted: SocketAddr) -> bool {
    let (ip, wanted_ip) = (address.ip().to_canonical(), wanted.ip());
    let same_family = ip.is_ipv4() == wanted_ip.is_ipv4();
    address.port() == wanted.port()
        && (ip == wanted_ip
            || (ip.is_unspecified() && (same_family || ip.is_ipv6()))
            || (wanted_ip.is_unspecified() && same_family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_keeps_its_own_family_and_one_at_all_addresses_may_keep_both() {
        for (address, wanted, is_kept) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80", true),
            ("127.0.0.1:81", "127.0.0.1:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[fd00::1]:80", true),
            ("0.0.0.0:80", "[fd00::1]:80", false),
            ("127.0.0.1:80", "[::]:80", false),
            ("[fd00::1]:80", "[::]:80", true),
        ] {
            let kept = keeps(address.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(kept, is_kept, "{address} {wanted}");
        }
    }
}
