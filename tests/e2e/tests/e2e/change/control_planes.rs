//! Control planes come, are lost, and go; who needs them works on.

use std::time::Instant;

use bivouac_e2e::{Cluster, Ground, HostSnapshot, SOON, say, wait_until};

use super::{done, up};
use crate::life;

const WORKER: &str = "worker-0";

pub(super) fn come_and_go(ground: &Ground) {
    let cluster = ground.cluster("planes");
    let before = HostSnapshot::take(ground);
    let planes = |count: u32| {
        cluster.file(&format!(
            "  nodes:\n  - {{role: control-plane, count: {count}}}\n  - {{role: worker}}\n"
        ))
    };
    let _ = up(&cluster, &planes(1));
    let made = ["create", "configmap", "kept", "--from-literal=word=survived"];
    let _ = cluster.kubectl(made).success();
    serve(&cluster, "client");
    let _ = up(&cluster, &planes(3));

    // The first one is nothing special, and neither is what it had.
    let lost = Instant::now();
    cluster.lose_node("control-plane-0");
    assert_eq!(kept(&cluster, "the others answer"), "survived");
    let _ = cluster.kubectl(["create", "configmap", "meanwhile"]).success();
    the_worker_works(&cluster, lost);
    without_a_majority(&cluster);
    let whole = done(&up(&cluster, &planes(3)));
    for action in ["create-node control-plane-0", "start-node control-plane-1"] {
        assert!(whole.contains(&action.to_owned()), "{whole:?}");
    }
    let _ = cluster.kubectl(["get", "configmap", "meanwhile"]).success();

    let remove = ["node", "remove", "control-plane-2", "--output", "json"];
    let two = ground.bivouac(remove).args(["--cluster", cluster.name()]).success().json();
    assert_eq!(done(&two).last().map(String::as_str), Some("destroy-node control-plane-2"));
    assert_eq!(kept(&cluster, "two are left"), "survived");
    let one = up(&cluster, &planes(1));
    assert!(done(&one).contains(&"destroy-node control-plane-1".to_owned()), "{one:#}");
    assert_eq!(kept(&cluster, "one is left"), "survived");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn kept(cluster: &Cluster<'_>, what: &str) -> String {
    let word = ["get", "configmap", "kept", "-o", "jsonpath={.data.word}"];
    wait_until(what, SOON, || {
        let outcome = cluster.kubectl(word).outcome();
        if outcome.code == 0 { Ok(outcome.stdout()) } else { Err(outcome.to_string()) }
    })
}

/// A web server on the worker: the scheduler finds it the place, and others find it by a Service of its name.
fn serve(cluster: &Cluster<'_>, name: &str) {
    let image = life::image(cluster.ground(), "web");
    cluster.apply(&format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec:\n      terminationGracePeriodSeconds: 0\n      nodeSelector: {{kubernetes.io/hostname: {WORKER}}}\n      \
         containers: [{{name: web, image: {image}, imagePullPolicy: IfNotPresent}}]\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  \
         selector: {{app: {name}}}\n  ports: [{{port: 80, targetPort: 8080}}]\n"
    ));
    cluster.wait_for_rollout(&format!("deployment/{name}"));
}

/// While a control plane is gone, the worker's kubelet gets new work, and its kube-proxy knows a Service that is new.
fn the_worker_works(cluster: &Cluster<'_>, lost: Instant) {
    serve(cluster, "fresh");
    say(&format!("a new pod runs {:.1} s after the loss", lost.elapsed().as_secs_f64()));
    let service = cluster.get(["service", "fresh"]);
    // By its address: the cluster's DNS had a pod on the lost node, and Kubernetes takes most of a minute to see that that is gone.
    let address = service["spec"]["clusterIP"].as_str().unwrap_or_default();
    let get = ["exec", "deployment/client", "--", "/bin/web", "get", &format!("http://{address}")];
    let answer = wait_until("the new Service answers on the worker", SOON, || {
        let outcome = cluster.kubectl(get).outcome();
        if outcome.code == 0 { Ok(outcome.stdout()) } else { Err(outcome.to_string()) }
    });
    assert!(answer.contains("hostname: fresh-"), "{answer}");
    say(&format!(
        "its Service answers on the worker {:.1} s after the loss",
        lost.elapsed().as_secs_f64()
    ));
}

/// With one control plane lost and another one stopped, nothing that the others must agree upon is begun.
fn without_a_majority(cluster: &Cluster<'_>) {
    cluster.stop_node("control-plane-1");
    let remove = ["node", "remove", "control-plane-1", "--cluster", cluster.name()];
    let refused = cluster.ground().bivouac(remove).outcome().expect_code(1);
    let _ = refused.expect_errors(&["1 of 3 are there, 2 must agree", "plan.no_quorum"]);
}
