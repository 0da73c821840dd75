//! What a cluster has beside Kubernetes itself comes and goes while it lives.

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, SOON, case, wait_until};

pub(crate) const CASES: [Case; 2] = [
    case("addons/come_and_go", About::Grounds, come_and_go),
    case("addons/answer_with_a_control_plane_lost", About::Nodes, answer_with_a_control_plane_lost),
];

fn file(cluster: &Cluster<'_>, addons: &str, nodes: &str) -> std::path::PathBuf {
    cluster.file(&format!("  stack: {{kubernetes: {{addons: {addons}}}}}\n  nodes: {nodes}\n"))
}

fn come_and_go(ground: &Ground) {
    let cluster = ground.cluster("addons");
    let before = HostSnapshot::take(ground);
    let up = |addons: &str| {
        let file = file(&cluster, addons, "[{role: control-plane}]");
        cluster.up(&file).args(["--output", "json"]).success().json()
    };
    let _ = up("{metricsServer: false, storage: false}");
    let is_there = |object: &[&str]| {
        let found = cluster.kubectl(["get", "--ignore-not-found", "--output", "name"]).args(object);
        !found.success().stdout().is_empty()
    };
    let parts: [&[&str]; 4] = [
        &["apiservice", "v1beta1.metrics.k8s.io"],
        &["deployment", "metrics-server", "--namespace", "kube-system"],
        &["storageclass", "standard"],
        &["namespace", "local-path-storage"],
    ];
    assert!(!parts.iter().any(|part| is_there(part)));

    let kubelet = || cluster.unit("control-plane-0", "kubelet")["pid"].as_u64();
    let running = kubelet();
    let on = up("{}");
    assert_eq!(on["changed"], true, "{on:#}");
    top_answers(&cluster);
    assert!(parts.iter().all(|part| is_there(part)));
    assert_eq!(up("{metricsServer: true}")["changed"], false);

    let _ = up("{metricsServer: false, storage: false}");
    assert!(!parts.iter().any(|part| is_there(part)));
    assert_eq!(kubelet(), running, "nothing else was touched");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// The one that applied it is nothing special.
fn answer_with_a_control_plane_lost(ground: &Ground) {
    let cluster = ground.cluster("lost");
    let _ = cluster
        .up(&file(&cluster, "{storage: false}", "[{role: control-plane, count: 3}]"))
        .success();
    top_answers(&cluster);
    let rollout = ["rollout", "status", "--namespace", "kube-system", "--timeout=300s"];
    let _ = cluster.kubectl(rollout).args(["deployment/metrics-server"]).success();
    cluster.stop_node("control-plane-0");
    top_answers(&cluster);
    let _ = cluster.down().success();
}

fn top_answers(cluster: &Cluster<'_>) {
    wait_until("kubectl tells what nodes use", SOON, || {
        let top = cluster.kubectl(["top", "nodes", "--no-headers"]).outcome();
        if top.code == 0 { Ok(()) } else { Err(top.to_string()) }
    });
}
