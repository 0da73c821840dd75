//! Routes of the main table.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Route;
use super::address::family;
use crate::Result;
use crate::error::absent_is_success;

/// A unicast route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// Where to; `0.0.0.0/0` and `::/0` are default routes.
    pub destination: IpNet,
    /// Through which router; `None` for what is reached directly.
    pub gateway: Option<IpAddr>,
    /// Name of the link. When making a route it may be left out if there is a gateway.
    pub interface: Option<String>,
    /// Who made it (`/etc/iproute2/rt_protos`): 2 the kernel, 3 at boot, 4 the administrator.
    pub protocol: u8,
}

impl Route {
    /// Routes of the main table, of both families. Those over several gateways tell the first.
    pub fn routes(&self) -> Result<Vec<RouteEntry>> {
        let links = self.links()?;
        let name =
            |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut query = RouteMessage::default();
            query.header.address_family = family;
            for message in self.dump(RouteNetlinkMessage::GetRoute(query), "routes")? {
                if let RouteNetlinkMessage::NewRoute(message) = message {
                    routes.extend(read(&message, &name));
                }
            }
        }
        Ok(routes)
    }

    /// Makes a route, or changes the one to this destination to be so.
    pub fn ensure_route(&self, route: &RouteEntry) -> Result<()> {
        let message = RouteNetlinkMessage::NewRoute(self.route_message(route)?);
        let object = format!("to {}", route.destination);
        self.request(message, NLM_F_CREATE | NLM_F_REPLACE, "set route", &object)
    }

    /// Deletes a route. Absent is success, also when its interface is.
    pub fn destroy_route(&self, route: &RouteEntry) -> Result<()> {
        let message = match self.route_message(route) {
            Err(error) if error.is_absent() => return Ok(()),
            other => RouteNetlinkMessage::DelRoute(other?),
        };
        let object = format!("to {}", route.destination);
        absent_is_success(self.request(message, 0, "delete route", &object))
    }

    fn route_message(&self, route: &RouteEntry) -> Result<RouteMessage> {
        let mut message = RouteMessage::default();
        let destination = route.destination.trunc();
        message.header.address_family = family(destination.addr());
        message.header.destination_prefix_length = destination.prefix_len();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(route.protocol);
        message.header.kind = RouteType::Unicast;
        message.header.scope = match (route.gateway, destination) {
            (None, IpNet::V4(_)) => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        message.attributes.push(RouteAttribute::Destination(destination.addr().into()));
        if let Some(gateway) = route.gateway {
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        if let Some(interface) = &route.interface {
            message.attributes.push(RouteAttribute::Oif(self.index(interface)?));
        }
        Ok(message)
    }
}

fn read(message: &RouteMessage, name: &impl Fn(u32) -> Option<String>) -> Option<RouteEntry> {
    let header = &message.header;
    let mut table = u32::from(header.table);
    let mut destination: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        _ => Ipv6Addr::UNSPECIFIED.into(),
    };
    let (mut gateway, mut interface) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Destination(to) => destination = address(to)?,
            RouteAttribute::Gateway(through) => gateway = address(through),
            RouteAttribute::Oif(index) => interface = name(*index),
            RouteAttribute::MultiPath(hops) => {
                let first = hops.first()?;
                interface = name(first.interface_index);
                gateway = first.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(through) => address(through),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let wanted =
        table == u32::from(RouteHeader::RT_TABLE_MAIN) && header.kind == RouteType::Unicast;
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    wanted.then(|| RouteEntry { destination, gateway, interface, protocol: header.protocol.into() })
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    fn entry(destination: &str, gateway: Option<&str>, interface: Option<&str>) -> RouteEntry {
        RouteEntry {
            destination: destination.parse().unwrap(),
            gateway: gateway.map(|text| text.parse().unwrap()),
            interface: interface.map(str::to_owned),
            protocol: 77,
        }
    }

    #[test]
    fn routes_are_made_changed_and_deleted() {
        isolated(|| {
            let route = Route::open().unwrap();
            route.ensure_bridge("br", "x").unwrap();
            route.set_up("br", true).unwrap();
            route.ensure_address("br", "10.9.0.1/24".parse().unwrap()).unwrap();
            route.ensure_address("br", "fd00:9::1/64".parse().unwrap()).unwrap();
            let wanted = [
                entry("10.244.1.0/24", Some("10.9.0.2"), Some("br")),
                entry("fd00:244:1::/64", Some("fd00:9::2"), Some("br")),
                entry("10.8.0.0/16", None, Some("br")),
                entry("0.0.0.0/0", Some("10.9.0.9"), Some("br")),
            ];
            for entry in &wanted {
                route.ensure_route(entry).unwrap();
                route.ensure_route(entry).unwrap();
                let found = route.routes().unwrap();
                assert_eq!(found.iter().filter(|one| *one == entry).count(), 1, "{found:?}");
            }
            let changed = entry("10.244.1.0/24", Some("10.9.0.3"), Some("br"));
            route.ensure_route(&changed).unwrap();
            let found = route.routes().unwrap();
            assert!(found.contains(&changed) && !found.contains(&wanted[0]));
            for entry in wanted[1..].iter().chain([&changed]) {
                route.destroy_route(entry).unwrap();
                route.destroy_route(entry).unwrap();
            }
            assert!(route.routes().unwrap().iter().all(|one| one.protocol != 77));
            let error =
                route.ensure_route(&entry("10.1.0.0/16", Some("10.77.0.1"), None)).unwrap_err();
            assert_eq!(error.to_string(), "set route to 10.1.0.0/16 failed");
            assert!(error.cause().to_string().contains("gateway"), "{}", error.cause());
        });
    }
}
