//! Pods, and the ways to them: from each other, by Service and name, from the host, and to the outside.

use std::net::IpAddr;

use bivouac_e2e::{Cluster, OwnLink, Provider, SOON, fetch, serve_once, wait_until};

use super::{NODES, Ports, WORKERS, run_once};

/// A network that documentation may use (RFC 5737), so nobody else does.
const OUTSIDE: &str = "198.51.100.1/32";
/// The port of their nodes that the pods take.
pub(super) const HOST_PORT: u16 = 18080;
/// The port of all nodes that leads to the Service.
pub(super) const NODE_PORT: u16 = 30080;

/// A running replica of the web app.
struct Replica {
    pod: String,
    node: String,
    address: String,
}

pub(super) fn answer(cluster: &Cluster<'_>, ports: Ports) {
    let image = super::image(cluster.ground(), "web");
    cluster.apply(&manifest(&image));
    cluster.wait_for_rollout("deployment/web");
    let replicas = replicas(cluster);
    by_name_from_another_pod(cluster, &image);
    across_nodes(cluster, &replicas);
    to_the_outside(cluster, &replicas[0]);
    from_the_host(cluster, ports);
    by_kubectl(cluster, &replicas);
}

/// Two replicas that may not share a node.
fn manifest(image: &str) -> String {
    format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 2
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      containers:
      - name: web
        image: {image}
        ports: [{{containerPort: 8080, hostPort: {HOST_PORT}}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {{topologyKey: topology.kubernetes.io/zone, labelSelector: {{matchLabels: {{app: web}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
"
    )
}

fn replicas(cluster: &Cluster<'_>) -> [Replica; 2] {
    let pods = cluster.get(["pods", "--selector", "app=web", "--sort-by", ".spec.nodeName"]);
    let replica = |index: usize| {
        let text = |pointer: &str| {
            let value = pods["items"][index].pointer(pointer).and_then(serde_json::Value::as_str);
            value.unwrap_or_else(|| panic!("no {pointer} in pod {index} of {pods:#}")).to_owned()
        };
        Replica {
            pod: text("/metadata/name"),
            node: text("/spec/nodeName"),
            address: text("/status/podIP"),
        }
    };
    let replicas = [replica(0), replica(1)];
    assert_eq!([&replicas[0].node, &replicas[1].node], WORKERS);
    replicas
}

fn by_name_from_another_pod(cluster: &Cluster<'_>, image: &str) {
    for (index, node) in NODES.iter().enumerate() {
        let client = format!("client-{index}");
        let ask = ["get", "http://web.default.svc.cluster.local"];
        let _ = run_once(cluster, &client, node, image, &ask).success();
    }
    for index in 0..NODES.len() {
        let _ = cluster.printed_by(&format!("client-{index}")).expect_output(&["hostname: web-"]);
    }
}

/// Each asks the other by address, and is known by its own.
fn across_nodes(cluster: &Cluster<'_>, [one, other]: &[Replica; 2]) {
    for (from, to) in [(one, other), (other, one)] {
        let answer = get(cluster, &from.pod, &format!("http://{}:8080", to.address)).success();
        let _ = answer.expect_output(&[
            &format!("hostname: {}", to.pod),
            &format!("client: {}:", from.address),
        ]);
    }
}

fn get(cluster: &Cluster<'_>, pod: &str, url: &str) -> bivouac_e2e::Run {
    cluster.kubectl(["exec", pod, "--", "/bin/web", "get", url])
}

/// What is not of the cluster sees the node's address, never the pod's.
fn to_the_outside(cluster: &Cluster<'_>, from: &Replica) {
    let _link = OwnLink::new("e2e-outside", OUTSIDE);
    let outside = OwnLink::address(OUTSIDE);
    let (port, asker) = serve_once(outside);
    let _ = get(cluster, &from.pod, &format!("http://{outside}:{port}"))
        .success()
        .expect_output(&["outside"]);
    let asker = asker.recv_timeout(SOON).expect("it was asked");
    let node: IpAddr = cluster.address(&from.node).parse().expect("an address");
    assert_eq!(asker, node, "{} of {} asked from its own address", from.pod, from.node);
}

/// By published ports everywhere; by the addresses of nodes where the host reaches those.
fn from_the_host(cluster: &Cluster<'_>, ports: Ports) {
    let mut ways =
        vec![("127.0.0.1".to_owned(), ports.service), ("127.0.0.1".to_owned(), ports.pod)];
    if cluster.setting().provider == Provider::Linux {
        ways.extend(NODES.map(|node| (cluster.address(node), NODE_PORT)));
        ways.extend(WORKERS.map(|node| (cluster.address(node), HOST_PORT)));
    }
    for (address, port) in ways {
        let answer =
            wait_until("a port of a node answers", SOON, || fetch(&format!("{address}:{port}")));
        assert!(answer.contains("hostname: web-"), "{answer}");
    }
}

fn by_kubectl(cluster: &Cluster<'_>, [one, _]: &[Replica; 2]) {
    let said = cluster
        .kubectl(["exec", "-i", &one.pod, "--", "/bin/sh", "-c", "cat; exit 7"])
        .input("over there");
    assert_eq!(said.outcome().expect_code(7).stdout(), "over there");
    let _ = cluster.kubectl(["get", "--raw", "/readyz"]).success().expect_output(&["ok"]);

    let forward = cluster.kubectl(["port-forward", "service/web", ":80"]).start();
    let line = forward.wait_for_output_line("the forwarded port", |line| {
        line.starts_with("Forwarding from 127.0.0.1:")
    });
    let port = line.split([':', ' ']).find_map(|word| word.parse::<u16>().ok());
    let port = port.unwrap_or_else(|| panic!("no port in `{line}`"));
    let answer =
        wait_until("the forwarded port answers", SOON, || fetch(&format!("127.0.0.1:{port}")));
    assert!(answer.contains("hostname: web-"), "{answer}");
    forward.interrupt();
    let _ = forward.finish(SOON);
}
