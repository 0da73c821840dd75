//! What interfaces of ours are like where the kernel has IPv6.

use std::net::IpAddr;
use std::path::Path;

use bivouac_sys::sysctl;
use ipnet::IpNet;

/// Whether the kernel has IPv6.
pub(super) fn is_there() -> bool {
    Path::new("/proc/sys/net/ipv6/conf").exists()
}

/// Keeps an interface of the caller's network namespace from taking addresses and routes from anybody who announces some: all of
/// them are assigned. Where it has IPv6 addresses, it is also made to use them.
pub(super) fn settle(interface: &str, has_addresses: bool) -> bivouac_sys::Result<()> {
    if !is_there() {
        return Ok(());
    }
    let set = |parameter: &str, value: &str| {
        sysctl::ensure(&format!("net/ipv6/conf/{interface}/{parameter}"), value).map(drop)
    };
    let settled = [("accept_ra", "0"), ("autoconf", "0"), ("accept_dad", "0")]
        .into_iter()
        .try_for_each(|(parameter, value)| set(parameter, value));
    if !has_addresses {
        // Nothing depends on it where parameters cannot be changed, as in some containers.
        return Ok(());
    }
    settled?;
    set("disable_ipv6", "0")
}

/// The kernel gives every interface such an address.
pub(super) fn is_link_local(address: &IpNet) -> bool {
    matches!(address.addr(), IpAddr::V6(address) if address.is_unicast_link_local())
}
