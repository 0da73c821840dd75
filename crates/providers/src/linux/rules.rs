//! The nftables table of a cluster, as text. Pure.
//!
//! There is no chain that accepts forwarded packets: an `accept` ends only the chain that it is in, so it would not help against
//! a `drop` of somebody else's. The survey finds such a chain and says what to do.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use bivouac_spec::{Addresses, ClusterName};
use ipnet::IpNet;

use super::names;

/// The ruleset that makes the table what it must be, whether or not it is there.
pub(super) fn render(
    cluster: &ClusterName,
    addresses: &Addresses,
    resolver: Option<Ipv4Addr>,
) -> String {
    let (family, table, bridge) =
        (names::TABLE_FAMILY, names::table(cluster), names::bridge(cluster));
    let mut text = format!(
        "table {family} {table}\ndelete table {family} {table}\ntable {family} {table} {{\n"
    );
    render_egress(&mut text, addresses, &bridge);
    if let (Some(server), IpAddr::V4(gateway)) = (resolver, addresses.gateway) {
        render_resolver(&mut text, &bridge, gateway, server);
    }
    text.push_str("}\n");
    text
}

/// What leaves the cluster leaves with the host's address.
fn render_egress(text: &mut String, addresses: &Addresses, bridge: &str) {
    text.push_str(
        "\tchain egress {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n",
    );
    let networks = std::iter::once(&addresses.node_network).chain(&addresses.pod_networks);
    for network in networks {
        let family = if matches!(network, IpNet::V4(_)) { "ip" } else { "ip6" };
        let _ = writeln!(
            text,
            "\t\t{family} saddr {} oifname != \"{bridge}\" masquerade",
            network.trunc()
        );
    }
    text.push_str("\t}\n");
}

/// Questions to the gateway go to the host's own server. Nothing else on the host's loopback interface may be reached from
/// nodes, nor may anything pretend to come from it, although the kernel then routes such addresses.
fn render_resolver(text: &mut String, bridge: &str, gateway: Ipv4Addr, server: Ipv4Addr) {
    let _ = write!(
        text,
        "\tchain guard {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n\
         \t\tiifname \"{bridge}\" ip saddr 127.0.0.0/8 drop\n\t}}\n\
         \tchain resolver {{\n\t\ttype nat hook prerouting priority dstnat; policy accept;\n"
    );
    for protocol in ["udp", "tcp"] {
        let _ = writeln!(
            text,
            "\t\tiifname \"{bridge}\" ip daddr {gateway} {protocol} dport 53 dnat ip to {server}:53"
        );
    }
    text.push_str("\t}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_and_asking() {
        let cluster = "demo".parse().unwrap();
        let mut addresses = crate::linux::samples::addresses(1);
        addresses.pod_networks.push("fd00:244::/56".parse().unwrap());
        let rules = render(&cluster, &addresses, Some(Ipv4Addr::new(127, 0, 0, 11)));
        insta::assert_snapshot!(rules);
        assert!(!render(&cluster, &addresses, None).contains("resolver"));
    }
}
