//! Names: what nodes find in `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use bivouac_spec::network::Families;

/// Where the host says how it resolves names.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The same with the real servers, where systemd-resolved answers on a loopback address.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// How the host resolves names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    /// Servers that can be reached from anywhere.
    pub(super) servers: Vec<IpAddr>,
    /// A server that answers on the host's loopback interface only. Nodes reach it through their gateway.
    pub(super) local: Option<Ipv4Addr>,
    /// `search` and `options` lines, as they are.
    settings: Vec<String>,
}

impl Resolver {
    /// As the host is set up now.
    pub(super) fn detect() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::choose(&read(RESOLV_CONF), &read(RESOLVED))
    }

    fn choose(resolv_conf: &str, resolved: &str) -> Self {
        let own = Self::parse(resolv_conf);
        if !own.servers.is_empty() || own.local.is_none() {
            return own;
        }
        let behind = Self::parse(resolved);
        if behind.servers.is_empty() { own } else { behind }
    }

    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => match server.parse::<IpAddr>() {
                    Ok(IpAddr::V4(address)) if address.is_loopback() => {
                        resolver.local.get_or_insert(address);
                    }
                    Ok(IpAddr::V6(address)) if address.is_loopback() => {}
                    Ok(address) => resolver.servers.push(address),
                    // With a zone (`fe80::1%eth0`), which means nothing in a node.
                    Err(_) => {}
                },
                (Some("search" | "domain" | "options"), Some(_)) => {
                    resolver.settings.push(line.trim().to_owned());
                }
                _ => {}
            }
        }
        resolver
    }

    /// The loopback server to which the gateway must pass questions, if nodes depend on it.
    pub(super) fn forwarded(&self) -> Option<Ipv4Addr> {
        self.local.filter(|_| self.servers.is_empty())
    }

    /// The `/etc/resolv.conf` of nodes behind these gateways, the preferred one first.
    pub(super) fn render(&self, gateways: &Families<IpAddr>) -> String {
        let mut text = String::new();
        let is_reached =
            |server: &&IpAddr| gateways.iter().any(|gateway| gateway.is_ipv6() == server.is_ipv6());
        let through = self.forwarded().and_then(|_| gateways.iter().find(|one| one.is_ipv4()));
        for server in self.servers.iter().filter(is_reached).chain(through) {
            let _ = writeln!(text, "nameserver {server}");
        }
        if text.is_empty() {
            // CoreDNS does not start without a server. Nobody answers there, and the kernel says so at once.
            let _ = writeln!(text, "nameserver {}", gateways.primary);
        }
        for line in &self.settings {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: Families<IpAddr> = Families::single(IpAddr::V4(Ipv4Addr::new(10, 89, 0, 1)));

    #[test]
    fn servers_that_nodes_can_reach_are_taken_as_they_are() {
        let text = "# made by hand\nnameserver 9.9.9.9\nnameserver 127.0.0.1\nsearch a.b c\noptions ndots:2\n";
        let resolver = Resolver::choose(text, "nameserver 1.1.1.1");
        assert_eq!(resolver.forwarded(), None);
        assert_eq!(
            resolver.render(&GATEWAY),
            "nameserver 9.9.9.9\nsearch a.b c\noptions ndots:2\n"
        );
    }

    #[test]
    fn behind_systemd_resolved_are_the_real_ones() {
        let resolver =
            Resolver::choose("nameserver 127.0.0.53\n", "nameserver 1.1.1.1\nsearch x\n");
        assert_eq!(resolver.render(&GATEWAY), "nameserver 1.1.1.1\nsearch x\n");
    }

    #[test]
    fn another_local_server_is_reached_through_the_gateway() {
        let resolver = Resolver::choose("nameserver ::1\nnameserver 127.0.0.11\nsearch x\n", "");
        assert_eq!(resolver.forwarded(), Some(Ipv4Addr::new(127, 0, 0, 11)));
        assert_eq!(resolver.render(&GATEWAY), "nameserver 10.89.0.1\nsearch x\n");
    }

    #[test]
    fn without_servers_the_gateway_refuses() {
        for text in ["", "nameserver ::1\n", "nameserver fe80::1%eth0\n"] {
            let resolver = Resolver::choose(text, "nameserver 1.1.1.1");
            assert_eq!(resolver.forwarded(), None);
            assert_eq!(resolver.render(&GATEWAY), "nameserver 10.89.0.1\n");
        }
    }

    #[test]
    fn only_servers_of_a_family_that_nodes_have_are_asked() {
        let v6: IpAddr = "fd00:89::1".parse().unwrap();
        let text = "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n";
        let resolver = Resolver::choose(text, "");
        assert_eq!(resolver.render(&GATEWAY), "nameserver 9.9.9.9\n");
        assert_eq!(resolver.render(&Families::single(v6)), "nameserver 2620:fe::fe\n");
        let both = Families { primary: v6, secondary: Some(GATEWAY.primary) };
        assert_eq!(resolver.render(&both), text);
        // The way to a server on the host's loopback interface is an IPv4 one.
        let resolver = Resolver::choose("nameserver 127.0.0.11\n", "");
        assert_eq!(resolver.render(&both), "nameserver 10.89.0.1\n");
        assert_eq!(resolver.render(&Families::single(v6)), "nameserver fd00:89::1\n");
    }
}
