//! A DNS server on the loopback interface, offered at the node's own address.
//!
//! Container engines answer at 127.0.0.11 in each container of a network. Pods have a loopback interface of their own, so the node
//! takes questions to its address and passes them on:
//!
//! ```text
//! pod --> ADDRESS:53 --[prerouting]--+
//!                                    +--> 127.0.0.11:PORT, where the engine listens
//! node --> ADDRESS:53 ---[output]----+
//! ```
//!
//! The engine listens on ports of its choice and translates 53 to them by rules of its own; a packet is translated once only, so
//! ours must name those ports. They are what is bound to that address, as `/proc/net` tells. Both change when the container starts
//! again: this is then done anew.
//!
//! A node of IPv6 alone asks for its pods ([`relay`]).

mod relay;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bivouac_sys::netlink::Route;
use bivouac_sys::{nft, sysctl};

use super::{files, sentence};
use crate::apply::Applied;
use crate::options::Places;

const PATH: &str = "/etc/resolv.conf";

/// Before the server that is behind ours: an engine that finds the file changed may leave it as it is when the container starts again.
const NOTE: &str = "# bivouac passes questions on to ";

/// Of each family there is one at most.
const TABLE: &str = "bivouac-resolver";

/// Where the engine's server listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Server {
    address: Ipv4Addr,
    udp: u16,
    tcp: Option<u16>,
}

/// Why it is not offered.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{PATH} cannot be {what}: {source}")]
    File { what: &'static str, source: io::Error },
    #[error("nothing listens on {0}, which {PATH} names")]
    Silent(Ipv4Addr),
    #[error("nothing can be asked at {address}: {source}")]
    Relay { address: Ipv6Addr, source: io::Error },
    #[error("{}", sentence(.0))]
    Kernel(#[from] bivouac_sys::Error),
}

/// Offers the server at `address`, if `/etc/resolv.conf` names one on the loopback interface. A failure is a warning.
pub(super) fn ensure(address: IpAddr, places: &Places, applied: &mut Applied) {
    if let Err(error) = offer(address, places, applied) {
        applied
            .warnings
            .push(format!("names of the outside world may not resolve in pods: {error}"));
    }
}

fn offer(address: IpAddr, places: &Places, applied: &mut Applied) -> Result<(), Error> {
    let path = places.inside(PATH.into());
    let text = fs::read_to_string(&path).map_err(|source| Error::File { what: "read", source })?;
    let Some(behind) = behind(&text, address) else { return Ok(()) };
    let outside = interfaces_with(address)?;
    match address {
        IpAddr::V4(offered) => {
            let server = find(behind).ok_or(Error::Silent(behind))?;
            nft::load(&render_rules(offered, server, &outside))?;
            // Without it the kernel refuses to route to a loopback address from another interface.
            sysctl::ensure("net.ipv4.conf.all.route_localnet", "1")?;
        }
        IpAddr::V6(offered) => {
            nft::load(&render_guard(offered, &outside))?;
            relay::ensure(offered, behind)
                .map_err(|source| Error::Relay { address: offered, source })?;
        }
    }
    let changed = files::write_in_place(&path, &render_file(&text, address, behind))
        .map_err(|source| Error::File { what: "written", source })?;
    if changed {
        applied.changes.push(format!("file {PATH}"));
    }
    Ok(())
}

/// The loopback server that the file names, or that is behind ours as we noted it.
fn behind(text: &str, offered: IpAddr) -> Option<Ipv4Addr> {
    let servers = || text.lines().filter_map(server_of);
    let local = servers().find_map(|server| match server {
        IpAddr::V4(server) if server.is_loopback() => Some(server),
        _ => None,
    });
    let noted = || text.lines().find_map(|line| line.strip_prefix(NOTE)?.trim().parse().ok());
    local.or_else(|| servers().any(|server| server == offered).then(noted)?)
}

fn server_of(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next()? == "nameserver").then(|| words.next()?.parse().ok())?
}

/// The file with our address in place of the loopback server; everything else stays.
fn render_file(text: &str, offered: IpAddr, behind: Ipv4Addr) -> String {
    let mut new = format!("{NOTE}{behind}\nnameserver {offered}\n");
    for line in text.lines().filter(|line| !line.starts_with(NOTE)) {
        let replaced =
            server_of(line).is_some_and(|server| server.is_loopback() || server == offered);
        if !replaced {
            let _ = writeln!(new, "{line}");
        }
    }
    new
}

/// The names of interfaces that have the address. Who asks through them is no pod of this node.
fn interfaces_with(address: IpAddr) -> bivouac_sys::Result<Vec<String>> {
    let route = Route::open()?;
    let having: Vec<u32> = route
        .addresses()?
        .into_iter()
        .filter(|entry| entry.address.addr() == address)
        .map(|entry| entry.link)
        .collect();
    let links = route.links()?.into_iter().filter(|link| having.contains(&link.index));
    Ok(links.map(|link| link.name).collect())
}

/// The table, whether or not it is there. Nothing else on the loopback interface may be reached from elsewhere, nor may anything
/// pretend to come from it, although the kernel then routes such addresses.
fn render_rules(offered: Ipv4Addr, server: Server, outside: &[String]) -> String {
    let mut text = render_head("ip");
    text.push_str(
        "\tchain guard {\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
         \t\tiifname != \"lo\" ip daddr 127.0.0.0/8 drop\n\
         \t\tiifname != \"lo\" ip saddr 127.0.0.0/8 drop\n\t}\n",
    );
    let outside = outside.iter().map(|name| format!("iifname != \"{name}\" ")).collect::<String>();
    for (chain, hook, from) in [
        ("pods", "prerouting priority -100", outside.as_str()),
        ("node", "output priority -100", ""),
    ] {
        let _ = writeln!(text, "\tchain {chain} {{\n\t\ttype nat hook {hook}; policy accept;");
        let ports = [("udp", Some(server.udp)), ("tcp", server.tcp)];
        for (protocol, port) in ports {
            if let Some(port) = port {
                let to = server.address;
                let _ = writeln!(
                    text,
                    "\t\t{from}ip daddr {offered} {protocol} dport 53 dnat to {to}:{port}"
                );
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

/// The table of the other family: who asks from outside is not answered.
fn render_guard(offered: Ipv6Addr, outside: &[String]) -> String {
    let mut text = render_head("ip6");
    text.push_str("\tchain guard {\n\t\ttype filter hook input priority 0; policy accept;\n");
    for name in outside {
        for protocol in ["udp", "tcp"] {
            let _ = writeln!(
                text,
                "\t\tiifname \"{name}\" ip6 daddr {offered} {protocol} dport 53 drop"
            );
        }
    }
    text.push_str("\t}\n}\n");
    text
}

/// The beginning of a table that takes the place of what there is.
fn render_head(family: &str) -> String {
    format!("table {family} {TABLE}\ndelete table {family} {TABLE}\ntable {family} {TABLE} {{\n")
}

/// Finds the ports on which somebody listens on the address, in the network namespace of the caller.
fn find(address: Ipv4Addr) -> Option<Server> {
    // Not `/proc/net`, which is that of the first thread.
    let read =
        |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    let udp = port_on(&read("udp"), address, None)?;
    Some(Server { address, udp, tcp: port_on(&read("tcp"), address, Some("0A")) })
}

/// The port of a socket in such a table (proc(5)) that is bound to the address and in this state: 53 before others.
fn port_on(table: &str, address: Ipv4Addr, state: Option<&str>) -> Option<u16> {
    // As the kernel prints four bytes of memory as one number.
    let wanted = format!("{:08X}", u32::from_ne_bytes(address.octets()));
    let ports = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, found) = (fields.next()?, fields.next()?, fields.next()?);
        let (local, port) = local.split_once(':')?;
        let fits = local == wanted && state.is_none_or(|state| state == found);
        fits.then(|| u16::from_str_radix(port, 16).ok())?
    });
    ports.min_by_key(|port| (*port != 53, *port))
}

#[cfg(test)]
mod tests;
