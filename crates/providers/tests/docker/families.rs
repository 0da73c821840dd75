//! Nodes with addresses of IPv6.

use bivouac_provider::{ExecRequest, Node, NodeRequest, Process, Provider, Stdio};
use bivouac_spec::{Addresses, PublishedPort};
use tokio::io::AsyncReadExt as _;

use crate::cases::{Cleanup, port};
use crate::ground::Ground;

async fn run(node: &dyn Node, command: [&str; 2]) -> Process {
    let stdio = Stdio::NoInput;
    node.exec(&ExecRequest { stdio, ..ExecRequest::piped(command) }).await.unwrap()
}

/// Starts a server in a node.
async fn serve(node: &dyn Node, address: &str) -> Process {
    let mut process = run(node, ["serve", address]).await;
    let mut listening = [0; 10];
    process.stdout.as_mut().unwrap().read_exact(&mut listening).await.unwrap();
    process
}

async fn greeted(node: &dyn Node, address: &str) {
    let mut process = run(node, ["greet", address]).await;
    let mut said = String::new();
    process.stdout.as_mut().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello", "from {address}");
}

/// Both nodes of a cluster with these addresses; the first publishes a port on the loopback address of IPv6.
async fn nodes(ground: &Ground, addresses: &Addresses) -> [std::sync::Arc<dyn Node>; 2] {
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let mut network = ground.network();
    network.addresses = addresses.clone();
    let host_ip = Some("::1".parse().unwrap());
    let ports = vec![PublishedPort { host_ip, ..port(ground, None) }];
    // The second time it is there.
    for _ in 0..2 {
        ground.provider.ensure_network(&network).await.unwrap();
    }
    let request = |index| NodeRequest { addresses: addresses.clone(), ..ground.request(index) };
    let first = NodeRequest { ports, ..request(0) };
    let first = ground.provider.ensure_node(&first).await.unwrap();
    [first, ground.provider.ensure_node(&request(1)).await.unwrap()]
}

/// The networks that are seen of the cluster.
async fn networks(ground: &Ground) -> Vec<String> {
    let clusters = ground.provider.observe().await.unwrap();
    let own = clusters.into_iter().find(|it| it.name == ground.cluster).unwrap();
    let mut networks: Vec<_> = own.networks.iter().map(ToString::to_string).collect();
    networks.sort();
    networks
}

async fn reach_each_other(ground: &Ground, addresses: &Addresses) {
    let [one, other] = nodes(ground, addresses).await;
    let own = &addresses.nodes[one.name()];
    assert_eq!(one.address(), own.primary());
    let mut servers = Vec::new();
    for address in own.addresses.iter() {
        let at = std::net::SocketAddr::new(*address, 8080).to_string();
        servers.push(serve(&*one, &at).await);
        greeted(&*other, &at).await;
    }
    let place = one.forward(8080).await.unwrap();
    assert_eq!(place.ip().to_string(), "::1");
    let mut stream = tokio::net::TcpStream::connect(place).await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}

pub(crate) async fn both() {
    let ground = Ground::new(15);
    let _cleanup = Cleanup(&ground);
    reach_each_other(&ground, &ground.dual_stack()).await;
    assert_eq!(networks(&ground).await, ["10.202.15.0/24", "fd00:202:15::/64"]);
    let problem = {
        let mut network = ground.network();
        network.addresses = ground.dual_stack();
        let secondary = network.addresses.node_networks.secondary.as_mut().unwrap();
        secondary.network = "fd00:203::/64".parse().unwrap();
        ground.provider.ensure_network(&network).await.unwrap_err()
    };
    assert_eq!(problem.code, "provider.docker.other_network", "{problem:?}");
}

pub(crate) async fn ipv6_alone() {
    let ground = Ground::new(16);
    let _cleanup = Cleanup(&ground);
    reach_each_other(&ground, &ground.ipv6()).await;
    assert_eq!(networks(&ground).await, ["fd00:202:16::/64"]);
}
