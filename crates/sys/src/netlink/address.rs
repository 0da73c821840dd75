//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;

use super::Route;
use crate::Result;

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The address with the prefix of its network; host bits are kept.
    pub address: IpNet,
    /// Number of the link.
    pub link: u32,
}

impl Route {
    /// Gives a link an address; it is success if it has it already. IPv6 addresses work at once, without duplicate
    /// address detection: addresses are assigned here, so there are no duplicates.
    pub fn ensure_address(&self, link: &str, address: IpNet) -> Result<()> {
        self.add_address(link, address, self.address_message(link, address)?)
    }

    /// Gives a link an address alone, without a network, which nothing that is sent from here comes from unless it answers; it is success
    /// if the link has it already. For addresses that move between machines.
    pub fn ensure_extra_address(&self, link: &str, address: IpAddr) -> Result<()> {
        let address = IpNet::from(address);
        let mut message = self.address_message(link, address)?;
        if address.addr().is_ipv6() {
            // One that is not preferred: else it could be nearer to a destination than the machine's own. IPv4 looks at networks only.
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        self.add_address(link, address, message)
    }

    fn add_address(&self, link: &str, address: IpNet, message: AddressMessage) -> Result<()> {
        let message = RouteNetlinkMessage::NewAddress(message);
        let object = format!("{address} on interface {link}");
        match self.request(message, NLM_F_CREATE | NLM_F_EXCL, "add address", &object) {
            Err(error) if error.is(&[Errno::EXIST]) => Ok(()),
            other => other,
        }
    }

    /// Takes an address from a link. Absent is success, also when the link is.
    pub fn destroy_address(&self, link: &str, address: IpNet) -> Result<()> {
        let message = match self.address_message(link, address) {
            Err(error) if error.is_absent() => return Ok(()),
            other => RouteNetlinkMessage::DelAddress(other?),
        };
        let object = format!("{address} on interface {link}");
        match self.request(message, 0, "delete address", &object) {
            Err(error) if error.is(&[Errno::ADDRNOTAVAIL]) => Ok(()),
            other => other,
        }
    }

    /// All addresses of the namespace, of both families.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listed = self.dump(query, "addresses")?;
        let addresses = listed.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => read(&message),
            _ => None,
        });
        Ok(addresses.collect())
    }

    fn address_message(&self, link: &str, address: IpNet) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.index = self.index(link)?;
        message.header.prefix_len = address.prefix_len();
        message.header.family = family(address.addr());
        if address.addr().is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes.push(AddressAttribute::Local(address.addr()));
        message.attributes.push(AddressAttribute::Address(address.addr()));
        if let IpNet::V4(network) = address
            && network.prefix_len() < 31
        {
            message.attributes.push(AddressAttribute::Broadcast(network.broadcast()));
        }
        Ok(message)
    }
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn read(message: &AddressMessage) -> Option<Address> {
    // IPv4 names its own end `local`; IPv6 has `address` alone.
    let (mut local, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    Some(Address { address, link: message.header.index })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    #[test]
    fn extra_addresses_are_not_what_connections_come_from() {
        use std::net::UdpSocket;
        isolated(|| {
            let route = Route::open().unwrap();
            route.ensure_bridge("br", "x").unwrap();
            route.set_up("br", true).unwrap();
            // The extra addresses are nearer to the destinations.
            for (own, extra, to) in [
                ("10.9.0.1/24", "10.9.0.250", "10.9.0.251:9"),
                ("fd00:9::1/64", "fd00:9::ff00", "[fd00:9::ff01]:9"),
            ] {
                let (own, extra): (IpNet, IpAddr) = (own.parse().unwrap(), extra.parse().unwrap());
                route.ensure_address("br", own).unwrap();
                route.ensure_extra_address("br", extra).unwrap();
                route.ensure_extra_address("br", extra).unwrap();
                let any = if extra.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any).unwrap();
                socket.connect(to).unwrap();
                assert_eq!(socket.local_addr().unwrap().ip(), own.addr());
                UdpSocket::bind((extra, 0)).unwrap();
                route.destroy_address("br", extra.into()).unwrap();
                UdpSocket::bind((extra, 0)).unwrap_err();
            }
        });
    }

    #[test]
    fn both_families_twice_then_gone() {
        isolated(|| {
            let route = Route::open().unwrap();
            route.set_up("lo", true).unwrap();
            let link = route.ensure_bridge("br", "x").unwrap().index;
            for text in ["10.9.0.1/24", "fd00:9::1/64"] {
                let address: IpNet = text.parse().unwrap();
                route.ensure_address("br", address).unwrap();
                route.ensure_address("br", address).unwrap();
                assert!(route.addresses().unwrap().contains(&Address { address, link }));
                route.destroy_address("br", address).unwrap();
                route.destroy_address("br", address).unwrap();
                route.destroy_address("absent", address).unwrap();
                assert!(!route.addresses().unwrap().contains(&Address { address, link }));
            }
            let error = route.ensure_address("absent", "10.9.0.1/24".parse().unwrap()).unwrap_err();
            assert_eq!(error.to_string(), "find interface absent failed");
        });
    }
}
