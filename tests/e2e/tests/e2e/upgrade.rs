//! Another version, node by node: what runs and what it knows stays, and what fails is taken back.

use std::time::Duration;

use bivouac_e2e::{
    About, Bootstrap, Case, Cluster, Ground, HostSnapshot, Run, SOON, case, say, wait_until,
};
use serde_json::Value;

use crate::life;

pub(crate) const CASES: [Case; 2] = [
    case("upgrade/the_app_keeps_its_data", About::Pairs, the_app_keeps_its_data),
    case("upgrade/what_fails_is_taken_back", About::Grounds, what_fails_is_taken_back),
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

/// The cluster file with this version and so many control planes and workers.
fn file(cluster: &Cluster<'_>, version: &str, [planes, workers]: [u32; 2]) -> std::path::PathBuf {
    let bootstrap = cluster.setting().bootstrap;
    cluster.file(&format!(
        "  stack: {{kubernetes: {{bootstrap: {bootstrap}, version: {version}}}}}\n  nodes:\n  \
         - {{role: control-plane, count: {planes}}}\n  - {{role: worker, count: {workers}}}\n"
    ))
}

/// Whether a node is Ready, takes pods, and has this version by its kubelet.
fn is_well(node: &Value, version: &str) -> bool {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.all(|ready| ready["status"] == "True")
        && node["spec"]["unschedulable"].is_null()
        && node["status"]["nodeInfo"]["kubeletVersion"] == version
}

/// What the API server says that it is.
fn api_server(cluster: &Cluster<'_>) -> String {
    let version = cluster.kubectl(["version", "--output=json"]).success().json();
    version["serverVersion"]["gitVersion"].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn assert_version(cluster: &Cluster<'_>, version: &str) {
    assert_eq!(api_server(cluster), version);
    wait_until("all nodes are Ready with the version", SOON, || {
        let nodes = cluster.get(["nodes"]);
        let mut all = nodes["items"].as_array().into_iter().flatten();
        if all.all(|node| is_well(node, version)) { Ok(()) } else { Err(format!("{nodes:#}")) }
    });
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
    // Some lose a control plane at a time; those of one are without it meanwhile.
    let counts = match cluster.setting().bootstrap {
        Bootstrap::Services => [3, 1],
        Bootstrap::Kubeadm => [1, 1],
    };
    let _ = cluster.up(&file(&cluster, OLD, counts)).success().expect_output(&[OLD]);
    assert_version(&cluster, OLD);
    let image = life::image(ground, "busybox");
    cluster.apply(&deployment(&image, 1, KEEPS_A_WORD));
    cluster.wait_for_rollout("deployment/app");
    let _ = cluster.kubectl(["create", "configmap", "kept"]).success();

    let upgrade = |arguments: &[&str]| ground.bivouac(["upgrade", cluster.name()]).args(arguments);
    let planned = upgrade(&["--to", NEW, "--dry-run"]).success();
    let order: Vec<_> = planned.stdout().lines().map(str::to_owned).collect();
    for (number, line) in (0..counts[0]).zip(&order) {
        let remade = format!("remake node control-plane-{number} around its data");
        assert!(line.starts_with(&remade), "{remade}: {planned}");
    }
    let last = order.iter().rfind(|line| line.starts_with("remake node"));
    let is_last = last.is_some_and(|last| last.starts_with("remake node worker-0 around its data"));
    assert!(is_last, "{planned}");
    let skips = upgrade(&["--to", "v1.38.0"]).outcome().expect_code(2);
    let _ = skips.expect_errors(&["v1.38.0", NEW, OLD]);
    assert_version(&cluster, OLD);

    upgraded(&cluster, upgrade(&["--to", NEW]), counts[0] > 1);
    assert_version(&cluster, NEW);
    let _ = cluster.kubectl(["get", "configmap", "kept"]).success();
    cluster.wait_for_rollout("deployment/app");
    let word = cluster.kubectl(["exec", "deployment/app", "--", "cat", "/data/word"]).success();
    assert_eq!(word.stdout(), "survived\n");
    let _ = upgrade(&[]).success().expect_output(&["nothing changed"]);
    let back = cluster.up(&file(&cluster, OLD, counts)).outcome().expect_code(2);
    let _ = back.expect_errors(&["would go back from", "bivouac down"]);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// Runs it. Where there is more than one control plane the API answers meanwhile: who was led to a server that stops, and asks again, is
/// led to another one.
fn upgraded(cluster: &Cluster<'_>, upgrade: Run, answers: bool) {
    let running = upgrade.start();
    let (mut answered, mut failed, mut in_a_row, mut longest) = (0, 0, 0, 0);
    while answers && !running.has_ended() {
        wait_until("the API answers who asks again", SOON, || {
            let asked = cluster.kubectl(["get", "configmap", "kept"]).outcome();
            *if asked.code == 0 { &mut answered } else { &mut failed } += 1;
            in_a_row = if asked.code == 0 { 0 } else { in_a_row + 1 };
            longest = longest.max(in_a_row);
            if asked.code == 0 { Ok(()) } else { Err(asked.to_string()) }
        });
    }
    let _ = running.finish(10 * SOON).expect_code(0).expect_output(&[NEW]);
    say(&format!(
        "meanwhile the API answered {answered} times and failed {failed} times, at most {longest} times in a row"
    ));
    assert!(!answers || answered > 0, "nobody asked");
}

/// Nobody makes a pod anew that stands alone, so it is not evicted, and its node not stopped, when the control plane is upgraded already.
fn what_fails_is_taken_back(ground: &Ground) {
    let cluster = ground.cluster("back");
    ensure_old_image(ground);
    let before = HostSnapshot::take(ground);
    let old = file(&cluster, OLD, [1, 2]);
    let _ = cluster.up(&old).success();
    let image = life::image(ground, "web");
    let _ = life::run_once(&cluster, "alone", "worker-0", &image, &[]).success();
    cluster.wait("pod/alone", "condition=Ready");
    let upgrade = || ground.bivouac(["upgrade", cluster.name(), "--to", NEW]);
    let failed = upgrade().outcome().expect_code(1);
    let failed =
        failed.expect_errors(&["is as it was", OLD, "drain node worker-0", "default/alone"]);
    let _ = failed.expect_errors(&["control-plane-0: updated", "engine.upgrade_taken_back"]);
    assert_version(&cluster, OLD);
    cluster.wait("pod/alone", "condition=Ready");
    let _ = cluster.up(&old).success().expect_output(&["nothing changed"]);

    // Killed in between, it is taken back by the file as it was.
    let _ = cluster.kubectl(["delete", "pod", "alone", "--grace-period=0", "--force"]).success();
    let running = upgrade().start();
    let _ = running.wait_for_error_line("a worker to be out of work", |line| {
        line.contains("drain node worker-0")
    });
    running.kill();
    let _ = running.finish(SOON).expect_code(128 + 9);
    let _ = cluster.up(&old).success();
    assert_version(&cluster, OLD);
    // And by the file of the newer version it comes to its end.
    let _ = cluster.up(&file(&cluster, NEW, [1, 2])).success();
    assert_version(&cluster, NEW);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}
