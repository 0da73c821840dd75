//! Networks for a second cluster beside the first.

use std::collections::BTreeMap;

use bivouac_plan::assign_addresses;
use bivouac_spec::{Addresses, Cluster, Problems};
use ipnet::IpNet;

/// New networks for nodes and pods. Services keep theirs: they are in the cluster's objects, and nobody outside the nodes sees them.
pub(super) fn choose(
    cluster: &Cluster,
    before: &Addresses,
    mut occupied: BTreeMap<IpNet, String>,
    existing: Option<&Addresses>,
) -> Result<Addresses, Problems> {
    let services = &before.service_networks;
    for own in services {
        occupied =
            occupied.into_iter().flat_map(|(network, by)| without(network, own, &by)).collect();
    }
    let mut asked = cluster.clone();
    asked.spec.network.service_cidr.clone_from(services);
    let mut taken = before.networks().map(|network| (network, "the first cluster".to_owned()));
    occupied.extend(taken.by_ref());
    assign_addresses(&asked, &occupied, existing)
}

/// What of an occupied network is beside one that is part of it, or all of it where they have nothing in common.
fn without(network: IpNet, own: &IpNet, by: &str) -> Vec<(IpNet, String)> {
    let mut left = Vec::new();
    if own.contains(&network) {
        return left;
    }
    if !network.contains(own) {
        return vec![(network, by.to_owned())];
    }
    let mut part = own.trunc();
    while part.prefix_len() > network.prefix_len() {
        let Some(whole) = part.supernet() else { break };
        let halves = whole.subnets(part.prefix_len()).into_iter().flatten();
        left.extend(halves.filter(|half| *half != part).map(|half| (half, by.to_owned())));
        part = whole;
    }
    // Whatever leads everywhere belongs to nobody.
    if network.prefix_len() == 0 { Vec::new() } else { left }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beside_the_own_services_stays_occupied() {
        let left = |network: &str| {
            let own = "10.96.0.0/16".parse().unwrap();
            let left = without(network.parse().unwrap(), &own, "somebody");
            left.into_iter().map(|(network, _)| network.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(left("10.96.3.0/24"), [""; 0]);
        assert_eq!(left("10.96.0.0/16"), [""; 0]);
        assert_eq!(left("0.0.0.0/0"), [""; 0]);
        assert_eq!(left("10.89.0.0/24"), ["10.89.0.0/24"]);
        assert_eq!(left("fd00::/64"), ["fd00::/64"]);
        assert_eq!(left("10.96.0.0/14"), ["10.97.0.0/16", "10.98.0.0/15"]);
    }
}
