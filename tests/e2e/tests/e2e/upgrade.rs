//! Another version, node by node: what runs and what it knows stays, and what fails is taken back.

use std::time::Duration;

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, Provider, SOON, case};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 2] = [
    case("upgrade/the_app_keeps_its_data", About::Grounds, the_app_keeps_its_data),
    case("upgrade/what_fails_is_taken_back", About::One(Provider::Linux), what_fails_is_taken_back),
];

const OLD: &str = "v1.36.1";
const NEW: &str = "v1.36.3";

/// Compiling Kubernetes takes minutes on a quick machine.
const IMAGE_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// The node image of the old version, which no other test needs; `up` would build it in the middle of something.
fn ensure_old_image(ground: &Ground) {
    let build = ground.bivouac(["image", "build", "--version", OLD]);
    let _ = build.within(IMAGE_DEADLINE).success();
}

/// The cluster file with this version and so many workers.
fn file(cluster: &Cluster<'_>, version: &str, workers: u32) -> std::path::PathBuf {
    cluster.file(&format!(
        "  stack: {{kubernetes: {{version: {version}}}}}\n  nodes:\n  - {{role: control-plane}}\n  \
         - {{role: worker, count: {workers}}}\n"
    ))
}

/// What each kubelet says that it is.
fn kubelets(cluster: &Cluster<'_>) -> Vec<String> {
    let nodes = cluster.get(["nodes"]);
    let nodes = nodes["items"].as_array().cloned().unwrap_or_default();
    let version = |node: &Value| {
        let ready = node["status"]["conditions"].as_array().into_iter().flatten();
        let mut ready = ready.filter(|condition| condition["type"] == "Ready");
        assert!(ready.all(|ready| ready["status"] == "True"), "{node:#}");
        assert!(node["spec"]["unschedulable"].is_null(), "{node:#}");
        node["status"]["nodeInfo"]["kubeletVersion"].as_str().unwrap_or_default().to_owned()
    };
    nodes.iter().map(version).collect()
}

/// What the API server says that it is.
fn api_server(cluster: &Cluster<'_>) -> String {
    let version = cluster.kubectl(["version", "--output=json"]).success().json();
    version["serverVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_version(cluster: &Cluster<'_>, version: &str) {
    assert_eq!(api_server(cluster), version);
    assert!(kubelets(cluster).iter().all(|kubelet| kubelet == version), "{:?}", kubelets(cluster));
}

fn deployment(image: &str, replicas: u32, rest: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: app}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: app}}}}\n  template:\n    metadata: {{labels: {{app: app}}}}\n    spec:\n      \
         terminationGracePeriodSeconds: 0\n      containers:\n      - name: main\n        image: {image}\n        \
         imagePullPolicy: IfNotPresent\n{rest}"
    )
}

/// It writes a word once, and never again.
const KEEPS_A_WORD: &str = r#"        args: [-c, '[ -e /data/word ] || echo survived > /data/word; exec sleep 1000000']
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#;

fn the_app_keeps_its_data(ground: &Ground) {
    let cluster = ground.cluster("upgrade");
    ensure_old_image(ground);
    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&file(&cluster, OLD, 1)).success().expect_output(&[OLD]);
    assert_version(&cluster, OLD);
    let image = life::image(ground, "busybox");
    cluster.apply(&deployment(&image, 1, KEEPS_A_WORD));
    cluster.wait_for_rollout("deployment/app");
    let _ = cluster.kubectl(["create", "configmap", "kept"]).success();

    let upgrade = |arguments: &[&str]| ground.bivouac(["upgrade", cluster.name()]).args(arguments);
    let planned = upgrade(&["--to", NEW, "--dry-run"]).success();
    let order: Vec<_> = planned.stdout().lines().map(str::to_owned).collect();
    assert!(order[0].starts_with("remake node control-plane-0 around its data"), "{planned}");
    assert!(order[1].starts_with("remake node worker-0 around its data"), "{planned}");
    let skips = upgrade(&["--to", "v1.38.0"]).outcome().expect_code(2);
    let _ = skips.expect_errors(&["v1.38.0", NEW, OLD]);
    assert_version(&cluster, OLD);

    let _ = upgrade(&["--to", NEW]).success().expect_output(&[NEW]);
    assert_version(&cluster, NEW);
    let _ = cluster.kubectl(["get", "configmap", "kept"]).success();
    cluster.wait_for_rollout("deployment/app");
    let word = cluster.kubectl(["exec", "deployment/app", "--", "cat", "/data/word"]).success();
    assert_eq!(word.stdout(), "survived\n");
    let _ = upgrade(&[]).success().expect_output(&["nothing changed"]);
    let back = cluster.up(&file(&cluster, OLD, 1)).outcome().expect_code(2);
    let _ = back.expect_errors(&["would go back from", "bivouac down"]);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

const BUDGET: &str = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: all}\n\
                      spec: {minAvailable: 2, selector: {matchLabels: {app: app}}}\n";

/// Pods that no budget lets go keep their node from being stopped, when the control plane is upgraded already.
fn what_fails_is_taken_back(ground: &Ground) {
    let cluster = ground.cluster("back");
    ensure_old_image(ground);
    let before = HostSnapshot::take(ground);
    let old = file(&cluster, OLD, 2);
    let _ = cluster.up(&old).success();
    cluster.apply(&deployment(&life::image(ground, "web"), 2, ""));
    cluster.wait_for_rollout("deployment/app");
    cluster.apply(BUDGET);
    let upgrade = || ground.bivouac(["upgrade", cluster.name(), "--to", NEW]);
    let failed = upgrade().args(["--drain-timeout", "10s"]).outcome().expect_code(1);
    let failed = failed.expect_errors(&["is as it was", OLD, "PodDisruptionBudget default/all"]);
    let _ = failed.expect_errors(&["control-plane-0: updated", "engine.upgrade_taken_back"]);
    assert_version(&cluster, OLD);
    cluster.wait_for_rollout("deployment/app");
    let _ = cluster.up(&old).success().expect_output(&["nothing changed"]);

    // Killed in between, it is taken back by the file as it was, and afterwards done by the other.
    let _ = cluster.kubectl(["delete", "poddisruptionbudget", "all"]).success();
    let running = upgrade().start();
    let _ = running.wait_for_error_line("a worker to be out of work", |line| {
        line.contains("drain node worker-0")
    });
    running.kill();
    let _ = running.finish(SOON).expect_code(128 + 9);
    let _ = cluster.up(&old).success();
    assert_version(&cluster, OLD);
    let _ = cluster.up(&file(&cluster, NEW, 2)).success();
    assert_version(&cluster, NEW);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}
