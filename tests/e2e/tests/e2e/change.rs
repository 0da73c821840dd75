//! A cluster changes while it lives: nodes come and go, labels and limits, ports, control planes.

mod control_planes;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Provider, SOON, case, fetch, free_ports, wait_until,
};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 4] = [
    case("change/the_file_changes", About::Grounds, the_file_changes),
    case("change/nodes_are_added_and_removed", About::Grounds, nodes_are_added_and_removed),
    case("change/stop_and_start", About::GroundsAndKubeadm, stop_and_start),
    case("change/control_planes", About::Grounds, control_planes::come_and_go),
];

/// The cluster file with this group of workers.
fn file(cluster: &Cluster<'_>, workers: &str, rest: &str) -> std::path::PathBuf {
    cluster.file(&format!("  nodes:\n  - {{role: control-plane}}\n{workers}{rest}"))
}

/// What `up` did, an action a word: `update-node worker-0`.
fn done(up: &Value) -> Vec<String> {
    let actions = up["actions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words =
        actions.map(|action| format!("{} {}", text(&action["action"]), text(&action["node"])));
    words.map(|words| words.trim().to_owned()).collect()
}

fn up(cluster: &Cluster<'_>, file: &std::path::Path) -> Value {
    cluster.up(file).args(["--output", "json"]).success().json()
}

fn pids(cluster: &Cluster<'_>, node: &str, services: &[&str]) -> Vec<Option<u64>> {
    services.iter().map(|service| cluster.unit(node, service)["pid"].as_u64()).collect()
}

fn the_file_changes(ground: &Ground) {
    let cluster = ground.cluster("change");
    let before = HostSnapshot::take(ground);
    // Every file has the same path.
    let first = || file(&cluster, "  - {role: worker}\n", "");
    let _ = up(&cluster, &first());
    let control = ["etcd", "kube-apiserver", "kubelet"];
    let running = pids(&cluster, "control-plane-0", &control);

    let workers = "  - {role: worker, count: 2, labels: {disk: fast}, taints: [{key: only, value: batch, effect: NoSchedule}]}\n";
    let [port] = free_ports();
    let ports = format!("  ports: [{{hostPort: {port}, port: 30080}}]\n");
    let second = file(&cluster, workers, &ports);
    let plan = ground.bivouac(["plan", "--output", "json", "--file"]).args([&second]);
    let planned = done(&plan.success().json());
    assert!(planned.contains(&"create-node worker-1".to_owned()), "{planned:?}");
    assert!(planned.contains(&"update-node control-plane-0".to_owned()), "{planned:?}");
    assert_eq!(done(&up(&cluster, &second)), planned);
    for node in ["worker-0", "worker-1"] {
        let object = cluster.get(["node", node]);
        assert_eq!(object["metadata"]["labels"]["disk"], "fast", "{object:#}");
        let mut taints = object["spec"]["taints"].as_array().into_iter().flatten();
        assert!(taints.any(|taint| taint["key"] == "only"), "{object:#}");
    }
    if cluster.setting().provider == Provider::Linux {
        assert_eq!(pids(&cluster, "control-plane-0", &control), running, "they run on");
    }
    assert_eq!(up(&cluster, &second)["changed"], false);
    let address = format!("127.0.0.1:{port}");
    the_port_answers(&cluster, &address);

    // All of it is taken back.
    let _ = up(&cluster, &first());
    let _ = fetch(&address).expect_err("nobody is behind the port any more");
    let object = cluster.get(["node", "worker-0"]);
    assert!(object["metadata"]["labels"]["disk"].is_null(), "{object:#}");
    // The kubelet may be new, and its node not be Ready for a moment: that is a taint, too.
    let mut taints = object["spec"]["taints"].as_array().into_iter().flatten();
    assert!(!taints.any(|taint| taint["key"] == "only"), "{object:#}");
    assert_eq!(cluster.get(["nodes"])["items"].as_array().map(Vec::len), Some(2));

    let refused = cluster.up(&file(&cluster, "", "  network: {podCIDR: [10.77.0.0/16]}\n"));
    let _ =
        refused.outcome().expect_code(2).expect_errors(&["podCIDR", "whole life", "bivouac down"]);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// It leads to a node port, and that to a pod on a worker whose taint it bears.
fn the_port_answers(cluster: &Cluster<'_>, address: &str) {
    let image = life::image(cluster.ground(), "web");
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec:\n      terminationGracePeriodSeconds: 0\n      tolerations: [{{key: only, operator: Exists}}]\n      \
         containers: [{{name: web, image: {image}, imagePullPolicy: IfNotPresent}}]\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  \
         selector: {{app: web}}\n  ports: [{{port: 80, targetPort: 8080, nodePort: 30080}}]\n"
    ));
    cluster.wait_for_rollout("deployment/web");
    let answer = wait_until("the port that was added answers", SOON, || fetch(address));
    assert!(answer.contains("hostname: web-"), "{answer}");
}

fn nodes_are_added_and_removed(ground: &Ground) {
    let cluster = ground.cluster("nodes");
    let _ = cluster.up_single().success();
    let name = cluster.name().to_owned();
    let node = |verb: &str| ground.bivouac(["node", verb, "--cluster", &name, "--output", "json"]);
    let added = node("add").args(["--count", "2"]).success().json();
    assert_eq!(added["nodes"], 3, "{added:#}");

    // Work moves away from a node that goes.
    let image = life::image(ground, "web");
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  replicas: 2\n  \
         selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    \
         spec:\n      terminationGracePeriodSeconds: 0\n      containers: [{{name: web, image: {image}, imagePullPolicy: IfNotPresent}}]\n"
    );
    cluster.apply(&deployment);
    cluster.wait_for_rollout("deployment/web");
    let removed = node("remove").args(["worker-0"]).success().json();
    assert_eq!(done(&removed).last().map(String::as_str), Some("destroy-node worker-0"));
    let nodes = cluster.get(["nodes"]);
    let names: Vec<_> = nodes["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|node| node["metadata"]["name"].as_str())
        .collect();
    assert_eq!(names, ["control-plane-0", "worker-1"]);
    cluster.wait_for_rollout("deployment/web");
    let _ = node("remove").args(["control-plane-0"]).outcome().expect_code(2);
    let _ = node("remove").args(["worker-7"]).outcome().expect_code(2).expect_errors(&["worker-1"]);
    let _ = cluster.down().success();
}

fn stop_and_start(ground: &Ground) {
    let cluster = ground.cluster("sleeper");
    let before = HostSnapshot::take(ground);
    let _ = up(&cluster, &file(&cluster, "  - {role: worker}\n", ""));
    let made = ["create", "configmap", "kept", "--from-literal=word=survived"];
    let _ = cluster.kubectl(made).success();
    let name = cluster.name();
    let address = cluster.address("worker-0");
    life::storage::is_written(&cluster);
    let certificates = certificates(&cluster);

    let stop = ground.bivouac(["stop", "--all"]).success();
    let _ = stop.expect_output(&[name, "2 nodes are stopped"]);
    let _ = ground.bivouac(["status", name]).outcome().expect_code(1).expect_output(&["stopped"]);
    let _ = ground.usable_by("start", ["--all"]).success();
    assert_eq!(cluster.address("worker-0"), address);
    assert!(self::certificates(&cluster) == certificates, "certificates were made anew");
    life::storage::is_kept(&cluster);
    let word = ["get", "configmap", "kept", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(word).success().stdout(), "survived");

    let _ = ground.bivouac(["stop", name, "--node", "worker-0"]).success();
    let _ = cluster.kubectl(["get", "nodes"]).success();
    let _ = ground.usable_by("start", [name, "--node", "worker-0"]).success();
    let _ = ground.usable_by("restart", [name, "--node", "worker-0"]).success();
    cluster.wait_until_usable();
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// What the first node shows to whoever asks it, and what the user asks by.
fn certificates(cluster: &Cluster<'_>) -> [String; 3] {
    let [authority, server] = ["ca.crt", "apiserver.crt"].map(|name| {
        let file = format!("/etc/kubernetes/pki/{name}");
        cluster.exec("control-plane-0", ["cat", &file]).success().stdout()
    });
    let user = std::fs::read_to_string(cluster.ground().kubeconfig()).expect("`up` wrote it");
    [authority, server, user]
}
