//! Clusters with IPv6, beside IPv4 or alone.

use std::io::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use bivouac_provider::{NetworkRequest, Node, NodeRequest, Process, Provider, Stdio};
use bivouac_spec::cluster::Protocol;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cases::{Cleanup, exec, observed, output, pid, start, text};
use crate::ground::{Family, Ground, in_network, machine, traces};
use crate::ports::{free, greeted, port};

const EVERY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

async fn serving(node: &dyn Node, address: SocketAddr) -> Process {
    listening(node, "serve", address).await
}

async fn listening(node: &dyn Node, program: &str, address: SocketAddr) -> Process {
    let mut process = exec(node, Stdio::NoInput, &[program, &address.to_string()]).await;
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
    process
}

async fn assert_greeted(node: &dyn Node, address: SocketAddr) {
    assert_eq!(output(node, &["greet", &address.to_string()]).await, "hello", "{address}");
}

/// Greets whoever comes to the host at this address, once.
fn greet_at(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"hello").unwrap());
    address
}

/// Nodes reach each other, pods of each other, and the host; and the host them.
async fn assert_reached(ground: &Ground, server: &dyn Node, client: &dyn Node) -> Vec<Process> {
    let addresses = ground.addresses();
    let own = &addresses.nodes[server.name()];
    let mut running = Vec::new();
    for ip in own.addresses.iter() {
        let address = SocketAddr::new(*ip, 8081);
        running.push(serving(server, address).await);
        assert_greeted(client, address).await;
        assert_eq!(greeted(address).unwrap(), "hello", "{address}");
    }
    for pods in &own.pod_networks {
        let address = SocketAddr::new(pods.hosts().nth(5).unwrap(), 8080);
        running.push(serving(server, address).await);
        assert_greeted(client, address).await;
        assert_eq!(greeted(address).unwrap(), "hello", "{address}");
    }
    for network in addresses.node_networks.iter() {
        assert_greeted(client, greet_at(network.gateway)).await;
    }
    running
}

pub(crate) async fn dual() {
    let before = machine();
    let ground = Ground::of(19, &[Family::Four, Family::Six]);
    let mut neighbour = Ground::of(20, &[Family::Six, Family::Four]);
    neighbour.share_state(&ground);
    let cleanup = (Cleanup(&ground), Cleanup(&neighbour));
    let far = free();
    let asked = NetworkRequest {
        ports: vec![
            port(&ground, EVERY, far, Protocol::Tcp),
            port(&ground, crate::ports::EVERY, far, Protocol::Tcp),
        ],
        ..ground.network()
    };
    for _ in 0..2 {
        ground.provider.ensure_network(&asked).await.unwrap();
    }
    let request = NodeRequest { ports: asked.ports.clone(), ..ground.request(0) };
    let server = ground.provider.ensure_node(&request).await.unwrap();
    let client = ground.provider.ensure_node(&ground.request(1)).await.unwrap();
    assert!(server.address().is_ipv4());
    let _running = assert_reached(&ground, &*server, &*client).await;

    let hosts = text(&*client, "/etc/hosts").await;
    let name = &ground.cluster;
    for address in ["10.203.19.2", "fd00:b1:13::2"] {
        assert!(hosts.contains(&format!("{address} node-0 node-0.{name}\n")), "{hosts}");
    }
    for parameter in ["accept_ra", "autoconf"] {
        let command = format!("cat /proc/sys/net/ipv6/conf/eth0/{parameter}");
        assert_eq!(in_network(pid(&ground).await, &command), "0\n");
    }
    let mut networks = observed(&ground).await.unwrap().networks;
    networks.sort();
    let mut wanted: Vec<_> =
        ground.addresses().node_networks.iter().map(|own| own.network).collect();
    wanted.sort();
    assert_eq!(networks, wanted);

    // A published port, at each family's gateway address, from the host, the cluster and the very node.
    let _published: Vec<Process> = {
        let mut all = Vec::new();
        for ip in ground.addresses().nodes[&ground.node(0)].addresses.iter() {
            all.push(serving(&*server, SocketAddr::new(*ip, 8080)).await);
        }
        all
    };
    for network in ground.addresses().node_networks.iter() {
        let address = SocketAddr::new(network.gateway, far);
        assert_eq!(greeted(address).unwrap(), "hello", "{address}");
        assert_greeted(&*client, address).await;
        assert_greeted(&*server, address).await;
    }
    // From another cluster packets are forwarded by the host, whatever it forwards otherwise, and with its own address.
    let stranger = start(&neighbour, 0).await;
    assert!(stranger.address().is_ipv6());
    let addresses = ground.addresses();
    let own = addresses.nodes[&ground.node(0)].addresses;
    for (ip, network) in own.iter().zip(addresses.node_networks.iter()) {
        let address = SocketAddr::new(*ip, 8082);
        let _asked = listening(&*server, "who", address).await;
        let seen = output(&*stranger, &["greet", &address.to_string()]).await;
        assert_eq!(seen, network.gateway.to_string());
    }

    // The port goes, the rest stays.
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let gateway = ground.addresses().node_networks.secondary.unwrap().gateway;
    assert!(greeted(SocketAddr::new(gateway, far)).is_err());
    assert_greeted(&*client, SocketAddr::new(server.address(), 8081)).await;

    ground.provider.destroy_node(&ground.cluster, &ground.node(0)).await.unwrap();
    let pods = ground.addresses().nodes[&ground.node(0)].pod_networks.clone();
    let left = traces(&ground);
    for network in pods {
        let route = format!("route: {network} ");
        assert!(!left.iter().any(|trace| trace.starts_with(&route)), "{left:#?}");
    }
    drop(cleanup);
    let left: Vec<_> = traces(&ground).into_iter().chain(traces(&neighbour)).collect();
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(machine(), before);
}

pub(crate) async fn six() {
    let ground = Ground::of(21, &[Family::Six]);
    let _cleanup = Cleanup(&ground);
    let number = free();
    let four = NetworkRequest {
        ports: vec![port(&ground, crate::ports::EVERY, number, Protocol::Tcp)],
        ..ground.network()
    };
    let problem = ground.provider.ensure_network(&four).await.unwrap_err();
    assert_eq!(problem.code, "provider.linux.port_family");
    let (server, client) = (start(&ground, 0).await, start(&ground, 1).await);
    let _running = assert_reached(&ground, &*server, &*client).await;
    let occupied = ground.provider.survey().await.unwrap().facts.occupied;
    let own = format!("cluster {}", ground.cluster);
    assert_eq!(occupied[&ground.addresses().primary().network], own);
}
