//! Snapshots and forks: what a cluster was comes back, and a second one lives beside the first.

use std::collections::BTreeSet;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Outcome, SOON, case, fetch, free_ports, wait_until,
};

use crate::{life, load};

pub(crate) const CASES: [Case; 4] = [
    case("snapshot/save_and_restore", About::Grounds, save_and_restore),
    case("snapshot/fork", About::Grounds, fork),
    case("snapshot/control_planes", About::Grounds, control_planes),
    case("snapshot/refusals", About::Grounds, refusals),
];

const NODE_PORT: u16 = 30080;
const WORKER: &str = "  nodes:\n  - {role: control-plane}\n  - {role: worker}\n";

/// A web app with a file in a volume, and a ConfigMap.
fn deploy(cluster: &Cluster<'_>) {
    let (web, busybox) =
        (life::image(cluster.ground(), "web"), life::image(cluster.ground(), "busybox"));
    cluster.apply(&format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{name: web, image: {web}, imagePullPolicy: IfNotPresent, ports: [{{containerPort: 8080}}]}}
      - name: keeper
        image: {busybox}
        imagePullPolicy: IfNotPresent
        args: [-c, \"[ -e /data/word ] || echo saved > /data/word; sleep 1000000\"]
        volumeMounts: [{{name: data, mountPath: /data}}]
      volumes: [{{name: data, persistentVolumeClaim: {{claimName: data}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080, nodePort: {NODE_PORT}}}]
"
    ));
    let made = ["create", "configmap", "word", "--from-literal=word=saved"];
    let _ = cluster.kubectl(made).success();
    cluster.wait_for_rollout("deployment/web");
    expect_word(cluster, "saved");
}

/// The word in the volume: of the pod, so it runs.
fn volume(cluster: &Cluster<'_>) -> String {
    let cat = ["exec", "deployment/web", "-c", "keeper", "--", "/bin/sh", "-c", "cat /data/word"];
    wait_until("a pod says what is in its volume", SOON, || answer(&cluster.kubectl(cat).outcome()))
}

fn answer(outcome: &Outcome) -> Result<String, String> {
    if outcome.code == 0 { Ok(outcome.stdout()) } else { Err(outcome.to_string()) }
}

#[track_caller]
fn expect_word(cluster: &Cluster<'_>, word: &str) {
    let get = ["get", "configmap", "word", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(get).success().stdout(), word);
    assert_eq!(volume(cluster).trim(), word);
}

fn change(cluster: &Cluster<'_>, word: &str) {
    let patch = format!("{{\"data\":{{\"word\":\"{word}\"}}}}");
    let _ = cluster.kubectl(["patch", "configmap", "word", "--patch", &patch]).success();
    let script = format!("echo {word} > /data/word");
    let write = ["exec", "deployment/web", "-c", "keeper", "--", "/bin/sh", "-c", &script];
    let _ = cluster.kubectl(write).success();
    expect_word(cluster, word);
}

/// The web app answers other pods by its name, and a pod of today runs.
fn is_alive(cluster: &Cluster<'_>, client: &str) {
    cluster.wait_for_rollout("deployment/web");
    let image = life::image(cluster.ground(), "web");
    let ask = ["get", "http://web.default.svc.cluster.local"];
    let _ = life::run_once(cluster, client, "control-plane-0", &image, &ask).success();
    let _ = cluster.printed_by(client).expect_output(&["hostname: web-"]);
}

fn save_and_restore(ground: &Ground) {
    let cluster = ground.cluster("saved");
    let before = HostSnapshot::take(ground);
    let name = cluster.name().to_owned();
    let _ = cluster.up(&cluster.file(WORKER)).success();
    deploy(&cluster);
    let loaded = load::Loaded::new(&cluster, "saved");

    let saved = ground.bivouac(["snapshot", "save", "first", &name, "--output", "json"]);
    let saved = saved.success().json();
    assert_eq!((&saved["name"], &saved["nodes"]), (&"first".into(), &2.into()), "{saved:#}");
    // It went on, and nothing in it noticed.
    assert_eq!(cluster.status()["usable"], true);
    for node in ["control-plane-0", "worker-0"] {
        assert_eq!(cluster.unit(node, "kubelet")["restarts"], 0);
    }
    expect_word(&cluster, "saved");
    let again = ground.bivouac(["snapshot", "save", "first", &name]).outcome().expect_code(2);
    let _ = again.expect_errors(&["snapshot.name_taken"]);

    change(&cluster, "changed");
    let _ = cluster.kubectl(["delete", "service", "web"]).success();
    let _ = ground.bivouac(["node", "add", "--cluster", &name]).success();
    let addresses = ["control-plane-0", "worker-0"].map(|node| cluster.address(node));

    let _ = ground.bivouac(["snapshot", "restore", "first", &name]).success();
    expect_word(&cluster, "saved");
    is_alive(&cluster, "client");
    let nodes = cluster.get(["nodes"]);
    assert_eq!(nodes["items"].as_array().map(Vec::len), Some(2), "{nodes:#}");
    assert_eq!(["control-plane-0", "worker-0"].map(|node| cluster.address(node)), addresses);
    assert_eq!(
        cluster.up(&cluster.file(WORKER)).args(["-o", "json"]).success().json()["changed"],
        false
    );

    // A cluster that was removed comes back.
    let down = cluster.down().success();
    let _ = down.expect_errors(&["first", "bivouac snapshot delete"]);
    let _ = ground.bivouac(["snapshot", "list"]).success().expect_output(&[&name, "first"]);
    let _ = ground.bivouac(["snapshot", "restore", "first"]).success();
    expect_word(&cluster, "saved");
    is_alive(&cluster, "client");
    // Nobody else has what was loaded.
    loaded.runs(&cluster, "restored");
    let _ = cluster.down().success();
    let _ = ground.bivouac(["snapshot", "delete", "first", "--cluster", &name]).success();
    assert!(!ground.state().join("snapshots").exists());
    before.expect_nothing_left(ground);
}

fn fork(ground: &Ground) {
    let (first, second) = (ground.cluster("first"), ground.cluster("second"));
    let before = HostSnapshot::take(ground);
    let [port] = free_ports();
    let spec = format!("{WORKER}  ports: [{{hostPort: {port}, port: {NODE_PORT}}}]\n");
    let _ = first.up(&first.file(&spec)).success();
    deploy(&first);

    let forked = ground.bivouac(["fork", second.name(), first.name(), "--output", "json"]);
    let forked = forked.success();
    let told = format!("tcp port {NODE_PORT} is at 127.0.0.1:");
    let line = forked.stderr.lines().find(|line| line.contains(&told));
    let line = line.unwrap_or_else(|| panic!("nothing says where the port is: {forked}"));
    let rest = line.split(&told).nth(1).unwrap_or_default();
    let other: String = rest.chars().take_while(char::is_ascii_digit).collect();
    assert_eq!(forked.json()["nodes"], 2);
    for cluster in [&first, &second] {
        expect_word(cluster, "saved");
        is_alive(cluster, "client");
    }
    assert_ne!(first.address("worker-0"), second.address("worker-0"));
    for port in [port.to_string(), other] {
        let page =
            wait_until("a published port answers", SOON, || fetch(&format!("127.0.0.1:{port}")));
        assert!(page.contains("hostname: web-"), "{page}");
    }
    // What happens to one does not happen to the other.
    change(&second, "forked");
    change(&first, "changed");
    expect_word(&second, "forked");
    let status = second.status();
    assert_eq!((&status["usable"], &status["problems"]), (&true.into(), &serde_json::Value::Null));
    let taken = ground.bivouac(["fork", second.name(), first.name()]).outcome().expect_code(2);
    let _ = taken.expect_errors(&["engine.name_taken"]);

    // The fork is a cluster like any other, also without the first.
    let _ = first.down().success();
    let _ = ground.bivouac(["restart", second.name()]).success();
    expect_word(&second, "forked");
    let _ = second.down().success();
    assert!(!ground.state().join("snapshots").exists(), "what was saved for the fork is gone");
    before.expect_nothing_left(ground);
}

fn control_planes(ground: &Ground) {
    let (first, second) = (ground.cluster("three"), ground.cluster("copy"));
    let before = HostSnapshot::take(ground);
    let _ = first.up(&first.file("  nodes: [{role: control-plane, count: 3}]\n")).success();
    lead_elsewhere(ground, &first);
    // It hears nothing more, and would found the fork without what the others have confirmed.
    let stop = ["exec", "control-plane-0", "--cluster", first.name(), "--"];
    let stop = stop.into_iter().chain(["pkill", "-STOP", "-x", "etcd"]);
    let _ = ground.bivouac(stop).success();
    let confirmed = save_among_writes(ground, &first);
    wait_until("somebody writes", SOON, || create(&first, "later"));
    let _ = ground.bivouac(["snapshot", "restore", "whole", first.name()]).success();
    let fork = ["fork", second.name(), "--snapshot", "whole"];
    let _ = ground.bivouac(fork).success();
    let [restored, forked] = [&first, &second].map(words);
    for words in [&restored, &forked] {
        assert!(confirmed.is_subset(words), "{confirmed:?} {words:?}");
        // Of what was written one after another, nothing in between is missing.
        assert_eq!(words.len(), words.last().map_or(0, |last| last + 1), "{words:?}");
    }
    // At most one was on its way.
    assert!(restored.len().abs_diff(forked.len()) <= 1, "{restored:?} {forked:?}");
    for cluster in [&first, &second] {
        // Any of them may be lost.
        cluster.stop_node("control-plane-0");
        wait_until("the others answer", SOON, || create(cluster, "later"));
    }
    let _ = first.down().success();
    let _ = second.down().success();
    let _ = ground.bivouac(["snapshot", "delete", "whole"]).success();
    before.expect_nothing_left(ground);
}

fn create(cluster: &Cluster<'_>, name: &str) -> Result<(), String> {
    let made = cluster.kubectl(["create", "configmap", name, "--request-timeout=10s"]).outcome();
    // One that was cut short has made it all the same.
    let is_made = made.code == 0 || made.stderr.contains("AlreadyExists");
    if is_made { Ok(()) } else { Err(made.to_string()) }
}

/// Who founds a fork need not be who hears of everything first. Only who leads can be told to let another lead.
fn lead_elsewhere(ground: &Ground, cluster: &Cluster<'_>) {
    let script = "export ETCDCTL_ENDPOINTS=unix:///run/etcd/client.sock
        exec etcdctl move-leader $(etcdctl member list | grep control-plane-1 | cut -d, -f1)";
    let mut refused = String::new();
    // The one that leads then would let itself lead, too.
    let is_done = (0..3).any(|index| {
        let node = format!("control-plane-{index}");
        let command = ["exec", &node, "--cluster", cluster.name(), "--", "/bin/sh", "-c", script];
        let asked = ground.bivouac(command).outcome();
        refused.push_str(&format!("{asked}\n"));
        asked.code == 0
    });
    assert!(is_done, "nobody let control-plane-1 lead:\n{refused}");
}

/// Saves a cluster while somebody writes to it. Gives what was confirmed before.
fn save_among_writes(ground: &Ground, cluster: &Cluster<'_>) -> BTreeSet<usize> {
    let mut next = 0..;
    let mut write = || {
        let word = format!("word-{}", next.next().unwrap_or_default());
        // The API of the one whose etcd is silent answers nothing, until clients are led past it.
        wait_until("somebody writes", SOON, || create(cluster, &word));
    };
    (0..3).for_each(|_| write());
    let saving = ground.bivouac(["snapshot", "save", "whole", cluster.name()]).start();
    while !saving.has_ended() {
        write();
    }
    let _ = saving.finish(SOON).expect_code(0);
    (0..3).collect()
}

/// The numbers of what was written.
fn words(cluster: &Cluster<'_>) -> BTreeSet<usize> {
    let list = ["get", "configmaps", "--output", "jsonpath={.items[*].metadata.name}"];
    let names = cluster.kubectl(list).success().stdout();
    let words = names.split_whitespace().filter_map(|name| name.strip_prefix("word-"));
    words.map(|number| number.parse().expect("words are numbered")).collect()
}

fn refusals(ground: &Ground) {
    let cluster = ground.cluster("refused");
    let _ = cluster.up_single().success();
    let name = cluster.name();
    let refused = |arguments: &[&str], code: i32, errors: &[&str]| {
        let run = ground.bivouac(arguments.iter().copied());
        let _ = run.outcome().expect_code(code).expect_errors(errors);
    };
    refused(&["snapshot", "restore", "no"], 2, &["there is no snapshot"]);
    refused(&["fork", name], 2, &["fork.same_name"]);
    let _ = ground.bivouac(["snapshot", "save", "monday"]).success();
    refused(&["snapshot", "restore", "munday"], 2, &["snapshot.unknown", "`monday`"]);
    refused(&["snapshot", "delete", "tuesday"], 2, &["snapshot.unknown"]);
    refused(&["fork", "e2e-other", "--snapshot", "munday"], 2, &["`monday`"]);
    let _ = ground.bivouac(["stop", name]).success();
    refused(&["snapshot", "save", "stopped"], 1, &["snapshot.not_running", "bivouac start"]);

    // Killed at work, the same command finishes it; nothing else touches it before.
    let restore = ["snapshot", "restore", "monday", "--progress", "lines"];
    let running = ground.bivouac(restore).start();
    let _ = running.wait_for_error_line("data on its way", |line| line.starts_with("data to"));
    running.kill();
    let _ = running.finish(SOON);
    refused(&["up", name], 2, &["engine.restoring", "bivouac snapshot restore monday"]);
    let status = ground.bivouac(["status", name]).outcome().expect_code(1);
    let _ = status.expect_output(&["not usable", "bivouac snapshot restore monday"]);
    let _ = ground.bivouac(["snapshot", "restore", "monday"]).success();
    let _ = ground.bivouac(["status", name]).success();
    let _ = cluster.down().success();
    let _ = ground.bivouac(["snapshot", "delete", "monday"]).success();
}
