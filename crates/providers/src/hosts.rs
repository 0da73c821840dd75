//! What nodes find in `/etc/hosts`, whatever the ground.

use std::fmt::Write as _;

use bivouac_spec::{Addresses, ClusterName, NodeName};

/// The `/etc/hosts` of a node: every node of the cluster by `NODE` and `NODE.CLUSTER`.
pub(crate) fn render_hosts(cluster: &ClusterName, own: &NodeName, addresses: &Addresses) -> String {
    let mut text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n".to_owned();
    // The own name first: it is what programs take for the host's full name.
    let (first, others): (Vec<_>, Vec<_>) =
        addresses.nodes.iter().partition(|(name, _)| *name == own);
    for (name, node) in first.into_iter().chain(others) {
        for address in node.addresses.iter() {
            let _ = writeln!(text, "{address} {name} {name}.{cluster}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_each_other_by_name() {
        let addresses = crate::samples::addresses(3);
        let hosts =
            render_hosts(&"demo".parse().unwrap(), &"worker-1".parse().unwrap(), &addresses);
        insta::assert_snapshot!(hosts, @r"
        127.0.0.1 localhost
        ::1 localhost ip6-localhost ip6-loopback
        10.89.7.3 worker-1 worker-1.demo
        10.89.7.2 worker-0 worker-0.demo
        10.89.7.4 worker-2 worker-2.demo
        ");
    }

    #[test]
    fn names_have_an_address_of_each_family() {
        let addresses = crate::samples::dual_stack(2);
        let hosts =
            render_hosts(&"demo".parse().unwrap(), &"worker-1".parse().unwrap(), &addresses);
        insta::assert_snapshot!(hosts, @r"
        127.0.0.1 localhost
        ::1 localhost ip6-localhost ip6-loopback
        10.89.7.3 worker-1 worker-1.demo
        fd00:89::3 worker-1 worker-1.demo
        10.89.7.2 worker-0 worker-0.demo
        fd00:89::2 worker-0 worker-0.demo
        ");
    }
}
