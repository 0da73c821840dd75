use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use bivouac_provider::NetworkRequest;
use proptest::prelude::*;

use super::*;

fn port(text: &str) -> HostPort {
    text.parse().unwrap()
}

fn request(ports: &[(&str, &str, Option<u16>)]) -> NetworkRequest {
    let one = |(node, ip, host_port): &(&str, &str, Option<u16>)| PublishedPort {
        node: node.parse().unwrap(),
        port: 6443,
        protocol: Protocol::Tcp,
        host_ip: (!ip.is_empty()).then(|| ip.parse().unwrap()),
        host_port: *host_port,
    };
    NetworkRequest {
        cluster: "demo".parse().unwrap(),
        addresses: crate::samples::addresses(1),
        ports: ports.iter().map(one).collect(),
    }
}

#[test]
fn a_port_that_the_ground_may_choose_needs_no_rule() {
    let asked = [("worker-0", "", None), ("worker-0", "", Some(36443))];
    let found = forwards(&request(&asked)).unwrap();
    let to = "10.89.7.2:6443".parse().unwrap();
    assert_eq!(found, [Forward { from: port("127.0.0.1:36443/tcp"), to }]);
}

#[test]
fn ports_go_to_the_address_of_their_family() {
    let asked = [("worker-0", "::", Some(80)), ("worker-0", "0.0.0.0", Some(80))];
    let mut request = request(&asked);
    request.addresses = crate::samples::dual_stack(1);
    let found: Vec<_> =
        forwards(&request).unwrap().iter().map(|one| (one.from.to_string(), one.to)).collect();
    let six = ("[::]:80/tcp".to_owned(), "[fd00:89::2]:6443".parse().unwrap());
    assert_eq!(found, [six, ("0.0.0.0:80/tcp".to_owned(), "10.89.7.2:6443".parse().unwrap())]);
    // Where nothing is said, and the nodes have no IPv4 addresses.
    let mut request = self::request(&[("worker-0", "", Some(80))]);
    request.addresses = crate::samples::ipv6(1);
    assert_eq!(forwards(&request).unwrap()[0].from, port("[fd00:89::1]:80/tcp"));
}

#[test]
fn every_port_that_cannot_be_forwarded_is_told() {
    let asked = [("worker-0", "::1", Some(1)), ("worker-9", "0.0.0.0", Some(2))];
    let mut request = request(&asked);
    let problem = forwards(&request).unwrap_err();
    assert_eq!(problem.code, "provider.linux.port_family");
    insta::assert_snapshot!(format!("{}\n{}", problem.message, problem.causes.join("\n")), @r"
    cluster demo cannot publish port 6443 of node worker-0 at ::1: its nodes have no IPv6 address
    also: node worker-9 of cluster demo has no address to publish a port of
    ");
    request.addresses = crate::samples::dual_stack(1);
    let problem = forwards(&request).unwrap_err();
    assert_eq!(problem.code, "provider.linux.loopback_port");
    assert!(problem.help.unwrap().contains("127.0.0.1"));
    request.addresses = crate::samples::ipv6(1);
    let problem = forwards(&request).unwrap_err();
    assert!(!problem.help.unwrap().contains("127.0.0.1"));
}

#[test]
fn a_socket_is_told_with_its_process() {
    let cluster = "demo".parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for (number, protocol) in [
        (listener.local_addr().unwrap().port(), Protocol::Tcp),
        (socket.local_addr().unwrap().port(), Protocol::Udp),
    ] {
        for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
            let port = HostPort { address: SocketAddr::new(ip.into(), number), protocol };
            let problem = check_socket(&cluster, port).unwrap_err();
            assert_eq!(problem.code, "provider.linux.port_taken");
            let (name, own) = (protocol.name(), std::process::id());
            let start = format!("cluster demo cannot publish {ip}:{number}/{name}: ");
            assert!(problem.message.starts_with(&start), "{problem:?}");
            let end = format!(" (process {own}) uses it");
            assert!(problem.message.ends_with(&end), "{problem:?}");
        }
    }
    // Who has it at IPv4 addresses does not have it at IPv6 ones.
    let number = listener.local_addr().unwrap().port();
    let port = HostPort {
        address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), number),
        protocol: Protocol::Tcp,
    };
    check_socket(&cluster, port).unwrap();
    let six = TcpListener::bind("[::1]:0").unwrap();
    let number = six.local_addr().unwrap().port();
    let port = HostPort {
        address: SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), number),
        protocol: Protocol::Tcp,
    };
    let problem = check_socket(&cluster, port).unwrap_err();
    assert!(problem.message.contains(&std::process::id().to_string()), "{problem:?}");
    let free = HostPort { address: "192.0.2.1:80".parse().unwrap(), protocol: Protocol::Tcp };
    let problem = check_socket(&cluster, free).unwrap_err();
    assert_eq!(problem.code, "provider.linux.no_host_address");
}

#[test]
fn all_addresses_overlap_each() {
    let cases = BTreeMap::from([
        ("127.0.0.1:80/tcp", true),
        ("0.0.0.0:80/tcp", true),
        ("127.0.0.2:80/tcp", false),
        ("127.0.0.1:81/tcp", false),
        ("0.0.0.0:80/udp", false),
        ("[::]:80/tcp", false),
    ]);
    let one = port("127.0.0.1:80/tcp");
    for (text, overlaps) in cases {
        assert_eq!(one.overlaps(&port(text)), overlaps, "{text}");
        assert_eq!(port(text).overlaps(&one), overlaps, "{text}");
    }
}

proptest! {
    #[test]
    fn comments_read_back(ip: [u8; 4], six: Option<[u8; 16]>, number: u16, udp: bool) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let ip = six.map_or(IpAddr::from(ip), IpAddr::from);
        let from = HostPort { address: SocketAddr::new(ip, number), protocol };
        let to = if ip.is_ipv4() { "10.89.7.2:80" } else { "[fd00:89::2]:80" };
        let forward = Forward { from, to: to.parse().unwrap() };
        let addresses = crate::samples::dual_stack(1);
        let cluster = "demo".parse().unwrap();
        let rules = crate::linux::rules::render(&cluster, &addresses, None, &[forward, forward]);
        let is_told = !(ip.is_ipv6() && ip.is_loopback());
        prop_assert!(!is_told || parse(&rules) == [from]);
    }
}
