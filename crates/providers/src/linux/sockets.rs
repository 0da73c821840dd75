//! Who has a port of the host.

use std::net::{IpAddr, SocketAddr};

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
    let wanted = IpAddr::V4(*port.address.ip());
    let keeps = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        address.port() == port.address.port()
            && (ip == wanted || ip.is_unspecified() || wanted.is_unspecified())
    };
    Ok(sockets.into_iter().find(|(address, _)| keeps(address)).map(|(_, inode)| inode))
}
