//! Ports of the host, for a second cluster beside one that has them.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use bivouac_spec::cluster::{Port, Protocol};
use bivouac_spec::{Class, Problem, Problems};

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
    replace_by(hold, ports, earlier)
}

/// How a port of this host is had; number 0 stands for any that is free.
type Hold = fn(IpAddr, u16, Protocol) -> std::io::Result<(u16, Held)>;

fn replace_by(hold: Hold, ports: &mut [Port], earlier: &[Port]) -> Result<Vec<String>, Problem> {
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
        let (number, own) = free(hold, port)?;
        port.host_port = number;
        held.push(own);
    }
    Ok(ports.iter().map(sentence).collect())
}

fn sentence(port: &Port) -> String {
    let Port { host_ip, host_port, port: number, protocol, .. } = port;
    let protocol = protocol.name();
    let of = port.node.as_ref().map_or_else(String::new, |node| format!(" of {node}"));
    let at = SocketAddr::new(*host_ip, *host_port);
    format!(
        "{protocol} port {number}{of} is at {at}, because the one in the cluster file belongs to the first cluster"
    )
}

fn free(hold: Hold, port: &Port) -> Result<(u16, Held), Problem> {
    // An address of another machine cannot be tried here: a port that is free on this one is as good a guess as any.
    let any: IpAddr = match port.host_ip {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let taken = hold(port.host_ip, 0, port.protocol).or_else(|_| hold(any, 0, port.protocol));
    taken.map_err(|error| {
        Problem::new(Class::Unfit, "fork.no_free_port", "no port of this machine is free")
            .because(&error)
            .help("end some of what listens there (`ss -lntup` names it), then run the same command again")
    })
}

/// Refuses ports that somebody else has, before what holds none of them is given up. Those that the cluster itself holds are its own.
pub(super) fn refuse_taken(ports: &[Port], held: &[Port]) -> Result<(), Problems> {
    let is_held = |port: &&Port| {
        held.iter().any(|own| (own.host_port, own.protocol) == (port.host_port, port.protocol))
    };
    let taken = ports.iter().filter(|port| !is_held(port)).filter_map(|port| {
        let error = hold(port.host_ip, port.host_port, port.protocol).err()?;
        // An address that is not this machine's is the ground's matter.
        if error.kind() != ErrorKind::AddrInUse {
            return None;
        }
        let at = SocketAddr::new(port.host_ip, port.host_port);
        let message = format!("{} port {at} of this host is in use", port.protocol.name());
        Some(Problem::new(Class::Unfit, "snapshot.port_taken", message).help(
            "end what listens there (`ss -lntup` names it), or make another cluster of the snapshot with `bivouac fork`, which gets free ports",
        ))
    });
    Problems::check(taken.collect())
}

fn hold(ip: IpAddr, number: u16, protocol: Protocol) -> std::io::Result<(u16, Held)> {
    Ok(match protocol {
        Protocol::Tcp => {
            let listener = TcpListener::bind((ip, number))?;
            (listener.local_addr()?.port(), Held::Tcp(listener))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind((ip, number))?;
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
    fn ports_of_somebody_else_are_refused_and_own_ones_are_not() {
        // Of an address that nobody else uses: the port stays free when it is let go of.
        let [_, a, b, c] = std::process::id().wrapping_mul(97).to_be_bytes();
        let host_ip = std::net::Ipv4Addr::new(127, a | 1, b, c);
        let other = TcpListener::bind((host_ip, 0)).unwrap();
        let number = other.local_addr().unwrap().port();
        let host_ip = host_ip.into();
        let asked = Port { host_port: number, host_ip, ..port(80, Protocol::Tcp) };
        let refused = refuse_taken(std::slice::from_ref(&asked), &[]).unwrap_err();
        assert_eq!(refused.as_slice()[0].code, "snapshot.port_taken");
        assert!(refused.to_string().contains(&format!("tcp port {host_ip}:{number}")));
        refuse_taken(std::slice::from_ref(&asked), std::slice::from_ref(&asked)).unwrap();
        drop(other);
        refuse_taken(&[asked], &[]).unwrap();
    }

    #[test]
    fn who_finds_no_free_port_is_told_why() {
        let none: Hold = |ip, number, _| {
            assert_eq!(number, 0);
            let why =
                if ip.is_loopback() { ErrorKind::AddrNotAvailable } else { ErrorKind::AddrInUse };
            Err(why.into())
        };
        let refused = replace_by(none, &mut [port(80, Protocol::Tcp)], &[]).unwrap_err();
        assert_eq!((refused.code.as_str(), refused.class), ("fork.no_free_port", Class::Unfit));
        assert_eq!(refused.causes, [std::io::Error::from(ErrorKind::AddrInUse).to_string()]);
        // What an address of another machine cannot tell, this one can.
        let elsewhere: Hold = |ip, number, protocol| {
            if ip.is_loopback() {
                Err(ErrorKind::AddrNotAvailable.into())
            } else {
                hold(ip, number, protocol)
            }
        };
        let mut ports = [port(80, Protocol::Tcp)];
        replace_by(elsewhere, &mut ports, &[]).unwrap();
        assert_ne!(ports[0].host_port, 8080);
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
