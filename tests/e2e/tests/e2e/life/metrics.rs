//! What nodes and pods use is told, by somebody who verifies and is verified.

use bivouac_e2e::{Cluster, SOON, wait_until};

use super::NODES;

pub(super) fn are_told(cluster: &Cluster<'_>) {
    wait_until("kubectl tells what nodes use", SOON, || {
        let top = cluster.kubectl(["top", "nodes", "--no-headers"]).outcome();
        let told = top.stdout();
        let is_told = |node: &str| told.lines().any(|line| line.split(' ').next() == Some(node));
        if NODES.into_iter().all(is_told) { Ok(()) } else { Err(top.to_string()) }
    });
    let _ = cluster
        .kubectl(["top", "pods", "--namespace", "kube-system", "--no-headers"])
        .success()
        .expect_output(&["coredns-"]);
    let api = cluster.get(["apiservice", "v1beta1.metrics.k8s.io"]);
    assert_ne!(api["spec"]["insecureSkipTLSVerify"], true, "{api:#}");
    assert!(api["spec"]["caBundle"].is_string(), "{api:#}");
    let server = cluster.get(["deployment", "metrics-server", "--namespace", "kube-system"]);
    let arguments = &server["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(!arguments.to_string().contains("insecure"), "{arguments:#}");
}
