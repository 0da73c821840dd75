//! Ports of nodes that are published on the host.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bivouac_provider::{NetworkRequest, Node, NodeRequest, Process, Provider, Stdio};
use bivouac_spec::PublishedPort;
use bivouac_spec::cluster::Protocol;
use bivouac_sys::netlink::Route;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cases::{Cleanup, exec, output};
use crate::ground::{Ground, traces};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(crate) const EVERY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// It only ends what hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A port that is free at this moment on every address and for both protocols.
pub(crate) fn free() -> u16 {
    loop {
        let port = TcpListener::bind((EVERY, 0)).unwrap().local_addr().unwrap().port();
        if UdpSocket::bind((EVERY, port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn port(
    ground: &Ground,
    host_ip: IpAddr,
    host_port: u16,
    protocol: Protocol,
) -> PublishedPort {
    let (node, port) = (ground.node(0), 8080);
    PublishedPort { node, port, protocol, host_ip: Some(host_ip), host_port: Some(host_port) }
}

pub(crate) fn network(ground: &Ground, ports: Vec<PublishedPort>) -> NetworkRequest {
    NetworkRequest { ports, ..ground.network() }
}

/// An address of this machine that is not of the loopback interface.
fn own_address(ground: &Ground) -> IpAddr {
    let addresses = Route::open().unwrap().addresses().unwrap();
    let all = addresses.iter().map(|one| one.address.addr());
    let gateway = ground.addresses().primary().gateway;
    all.into_iter()
        .find(|ip| ip.is_ipv4() && !ip.is_loopback() && *ip != gateway)
        .unwrap_or(gateway)
}

pub(crate) async fn listening(node: &dyn Node, program: &str) -> Process {
    let address = format!("{}:8080", node.address());
    let mut process = exec(node, Stdio::NoInput, &[program, &address]).await;
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
    process
}

pub(crate) fn greeted(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).map(|_| greeting)
}

fn answered(address: SocketAddr) -> std::io::Result<()> {
    let socket = UdpSocket::bind((EVERY, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.connect(address)?;
    let deadline = Instant::now() + PATIENCE;
    let mut packet = [0; 64];
    loop {
        // What is sent over a link that just came up may be lost.
        socket.send(b"ping")?;
        match socket.recv(&mut packet) {
            Ok(length) => {
                assert_eq!(&packet[..length], b"ping");
                return Ok(());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {}
            Err(error) => return Err(error),
        }
    }
}

pub(crate) async fn reached() {
    let ground = Ground::new(12);
    let _cleanup = Cleanup(&ground);
    let (near, far) = (free(), free());
    let asked = network(
        &ground,
        vec![
            port(&ground, LOOPBACK, near, Protocol::Tcp),
            port(&ground, LOOPBACK, near, Protocol::Udp),
            port(&ground, EVERY, far, Protocol::Tcp),
            port(&ground, EVERY, far, Protocol::Udp),
        ],
    );
    // Again, as when `up` goes on where it was.
    for _ in 0..2 {
        ground.provider.ensure_network(&asked).await.unwrap();
    }
    let request = NodeRequest { ports: asked.ports.clone(), ..ground.request(0) };
    let node = ground.provider.ensure_node(&request).await.unwrap();
    let other = ground.provider.ensure_node(&ground.request(1)).await.unwrap();
    let _serving = (listening(&*node, "serve").await, listening(&*node, "answer").await);

    let (own, gateway) = (own_address(&ground), ground.addresses().primary().gateway);
    for address in [(LOOPBACK, near), (LOOPBACK, far), (own, far), (gateway, far)] {
        assert_eq!(greeted(address.into()).unwrap(), "hello", "{address:?}");
        answered(address.into()).unwrap_or_else(|error| panic!("{address:?}: {error}"));
    }
    for address in [own, gateway] {
        let refused = greeted((address, near).into()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    // From the cluster itself, even from the very node that answers.
    for node in [&*other, &*node] {
        for address in [own, gateway] {
            let address = format!("{address}:{far}");
            assert_eq!(output(node, &["greet", &address]).await, "hello", "{address}");
        }
    }
    assert_eq!(node.forward(8080).await.unwrap(), SocketAddr::new(node.address(), 8080));
}

pub(crate) async fn refused() {
    let (ground, other) = (Ground::new(13), Ground::new(14));
    let _cleanup = (Cleanup(&ground), Cleanup(&other));
    let listener = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let socket = UdpSocket::bind((LOOPBACK, 0)).unwrap();
    let (tcp, udp) = (listener.local_addr().unwrap().port(), socket.local_addr().unwrap().port());
    let asked = network(
        &ground,
        vec![port(&ground, LOOPBACK, tcp, Protocol::Tcp), port(&ground, EVERY, udp, Protocol::Udp)],
    );
    let problem = ground.provider.ensure_network(&asked).await.unwrap_err();
    assert_eq!(problem.code, "provider.linux.port_taken");
    let by = format!("(process {}) uses it", std::process::id());
    assert!(problem.message.contains(&format!("127.0.0.1:{tcp}/tcp")), "{problem:?}");
    assert!(problem.message.ends_with(&by), "{problem:?}");
    assert!(problem.causes[0].contains(&format!("0.0.0.0:{udp}/udp")), "{problem:?}");

    let stranger = port(&ground, "192.0.2.1".parse().unwrap(), free(), Protocol::Tcp);
    let problem = ground.provider.ensure_network(&network(&ground, vec![stranger])).await;
    assert_eq!(problem.unwrap_err().code, "provider.linux.no_host_address");
    let six = port(&ground, "::1".parse().unwrap(), free(), Protocol::Tcp);
    let problem = ground.provider.ensure_network(&network(&ground, vec![six])).await;
    assert_eq!(problem.unwrap_err().code, "provider.linux.port_family");
    let left = traces(&ground);
    assert!(left.is_empty() && !ground.state.exists(), "{left:#?}");

    let number = free();
    let first = network(&other, vec![port(&other, LOOPBACK, number, Protocol::Tcp)]);
    other.provider.ensure_network(&first).await.unwrap();
    let second = network(&ground, vec![port(&ground, EVERY, number, Protocol::Tcp)]);
    let problem = ground.provider.ensure_network(&second).await.unwrap_err();
    let by = format!("0.0.0.0:{number}/tcp: cluster {} publishes it", other.cluster);
    assert!(problem.message.ends_with(&by), "{problem:?}");
    assert!(traces(&ground).is_empty());
    // Whoever listens there later does not keep a cluster from going on.
    let late = TcpListener::bind((LOOPBACK, number)).unwrap();
    other.provider.ensure_network(&first).await.unwrap();
    other.provider.destroy_cluster(&other.cluster).await.unwrap();
    drop(late);
    ground.provider.ensure_network(&second).await.unwrap();
}
