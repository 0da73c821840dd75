//! Links: bridges, veth pairs, and what is set on them.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rustix::io::Errno;

use super::Route;
use crate::error::Context;
use crate::error::absent_is_success;
use crate::{Error, Result};

/// A link, as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Number in its network namespace.
    pub index: u32,
    /// Name, at most 15 bytes.
    pub name: String,
    /// The label, such as what bivouac sets on its own.
    pub alias: Option<String>,
    /// `bridge`, `veth`, ...; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Hardware address.
    pub mac: Option<[u8; 6]>,
    /// Set up by the administrator.
    pub up: bool,
    /// Largest packet in bytes.
    pub mtu: u32,
    /// Number of the bridge that it is a port of.
    pub master: Option<u32>,
}

/// Where the other end of a veth pair goes.
#[derive(Debug, Clone, Copy)]
pub enum Peer<'a> {
    /// The same network namespace.
    Here,
    /// An open network namespace.
    Namespace(BorrowedFd<'a>),
    /// The network namespace of a process.
    Process(u32),
}

/// A veth pair to make.
#[derive(Debug, Clone, Copy)]
pub struct VethRequest<'a> {
    /// Name of this end.
    pub name: &'a str,
    /// Name of the other end, in its namespace.
    pub peer_name: &'a str,
    /// Where the other end goes.
    pub peer: Peer<'a>,
    /// Label of this end.
    pub alias: &'a str,
    /// Largest packet in bytes at both ends; the kernel's default if `None`.
    pub mtu: Option<u32>,
}

impl Route {
    /// All links of the namespace.
    pub fn links(&self) -> Result<Vec<Link>> {
        let listed = self.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), "links")?;
        let links = listed.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewLink(message) => Some(read(message)),
            _ => None,
        });
        Ok(links.collect())
    }

    /// The link of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>> {
        Ok(self.links()?.into_iter().find(|link| link.name == name))
    }

    /// Number of a link. Absent: an error for which `is_absent` holds.
    pub(super) fn index(&self, name: &str) -> Result<u32> {
        let link = self.link(name)?;
        link.map(|link| link.index).ok_or(Errno::NODEV).at("find", format_args!("interface {name}"))
    }

    /// Makes a bridge with this label, or sets the label of the one that there is. A link of another kind with this name
    /// is an error.
    pub fn ensure_bridge(&self, name: &str, alias: &str) -> Result<Link> {
        let object = format!("bridge {name}");
        let mut message = named(name);
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
        match self.create(message, &object) {
            Err(error) if error.is(&[Errno::EXIST]) => {}
            other => other?,
        }
        let link = self.link(name)?.ok_or(Errno::NODEV).at("find", &object)?;
        if link.kind.as_deref() != Some("bridge") {
            let kind = link.kind.as_deref().unwrap_or("another interface");
            return Err(Error::invalid("create", object, format!("{kind} has this name already")));
        }
        if link.alias.as_deref() != Some(alias) {
            self.set_alias(name, alias)?;
        }
        Ok(Link { alias: Some(alias.to_owned()), ..link })
    }

    /// Makes a veth pair; an existing link of one of the names is an error (`EEXIST`).
    pub fn create_veth(&self, request: VethRequest<'_>) -> Result<()> {
        let object = format!("veth {}", request.name);
        let mut peer = named(request.peer_name);
        match request.peer {
            Peer::Here => {}
            Peer::Namespace(fd) => peer.attributes.push(LinkAttribute::NetNsFd(fd.as_raw_fd())),
            Peer::Process(pid) => peer.attributes.push(LinkAttribute::NetNsPid(pid)),
        }
        let mut message = named(request.name);
        if let Some(mtu) = request.mtu {
            peer.attributes.push(LinkAttribute::Mtu(mtu));
            message.attributes.push(LinkAttribute::Mtu(mtu));
        }
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        self.create(message, &object)?;
        self.set_alias(request.name, request.alias)
    }

    fn create(&self, message: LinkMessage, object: &str) -> Result<()> {
        let message = RouteNetlinkMessage::NewLink(message);
        self.request(message, NLM_F_CREATE | NLM_F_EXCL, "create", object)
    }

    /// Sets a link up or down.
    pub fn set_up(&self, name: &str, up: bool) -> Result<()> {
        let mut message = named(name);
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.change(name, message, "set state of")
    }

    /// Makes a link a port of a bridge.
    pub fn set_master(&self, name: &str, bridge: &str) -> Result<()> {
        let master = self.index(bridge)?;
        self.set(name, LinkAttribute::Controller(master), "set bridge of")
    }

    /// Sets the largest packet in bytes.
    pub fn set_mtu(&self, name: &str, mtu: u32) -> Result<()> {
        self.set(name, LinkAttribute::Mtu(mtu), "set mtu of")
    }

    /// Sets the label of a link.
    fn set_alias(&self, name: &str, alias: &str) -> Result<()> {
        self.set(name, LinkAttribute::IfAlias(alias.to_owned()), "set alias of")
    }

    /// Sets the hardware address of a link.
    pub fn set_mac(&self, name: &str, mac: [u8; 6]) -> Result<()> {
        self.set(name, LinkAttribute::Address(mac.to_vec()), "set hardware address of")
    }

    /// Gives a link another name; older kernels want it down.
    pub fn rename(&self, name: &str, new_name: &str) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = self.index(name)?;
        message.attributes.push(LinkAttribute::IfName(new_name.to_owned()));
        self.change(name, message, "rename")
    }

    /// Deletes a link, with the other end of a veth pair. Absent is success.
    pub fn destroy_link(&self, name: &str) -> Result<()> {
        let message = RouteNetlinkMessage::DelLink(named(name));
        absent_is_success(self.request(message, 0, "delete", &format!("interface {name}")))
    }

    fn set(&self, name: &str, attribute: LinkAttribute, call: &'static str) -> Result<()> {
        let mut message = named(name);
        message.attributes.push(attribute);
        self.change(name, message, call)
    }

    fn change(&self, name: &str, message: LinkMessage, call: &'static str) -> Result<()> {
        let message = RouteNetlinkMessage::SetLink(message);
        self.request(message, 0, call, &format!("interface {name}"))
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::Controller(master) => link.master = Some(master),
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::LinkInfo(infos) => {
                link.kind = infos.into_iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::namespace::{Namespace, open_own, unshare};
    use crate::testing::isolated;
    use std::os::fd::AsFd;

    #[test]
    fn a_bridge_is_labelled_and_made_once() {
        isolated(|| {
            let route = Route::open().unwrap();
            let bridge = route.ensure_bridge("test0", "bivouac:a").unwrap();
            assert_eq!(route.ensure_bridge("test0", "bivouac:b").unwrap().index, bridge.index);
            route.set_mtu("test0", 1400).unwrap();
            route.set_mac("test0", [2, 0, 0, 0, 0, 9]).unwrap();
            route.set_up("test0", true).unwrap();
            let link = route.link("test0").unwrap().unwrap();
            assert_eq!(link.alias.as_deref(), Some("bivouac:b"));
            assert_eq!(link.kind.as_deref(), Some("bridge"));
            assert_eq!((link.mtu, link.up, link.mac), (1400, true, Some([2, 0, 0, 0, 0, 9])));
            route.set_up("test0", false).unwrap();
            route.rename("test0", "test1").unwrap();
            assert_eq!(route.link("test0").unwrap(), None);
            route.destroy_link("test1").unwrap();
            route.destroy_link("test1").unwrap();
        });
    }

    #[test]
    fn a_pair_joins_host_and_container() {
        isolated(|| {
            let host = Route::open().unwrap();
            unshare(&[Namespace::Network]).unwrap();
            let container = Route::open().unwrap();
            let namespace = open_own(Namespace::Network).unwrap();
            // Some kernels make tunnels in each.
            let inside = Route::open_in(namespace.as_fd()).unwrap();
            assert_eq!(inside.links().unwrap(), container.links().unwrap());
            host.ensure_bridge("br", "x").unwrap();
            let request = VethRequest {
                name: "outside",
                peer_name: "eth0",
                peer: Peer::Namespace(namespace.as_fd()),
                alias: "bivouac:node",
                mtu: Some(1450),
            };
            host.create_veth(request).unwrap();
            let again = host.create_veth(request).unwrap_err();
            assert_eq!(again.errno(), Some(Errno::EXIST.raw_os_error()));
            host.set_master("outside", "br").unwrap();
            let outside = host.link("outside").unwrap().unwrap();
            assert_eq!(outside.master, Some(host.index("br").unwrap()));
            assert_eq!((outside.mtu, outside.kind.as_deref()), (1450, Some("veth")));
            assert_eq!(outside.alias.as_deref(), Some("bivouac:node"));
            assert!(host.link("eth0").unwrap().is_none());
            container.set_up("eth0", true).unwrap();
            host.destroy_link("outside").unwrap();
            assert!(container.link("eth0").unwrap().is_none());
        });
    }

    #[test]
    fn errors_name_the_interface_and_carry_the_kernels_words() {
        isolated(|| {
            let route = Route::open().unwrap();
            let error = route.set_up("nothing", true).unwrap_err();
            assert_eq!(error.to_string(), "set state of interface nothing failed");
            assert!(error.is_absent());
            let error =
                route.set_mtu("lo", 1).and_then(|()| route.set_master("lo", "lo")).unwrap_err();
            assert_eq!(error.object(), "interface lo");
            let error = route.ensure_bridge("lo", "x").unwrap_err();
            assert_eq!(error.cause().to_string(), "another interface has this name already");
        });
    }
}
