//! Networks that this machine uses, whatever the ground.

use std::collections::BTreeMap;

use bivouac_sys::netlink::{Link, Route};
use ipnet::IpNet;

/// Networks that are in use, and for what. `owner` tells of a link whose it is, where it is a cluster's: a cluster's own networks
/// are no obstacle to it.
pub(crate) fn occupied(
    owner: impl Fn(&Link) -> Option<String>,
) -> bivouac_sys::Result<BTreeMap<IpNet, String>> {
    let route = Route::open()?;
    let links = route.links()?;
    let mut occupied = BTreeMap::new();
    for one in route.routes()? {
        let name = one.interface.as_deref().unwrap_or_default();
        let link = links.iter().find(|link| link.name == name);
        let text = link.and_then(&owner).unwrap_or_else(|| format!("route through {name}"));
        occupied.entry(one.destination.trunc()).or_insert(text);
    }
    for one in route.addresses()? {
        let link = links.iter().find(|link| link.index == one.link);
        let name = link.map_or("?", |link| link.name.as_str());
        let text = link.and_then(&owner).unwrap_or_else(|| format!("address of {name}"));
        occupied.entry(one.address.trunc()).or_insert(text);
    }
    // A default route leads everywhere and takes nothing; loopback and link-local addresses are never given to clusters.
    occupied.retain(|network, _| network.prefix_len() > 0 && !is_reserved(network));
    Ok(occupied)
}

fn is_reserved(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_loopback() || network.addr().is_link_local(),
        IpNet::V6(network) => {
            network.addr().is_loopback() || network.addr().is_unicast_link_local()
        }
    }
}
