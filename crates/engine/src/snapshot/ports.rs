//! Ports of the host, for a second cluster beside one that has them.

use std::net::{IpAddr, TcpListener, UdpSocket};

use bivouac_spec::Problem;
use bivouac_spec::cluster::{Port, Protocol};

/// A port that is held so that it is not chosen twice.
enum Held {
    Tcp(#[expect(dead_code, reason = "the port is held as long as it is open")] TcpListener),
    Udp(#[expect(dead_code, reason = "the port is held as long as it is open")] UdpSocket),
}

/// Gives each port one on the host that is free at this moment; those of an earlier attempt are kept. Says which are where.
///
/// # Errors
/// When none is free.
pub(super) fn replace(ports: &mut [Port], earlier: &[Port]) -> Result<Vec<String>, Problem> {
    let same = |one: &Port, other: &Port| {
        (one.port, &one.node, one.host_ip, one.protocol)
            == (other.port, &other.node, other.host_ip, other.protocol)
    };
    let is_earlier = ports.len() == earlier.len()
        && ports.iter().zip(earlier).all(|(one, other)| same(one, other));
    if is_earlier {
        ports.clone_from_slice(earlier);
        return Ok(ports.iter().map(sentence).collect());
    }
    let mut held = Vec::new();
    for port in ports.iter_mut() {
        let (number, own) = free(port)?;
        port.host_port = number;
        held.push(own);
    }
    Ok(ports.iter().map(sentence).collect())
}

fn sentence(port: &Port) -> String {
    let Port { host_ip, host_port, port: number, protocol, .. } = port;
    let protocol = protocol.name();
    let of = port.node.as_ref().map_or_else(String::new, |node| format!(" of {node}"));
    let at = std::net::SocketAddr::new(*host_ip, *host_port);
    format!(
        "{protocol} port {number}{of} is at {at}, because the one in the cluster file belongs to the first cluster"
    )
}

fn free(port: &Port) -> Result<(u16, Held), Problem> {
    // An address of another machine cannot be tried here: a port that is free on this one is as good a guess as any.
    let any: IpAddr = match port.host_ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let taken = hold(port.host_ip, port.protocol).or_else(|_| hold(any, port.protocol));
    taken.map_err(|error| {
        Problem::failed("fork.no_free_port", "no port of this machine is free").because(&error)
    })
}

fn hold(ip: IpAddr, protocol: Protocol) -> std::io::Result<(u16, Held)> {
    Ok(match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind((ip, 0))?;
            (listener.local_addr()?.port(), Held::Tcp(listener))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((ip, 0))?;
            (socket.local_addr()?.port(), Held::Udp(socket))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, protocol: Protocol) -> Port {
        let host_ip = "127.0.0.1".parse().unwrap();
        Port { host_port: 8080, port: number, node: None, host_ip, protocol }
    }

    #[test]
    fn ports_are_free_and_differ_and_stay() {
        let mut ports = [port(80, Protocol::Tcp), port(81, Protocol::Tcp), port(53, Protocol::Udp)];
        let told = replace(&mut ports, &[]).unwrap();
        assert!(ports[0].host_port != ports[1].host_port && ports[0].host_port != 8080);
        assert!(
            told[2].starts_with(&format!("udp port 53 is at 127.0.0.1:{}", ports[2].host_port))
        );
        let mut again = [port(80, Protocol::Tcp), port(81, Protocol::Tcp), port(53, Protocol::Udp)];
        replace(&mut again, &ports).unwrap();
        assert_eq!(again, ports);
        let mut fewer = [port(80, Protocol::Tcp)];
        replace(&mut fewer, &ports).unwrap();
        assert_ne!(fewer[0].host_port, 8080);
    }
}
