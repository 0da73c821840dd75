//! Telling the neighbours on a link who has an address: gratuitous ARP (RFC 5227), unsolicited neighbour advertisements (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::libc::{self, sockaddr_ll};
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrLike as _, sendto};
use rustix::net::sockopt::set_ipv6_multicast_hops;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, ipproto, socket_with};

use crate::netlink::Link;
use crate::{Error, Result, error::Context as _};

const EVERYBODY: [u8; 6] = [0xff; 6];
/// All nodes on the link.
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Says on the link that the address is at its hardware address, so that neighbours who knew another one forget that. The thread is in
/// the network namespace of the link.
pub fn announce(link: &Link, address: IpAddr) -> Result<()> {
    let object = format!("{address} on interface {}", link.name);
    let mac = link.mac.ok_or_else(|| Error::invalid("announce", &object, "it has no address"))?;
    match address {
        IpAddr::V4(address) => announce_v4(link.index, mac, address, &object),
        IpAddr::V6(address) => announce_v6(link.index, mac, address, &object),
    }
}

#[expect(unsafe_code, reason = "no library makes addresses of packet sockets")]
fn announce_v4(index: u32, mac: [u8; 6], address: Ipv4Addr, object: &str) -> Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)
        .at("open packet socket for", object)?;
    let mut hardware = [0; 8];
    hardware[..6].copy_from_slice(&EVERYBODY);
    let to = sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: hardware,
    };
    let length = size_of::<sockaddr_ll>() as u32;
    // SAFETY: the pointer is to a whole address of the family that it names, which outlives the copy.
    let to = unsafe { LinkAddr::from_raw((&raw const to).cast(), Some(length)) }
        .ok_or_else(|| Error::invalid("announce", object, "no address of a link"))?;
    // Some listen to requests only, some to replies only.
    for operation in [1, 2] {
        let message = arp(operation, mac, address);
        sendto(socket.as_raw_fd(), &message, &to, MsgFlags::empty()).at("announce", object)?;
    }
    Ok(())
}

fn announce_v6(index: u32, mac: [u8; 6], address: Ipv6Addr, object: &str) -> Result<()> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))
        .at("open ICMPv6 socket for", object)?;
    // Neighbours take nothing that a router could have passed on.
    set_ipv6_multicast_hops(&socket, 255).at("announce", object)?;
    let to = SocketAddrV6::new(ALL_NODES, 0, 0, index);
    let message = advertisement(mac, address);
    rustix::net::sendto(&socket, &message, SendFlags::empty(), &to).at("announce", object)?;
    Ok(())
}

/// An ARP packet by which somebody speaks about themselves.
fn arp(operation: u8, mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac);
    packet.extend(address.octets());
    packet.extend(mac);
    packet.extend(address.octets());
    packet
}

/// A neighbour advertisement that nobody asked for, of a machine that forwards. The kernel fills in the checksum.
fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Vec<u8> {
    const ROUTER: u8 = 0x80;
    const OVERRIDE: u8 = 0x20;
    let mut packet = vec![136, 0, 0, 0, ROUTER | OVERRIDE, 0, 0, 0];
    packet.extend(address.octets());
    // The option that holds the hardware address, in units of eight bytes.
    packet.extend([2, 1]);
    packet.extend(mac);
    packet
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::{AsFd as _, OwnedFd};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::namespace::{Namespace, enter_fd, open_own, unshare};
    use crate::netlink::{Peer, Route, VethRequest};
    use crate::testing::{in_thread, isolated};

    #[test]
    fn messages_have_their_form() {
        let mac = [2, 0, 0, 0, 0, 9];
        let packet = arp(1, mac, Ipv4Addr::new(10, 9, 0, 250));
        assert_eq!(hex(&packet), "00010800060400010200000000090a0900fa0200000000090a0900fa");
        let packet = advertisement(mac, "fd00:9::ff00".parse().unwrap());
        assert_eq!(
            hex(&packet),
            "88000000a0000000fd00000900000000000000000000ff000201020000000009"
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Two machines at one bridge have the same address, one after the other; who asks for it finds the second one once that was announced.
    #[test]
    fn neighbours_follow() {
        isolated(|| {
            let host = Route::open().unwrap();
            host.ensure_bridge("br", "x").unwrap();
            host.set_up("br", true).unwrap();
            // What the host knows stays until it is told otherwise: its own address does not change with the ports of the bridge, and
            // what it knows does not age.
            host.set_mac("br", [2, 0, 0, 0, 0, 9]).unwrap();
            for family in ["ipv4", "ipv6"] {
                let name = format!("net/{family}/neigh/br/base_reachable_time_ms");
                crate::sysctl::write(&name, "36000000").unwrap();
            }
            let (v4, v6) = ("10.9.0.250".parse().unwrap(), "fd00:9::ff00".parse().unwrap());
            for own in ["10.9.0.1/24", "fd00:9::1/64"] {
                host.ensure_address("br", own.parse().unwrap()).unwrap();
            }
            let network = std::sync::Arc::new(open_own(Namespace::Network).unwrap());
            let machine = |name: &'static str, last: u8| {
                let network = std::sync::Arc::clone(&network);
                move || {
                    unshare(&[Namespace::Network]).unwrap();
                    let route = Route::open().unwrap();
                    let host = Route::open_in(network.as_fd()).unwrap();
                    let inside = open_own(Namespace::Network).unwrap();
                    let peer = Peer::Namespace(inside.as_fd());
                    let (peer_name, alias, mtu) = ("eth0", "x", None);
                    host.create_veth(VethRequest { name, peer_name, peer, alias, mtu }).unwrap();
                    host.set_master(name, "br").unwrap();
                    host.set_up(name, true).unwrap();
                    let own = format!("10.9.0.{last}/24").parse().unwrap();
                    route.ensure_address("eth0", own).unwrap();
                    let own = format!("fd00:9::{last}/64").parse().unwrap();
                    route.ensure_address("eth0", own).unwrap();
                    route.set_up("eth0", true).unwrap();
                    let link = route.link("eth0").unwrap().unwrap();
                    let sockets = [v4, v6].map(|address: IpAddr| {
                        route.ensure_extra_address("eth0", address).unwrap();
                        UdpSocket::bind((address, 5000)).unwrap()
                    });
                    let timeout = Duration::from_millis(100);
                    sockets.iter().for_each(|one| one.set_read_timeout(Some(timeout)).unwrap());
                    (sockets, std::sync::Arc::new(inside), link)
                }
            };
            type Machine = ([UdpSocket; 2], std::sync::Arc<OwnedFd>, Link);
            // Announced again until it is heard: a link that just came up loses what is sent before the kernel has got round to it.
            let ask = |(sockets, inside, link): &Machine| {
                for (socket, from, to) in
                    [(&sockets[0], "10.9.0.1:0", v4), (&sockets[1], "[fd00:9::1]:0", v6)]
                {
                    let asker = UdpSocket::bind(from).unwrap();
                    let deadline = Instant::now() + Duration::from_secs(120);
                    loop {
                        let (inside, link) = (std::sync::Arc::clone(inside), link.clone());
                        in_thread(move || {
                            enter_fd(inside.as_fd(), Namespace::Network).unwrap();
                            announce(&link, to).unwrap();
                        });
                        asker.send_to(b"there?", (to, 5000)).unwrap();
                        if socket.recv(&mut [0; 16]).is_ok() {
                            break;
                        }
                        assert!(Instant::now() < deadline, "{to}");
                    }
                }
            };
            let first = in_thread(machine("one", 2));
            ask(&first);
            let second = in_thread(machine("two", 3));
            ask(&second);
        });
    }
}
