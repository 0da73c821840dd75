//! The nftables table of a cluster, as text. Pure.
//!
//! There is no chain that accepts forwarded packets: an `accept` ends only the chain that it is in, so it would not help against
//! a `drop` of somebody else's. See `passage`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use bivouac_spec::{Addresses, ClusterName};

use super::names;
use super::ports::Forward;

/// The ruleset that makes the table what it must be, whether or not it is there.
pub(super) fn render(
    cluster: &ClusterName,
    addresses: &Addresses,
    resolver: Option<Ipv4Addr>,
    forwards: &[Forward],
) -> String {
    let (family, table, bridge) =
        (names::TABLE_FAMILY, names::table(cluster), names::bridge(cluster));
    let mut text = format!(
        "table {family} {table}\ndelete table {family} {table}\ntable {family} {table} {{\n"
    );
    render_leaving(&mut text, addresses, &bridge, !forwards.is_empty());
    render_guard(&mut text, &bridge);
    let mut arriving = String::new();
    let gateway = addresses.node_networks.iter().find_map(|own| match own.gateway {
        IpAddr::V4(gateway) => Some(gateway),
        IpAddr::V6(_) => None,
    });
    if let (Some(server), Some(gateway)) = (resolver, gateway) {
        render_resolver(&mut arriving, &bridge, gateway, server);
    }
    forwards.iter().for_each(|one| render_arriving(&mut arriving, one));
    render_chain(&mut text, "arriving", "prerouting", &arriving);
    let mut own = String::new();
    forwards.iter().for_each(|one| render_own(&mut own, one));
    render_chain(&mut text, "own", "output", &own);
    text.push_str("}\n");
    text
}

/// A chain that gives packets another destination, at the priority that `nft` calls `dstnat`, though not in every hook. One for
/// each hook, so that the order is that of the rules.
fn render_chain(text: &mut String, name: &str, hook: &str, rules: &str) {
    if !rules.is_empty() {
        let _ = writeln!(
            text,
            "\tchain {name} {{\n\t\ttype nat hook {hook} priority -100; policy accept;\n{rules}\t}}"
        );
    }
}

/// What leaves the cluster leaves with the host's address. What comes through a published port from the cluster itself, or from
/// the host's loopback interface, must come from the gateway, or else the answers would not find back.
fn render_leaving(text: &mut String, addresses: &Addresses, bridge: &str, publishes: bool) {
    text.push_str(
        "\tchain egress {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n",
    );
    let networks =
        addresses.node_networks.iter().map(|own| &own.network).chain(&addresses.pod_networks);
    for network in networks {
        let source = format!("{} saddr {}", family(network.addr()), network.trunc());
        let _ = writeln!(text, "\t\t{source} oifname != \"{bridge}\" masquerade");
        if publishes {
            let _ = writeln!(text, "\t\t{source} oifname \"{bridge}\" ct status dnat masquerade");
        }
    }
    if publishes {
        let _ = writeln!(text, "\t\tip saddr 127.0.0.0/8 oifname \"{bridge}\" masquerade");
    }
    text.push_str("\t}\n");
}

/// Nothing on the host's loopback interface may be reached from nodes, nor may anything pretend to come from it, although the
/// kernel routes such addresses where a name server or a port of that interface is offered. Answers pass: here they still
/// go to the gateway.
fn render_guard(text: &mut String, bridge: &str) {
    let _ = write!(
        text,
        "\tchain guard {{\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname \"{bridge}\" ip daddr 127.0.0.0/8 drop\n\
         \t\tiifname \"{bridge}\" ip saddr 127.0.0.0/8 drop\n\
         \t\tiifname \"{bridge}\" ip6 daddr ::1 drop\n\
         \t\tiifname \"{bridge}\" ip6 saddr ::1 drop\n\t}}\n"
    );
}

/// Questions to the gateway go to the host's own server.
fn render_resolver(text: &mut String, bridge: &str, gateway: Ipv4Addr, server: Ipv4Addr) {
    for protocol in ["udp", "tcp"] {
        let _ = writeln!(
            text,
            "\t\tiifname \"{bridge}\" ip daddr {gateway} {protocol} dport 53 dnat ip to {server}:53"
        );
    }
}

/// What comes to a published port from elsewhere. Nothing for loopback addresses: here the kernel has not yet dropped
/// packets of strangers that claim to go there.
fn render_arriving(text: &mut String, one: &Forward) {
    let (family, ip) = (family(one.from.address.ip()), one.from.address.ip());
    if ip.is_unspecified() {
        let loopback = if ip.is_ipv4() { "127.0.0.0/8" } else { "::1" };
        render_forward(text, &format!("{family} daddr != {loopback} fib daddr type local"), one);
    } else if !one.from.is_loopback() {
        render_forward(text, &format!("{family} daddr {ip}"), one);
    }
}

/// What the host itself sends to a published port. From `::1` nothing leaves an IPv6 host, whatever its destination becomes.
fn render_own(text: &mut String, one: &Forward) {
    let ip = one.from.address.ip();
    match ip {
        IpAddr::V4(_) if ip.is_unspecified() => {
            render_forward(text, "meta nfproto ipv4 fib daddr type local", one);
        }
        IpAddr::V6(_) if ip.is_unspecified() => {
            render_forward(text, "ip6 daddr != ::1 fib daddr type local", one);
        }
        _ => render_forward(text, &format!("{} daddr {ip}", family(ip)), one),
    }
}

const fn family(ip: IpAddr) -> &'static str {
    match ip {
        IpAddr::V4(_) => "ip",
        IpAddr::V6(_) => "ip6",
    }
}

fn render_forward(text: &mut String, to_host: &str, Forward { from, to }: &Forward) {
    let (protocol, port, comment) = (from.protocol.name(), from.address.port(), from.comment());
    let family = family(to.ip());
    let _ = writeln!(
        text,
        "\t\t{to_host} {protocol} dport {port} dnat {family} to {to} comment \"{comment}\""
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaving_and_asking() {
        let cluster = "demo".parse().unwrap();
        let addresses = crate::samples::dual_stack(1);
        let rules = render(&cluster, &addresses, Some(Ipv4Addr::new(127, 0, 0, 11)), &[]);
        insta::assert_snapshot!(rules);
        assert!(!render(&cluster, &addresses, None, &[]).contains("arriving"));
        // There is no way from an IPv6 address to an IPv4 one.
        let addresses = crate::samples::ipv6(1);
        let server = Some(Ipv4Addr::new(127, 0, 0, 11));
        let rules = render(&cluster, &addresses, server, &[]);
        assert!(!rules.contains("arriving") && !rules.contains("ip saddr 10."), "{rules}");
    }

    #[test]
    fn publishing() {
        let forward =
            |from: &str, to: &str| Forward { from: from.parse().unwrap(), to: to.parse().unwrap() };
        let forwards = [
            forward("127.0.0.1:36443/tcp", "10.89.7.2:6443"),
            forward("0.0.0.0:53/udp", "10.89.7.3:30053"),
            forward("192.168.1.2:80/tcp", "10.89.7.3:30080"),
            forward("[::]:53/udp", "[fd00:89::3]:30053"),
            forward("[2001:db8::2]:80/tcp", "[fd00:89::3]:30080"),
        ];
        let addresses = crate::samples::dual_stack(2);
        let rules = render(&"demo".parse().unwrap(), &addresses, None, &forwards);
        insta::assert_snapshot!(rules);
    }
}
