//! What bivouac itself says of a cluster and does in it.

use std::path::Path;

use bivouac_e2e::{Bootstrap, Cluster};

use super::NODES;

pub(super) fn on_a_node(cluster: &Cluster<'_>) {
    for (node, other) in
        [("worker-0", "worker-1"), ("worker-1", "control-plane-0"), ("control-plane-0", "worker-0")]
    {
        let known = cluster.exec(node, ["getent", "hosts", other]).success();
        let _ = known.expect_output(&[&cluster.address(other)]);
    }
    let name = cluster.exec("worker-1", ["hostname"]).success();
    assert_eq!(name.stdout(), "worker-1\n");
    let _ = cluster.exec("worker-0", ["sh", "-c", "exit 7"]).outcome().expect_code(7);
    let absent = cluster.exec("worker-0", ["no-such-program"]).outcome().expect_code(1);
    let _ = absent.expect_errors(&["no-such-program"]);

    // More than a pipe holds, with every byte in it.
    let input: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let echoed = cluster.exec("worker-0", ["cat"]).input(input.clone()).success();
    assert!(echoed.output == input, "{} of {} bytes came back", echoed.output.len(), input.len());

    let log = cluster.logs(["worker-0", "kubelet", "--tail", "5"]).success();
    assert_eq!(log.stdout().lines().count(), 5, "{log}");
    let own = cluster.logs(["control-plane-0"]).success();
    assert!(!own.stdout().is_empty(), "the agent says what it does");
}

pub(super) fn about_the_cluster(cluster: &Cluster<'_>) {
    let (ground, name) = (cluster.ground(), cluster.name());
    let status = ground.bivouac(["status", name]).success();
    let usable = status.stdout().lines().filter(|line| line.contains(" usable ")).count();
    assert_eq!(usable, NODES.len(), "{status}");
    let _ = status.expect_output(&NODES).expect_output(&["control-plane", "worker"]);
    let services = ground.bivouac(["status", "--services", name]).success();
    let services = services.expect_output(&["kubelet", "containerd", "ready"]);
    match cluster.setting().bootstrap {
        Bootstrap::Services => drop(services.expect_output(&["kube-apiserver"])),
        Bootstrap::Kubeadm => static_pods(cluster),
    }

    let status = cluster.status();
    assert_eq!(status["usable"], true, "{status:#}");
    for node in NODES {
        assert_eq!(status["nodes"][node]["status"]["phase"], "usable", "{status:#}");
        let units = status["nodes"][node]["status"]["units"].as_array().expect("a node has units");
        assert!(units.iter().all(|unit| unit["restarts"] == 0), "something fell over: {units:#?}");
    }
    let _ = ground.bivouac(["list"]).success().expect_output(&[name, "3/3"]);
    let list = ground.bivouac(["list", "--output", "json"]).success().json();
    let listed = list.as_array().into_iter().flatten().find(|listed| listed["name"] == name);
    assert!(listed.is_some_and(|listed| listed["usable"] == true), "{list:#}");
}

/// The control plane runs as kubeadm makes it.
fn static_pods(cluster: &Cluster<'_>) {
    let node = NODES[0];
    for program in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let pod = cluster.get(["pod", "--namespace=kube-system", &format!("{program}-{node}")]);
        let source = &pod["metadata"]["annotations"]["kubernetes.io/config.source"];
        assert_eq!(
            (source, &pod["status"]["phase"]),
            (&"file".into(), &"Running".into()),
            "{pod:#}"
        );
    }
}

pub(super) fn with_typing_errors(cluster: &Cluster<'_>) {
    let node = cluster.exec("wroker-0", ["true"]).outcome().expect_code(2);
    let _ = node.expect_errors(&["wroker-0", "`worker-0`"]);
    let service = cluster.logs(["worker-0", "kublet"]).outcome().expect_code(2);
    let _ = service.expect_errors(&["kublet", "`kubelet`"]);
    let node = cluster.logs(["worker-9", "kubelet"]).outcome().expect_code(2);
    let _ = node.expect_errors(&["worker-9", "`worker-"]);
    for verb in [
        &["status", "e2e-lief"][..],
        &["kubeconfig", "e2e-lief"],
        &["kubectl", "-c", "e2e-lief", "--", "get", "pods"],
    ] {
        let unknown = cluster.ground().bivouac(verb).outcome().expect_code(2);
        let _ = unknown.expect_errors(&["e2e-lief", "`e2e-life`"]);
    }
}

pub(super) fn up_again(cluster: &Cluster<'_>, file: &Path, spec: &str) {
    let same = cluster.up(file).success();
    let _ = same.expect_output(&["nothing changed"]);
    let same = cluster.up(file).args(["-o", "json"]).success().json();
    assert_eq!(same["changed"], false, "{same:#}");
    assert_eq!(same["actions"].as_array().map(Vec::len), Some(0), "{same:#}");
    let plan = cluster.ground().bivouac(["plan", "--file"]).args([file]);
    let _ = plan.success().expect_output(&["nothing to do"]);

    let state = cluster.ground().state().join("clusters").join(cluster.name()).join("cluster.json");
    let read = || std::fs::read_to_string(&state).expect("an existing cluster has a state");
    let before = read();
    let changed = cluster.file(&format!("{spec}  network: {{podCIDR: [10.77.0.0/16]}}\n"));
    for verb in ["plan", "up"] {
        let refused =
            cluster.ground().bivouac([verb, "--file"]).args([&changed]).outcome().expect_code(2);
        let _ = refused.expect_errors(&["spec.network.podCIDR", "whole life"]);
    }
    assert_eq!(read(), before);
    let nodes = cluster.kubectl(["get", "nodes", "-o", "name"]).success();
    assert_eq!(nodes.stdout().lines().count(), NODES.len(), "{nodes}");
}
