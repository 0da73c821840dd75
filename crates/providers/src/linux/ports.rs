//! Ports of nodes that are published on the host, by rules of the cluster's own table and without a process.
//!
//! Rules make no sockets, so a port can be taken by a socket or by the table of another cluster, and both are looked at. A port
//! of the host that the ground may choose needs no rule: nodes are reached at their own addresses here.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use bivouac_provider::NetworkRequest;
use bivouac_spec::cluster::Protocol;
use bivouac_spec::{Class, ClusterName, Problem, PublishedPort};
use bivouac_sys::nft;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use super::problem::{OrProblem as _, failed, join};
use super::{names, sockets};

/// What the comment of a rule starts with.
const COMMENT: &str = "port ";

/// A port of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HostPort {
    pub(super) address: SocketAddr,
    pub(super) protocol: Protocol,
}

/// A port of the host, and where what comes to it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) from: HostPort,
    pub(super) to: SocketAddr,
}

impl HostPort {
    /// How its rules are found again.
    pub(super) fn comment(&self) -> String {
        format!("{COMMENT}{self}")
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Whether the kernel must route loopback addresses for it, as it does of IPv4.
    pub(super) fn has_loopback(&self) -> bool {
        self.address.is_ipv4() && (self.is_loopback() || self.address.ip().is_unspecified())
    }

    /// Whether one socket could not have both.
    fn overlaps(&self, other: &Self) -> bool {
        let (one, two) = (self.address.ip(), other.address.ip());
        self.protocol == other.protocol
            && one.is_ipv4() == two.is_ipv4()
            && self.address.port() == other.address.port()
            && (one == two || one.is_unspecified() || two.is_unspecified())
    }

    /// Takes it for a moment. With IPv6, only that: who has the port at the IPv4 addresses is not in the way.
    fn bind(&self) -> io::Result<()> {
        let (family, ip) = match self.address {
            SocketAddr::V4(_) => (AddressFamily::INET, true),
            SocketAddr::V6(_) => (AddressFamily::INET6, false),
        };
        let kind = match self.protocol {
            Protocol::Tcp => SocketType::STREAM,
            Protocol::Udp => SocketType::DGRAM,
        };
        let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        if !ip {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        if self.protocol == Protocol::Tcp {
            // Connections that have just ended keep nobody from listening.
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        net::bind(&socket, &self.address)?;
        if self.protocol == Protocol::Tcp {
            net::listen(&socket, 1)?;
        }
        Ok(())
    }
}

/// `127.0.0.1:8080/tcp`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.protocol.name())
    }
}

impl FromStr for HostPort {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, protocol) = text.split_once('/').ok_or(())?;
        let mut protocols = [Protocol::Tcp, Protocol::Udp].into_iter();
        let protocol = protocols.find(|one| one.name() == protocol).ok_or(())?;
        Ok(Self { address: address.parse().map_err(|_| ())?, protocol })
    }
}

/// What the rules forward.
pub(super) fn forwards(request: &NetworkRequest) -> Result<Vec<Forward>, Problem> {
    let chosen = |port: &PublishedPort| {
        let host_port = port.host_port?;
        Some(forward(request, port, port.host_ip.unwrap_or_else(|| usual(request)), host_port))
    };
    let mut problems = Vec::new();
    let forwards = request.ports.iter().filter_map(chosen);
    let forwards = forwards.filter_map(|one| one.map_err(|problem| problems.push(problem)).ok());
    let forwards = forwards.collect();
    join(problems).map(|()| forwards)
}

/// An address at which a port is reached from here: of an IPv6 cluster, the one that the host has on its network.
fn usual(request: &NetworkRequest) -> IpAddr {
    let mut gateways = request.addresses.node_networks.iter().map(|own| own.gateway);
    if gateways.any(|gateway| gateway.is_ipv4()) {
        IpAddr::from([127, 0, 0, 1])
    } else {
        request.addresses.primary().gateway
    }
}

fn forward(
    request: &NetworkRequest,
    port: &PublishedPort,
    host_ip: IpAddr,
    host_port: u16,
) -> Result<Forward, Problem> {
    let (cluster, node) = (&request.cluster, &port.node);
    let Some(own) = request.addresses.nodes.get(node) else {
        let message =
            format!("node {node} of cluster {cluster} has no address to publish a port of");
        return Err(failed("no_address", message));
    };
    let cannot =
        format!("cluster {cluster} cannot publish port {} of node {node} at {host_ip}", port.port);
    let Some(to) = own.addresses.iter().find(|own| own.is_ipv6() == host_ip.is_ipv6()) else {
        let (lacks, has) = if host_ip.is_ipv6() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
        let message = format!("{cannot}: its nodes have no {lacks} address");
        return Err(Problem::usage("provider.linux.port_family", message).help(format!(
            "write an {has} address as `hostIP` in the cluster file, or add {lacks} to `spec.network.ipFamilies` of a new cluster"
        )));
    };
    if host_ip.is_ipv6() && host_ip.is_loopback() {
        let message = format!("{cannot}: from there the kernel forwards nothing to nodes");
        let four = own.addresses.iter().any(IpAddr::is_ipv4);
        return Err(Problem::usage("provider.linux.loopback_port", message).help(format!(
            "write {}another address of the host, or `::` for all of its IPv6 addresses as `hostIP` in the cluster file",
            if four { "127.0.0.1, " } else { "" }
        )));
    }
    let from = HostPort { address: SocketAddr::new(host_ip, host_port), protocol: port.protocol };
    Ok(Forward { from, to: SocketAddr::new(*to, port.port) })
}

/// Refuses ports that somebody else has, and addresses that the host has not.
pub(super) fn check_free(cluster: &ClusterName, forwards: &[Forward]) -> Result<(), Problem> {
    if forwards.is_empty() {
        return Ok(());
    }
    let own = published(cluster)?;
    let others = others(cluster)?;
    let check = |one: &Forward| match others.iter().find(|(_, port)| port.overlaps(&one.from)) {
        Some((other, _)) => Err(taken(cluster, one.from, &format!("cluster {other} publishes it"))),
        // Whoever listens there since is nobody whom this cluster keeps from anything new.
        None if own.contains(&one.from) => Ok(()),
        None => check_socket(cluster, one.from),
    };
    join(forwards.iter().filter_map(|one| check(one).err()).collect())
}

/// Refuses ports that another cluster publishes.
pub(super) fn check_unclaimed(cluster: &ClusterName, forwards: &[Forward]) -> Result<(), Problem> {
    let others = others(cluster)?;
    let check = |one: &Forward| {
        let (other, _) = others.iter().find(|(_, port)| port.overlaps(&one.from))?;
        Some(taken(cluster, one.from, &format!("cluster {other} publishes it")))
    };
    join(forwards.iter().filter_map(check).collect())
}

fn check_socket(cluster: &ClusterName, port: HostPort) -> Result<(), Problem> {
    let address = port.address;
    match port.bind() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let user = match sockets::user(port) {
                Some(user) => format!("{user} uses it"),
                None => "it is in use".to_owned(),
            };
            Err(taken(cluster, port, &user))
        }
        Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
            let message = format!(
                "cluster {cluster} cannot publish {port}: the host has no address {}",
                address.ip()
            );
            Err(Problem::new(Class::Unfit, "provider.linux.no_host_address", message).help(
                "write an address of the host as `hostIP` in the cluster file, or 0.0.0.0 (`::` of IPv6) for all of them",
            ))
        }
        other => other
            .or_problem("port", format_args!("whether {port} is free on the host cannot be told")),
    }
}

fn taken(cluster: &ClusterName, port: HostPort, why: &str) -> Problem {
    let message = format!("cluster {cluster} cannot publish {port}: {why}");
    Problem::new(Class::Unfit, "provider.linux.port_taken", message)
        .help("choose another `hostPort` under `spec.ports` of the cluster file")
}

/// What every other cluster of this machine publishes, also those of other state folders.
fn others(cluster: &ClusterName) -> Result<Vec<(ClusterName, HostPort)>, Problem> {
    let tables = nft::list_tables().or_problem("rules", "the nftables tables cannot be listed")?;
    let clusters = tables.iter().filter_map(|one| names::cluster_of_table(&one.family, &one.name));
    let mut found = Vec::new();
    for other in clusters.filter(|other| other != cluster) {
        found.extend(published(&other)?.into_iter().map(|port| (other.clone(), port)));
    }
    Ok(found)
}

/// What a cluster publishes.
fn published(cluster: &ClusterName) -> Result<Vec<HostPort>, Problem> {
    let text = nft::read_table(names::TABLE_FAMILY, &names::table(cluster)).or_problem(
        "rules",
        format_args!("the nftables table of cluster {cluster} cannot be read"),
    )?;
    Ok(parse(&text.unwrap_or_default()))
}

/// The ports that the rules of a table name in their comments.
fn parse(table: &str) -> Vec<HostPort> {
    let comments = table.split('"').filter_map(|text| text.strip_prefix(COMMENT)?.parse().ok());
    let mut ports: Vec<HostPort> = Vec::new();
    for port in comments {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    ports
}

#[cfg(test)]
mod tests;
