use std::collections::BTreeMap;

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
fn every_port_that_cannot_be_forwarded_is_told() {
    let asked = [("worker-0", "::1", Some(1)), ("worker-9", "0.0.0.0", Some(2))];
    let problem = forwards(&request(&asked)).unwrap_err();
    assert_eq!(problem.code, "provider.linux.ipv6_port");
    insta::assert_snapshot!(format!("{}\n{}", problem.message, problem.causes.join("\n")), @r"
    cluster demo cannot publish port 6443 of node worker-0 at ::1: ports are forwarded over IPv4 only
    also: node worker-9 of cluster demo has no address to publish a port of
    ");
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
            let port = HostPort { address: SocketAddrV4::new(ip, number), protocol };
            let problem = check_socket(&cluster, port).unwrap_err();
            assert_eq!(problem.code, "provider.linux.port_taken");
            let (name, own) = (protocol.name(), std::process::id());
            let start = format!("cluster demo cannot publish {ip}:{number}/{name}: ");
            assert!(problem.message.starts_with(&start), "{problem:?}");
            let end = format!(" (process {own}) uses it");
            assert!(problem.message.ends_with(&end), "{problem:?}");
        }
    }
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
    ]);
    let one = port("127.0.0.1:80/tcp");
    for (text, overlaps) in cases {
        assert_eq!(one.overlaps(&port(text)), overlaps, "{text}");
        assert_eq!(port(text).overlaps(&one), overlaps, "{text}");
    }
}

proptest! {
    #[test]
    fn comments_read_back(ip: [u8; 4], number: u16, udp: bool) {
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let address = SocketAddrV4::new(ip.into(), number);
        let from = HostPort { address, protocol };
        let forward = Forward { from, to: SocketAddrV4::new([10, 89, 7, 2].into(), 80) };
        let addresses = crate::samples::addresses(1);
        let cluster = "demo".parse().unwrap();
        let rules = crate::linux::rules::render(&cluster, &addresses, None, &[forward, forward]);
        prop_assert_eq!(parse(&rules), [from]);
    }
}
