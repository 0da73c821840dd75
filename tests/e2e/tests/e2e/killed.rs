//! bivouac is killed in the middle of a verb, with all that it started, and the same command is run again: it comes to what an
//! undisturbed one comes to.

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, Run, SOON, case, say};
use serde_json::{Value, json};

pub(crate) const CASES: [Case; 5] = [
    case("killed/up", About::Grounds, up),
    case("killed/node_add", About::Grounds, node_add),
    case("killed/upgrade", About::Grounds, upgrade),
    case("killed/snapshot_restore", About::Grounds, snapshot_restore),
    case("killed/down", About::Grounds, down),
];

/// At how many moments of a verb, at equal distances by its events.
const MOMENTS: usize = 5;

fn up(ground: &Ground) {
    let cluster = ground.cluster("killed-up");
    let before = HostSnapshot::take(ground);
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let up = || cluster.up(&file);
    let events = count_events(up());
    let wanted = picture(&cluster);
    for moment in moments(events) {
        let _ = cluster.down().success();
        before.expect_nothing_left(ground);
        kill(up(), moment);
        let _ = up().success();
        assert_eq!(picture(&cluster), wanted, "killed upon event {moment} of {events}");
        let again = up().args(["--output", "json"]).success().json();
        assert_eq!(again["changed"], false, "{again:#}");
    }
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn node_add(ground: &Ground) {
    let cluster = ground.cluster("killed-add");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let node = |verb: &str| ground.bivouac(["node", verb, "--cluster", cluster.name()]);
    let events = count_events(node("add"));
    let (mut worker, wanted) = with_one_worker(&cluster);
    for moment in moments(events) {
        let _ = node("remove").args([&worker]).success();
        kill(node("add"), moment);
        let _ = node("add").success();
        let (added, picture) = with_one_worker(&cluster);
        assert_eq!(picture, wanted, "killed upon event {moment} of {events}");
        let plan = ground.bivouac(["plan", "--output", "json", cluster.name()]).success().json();
        assert_eq!(plan["actions"], json!([]), "{plan:#}");
        worker = added;
    }
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// The name of the worker, which is another one each time, and the picture without it.
fn with_one_worker(cluster: &Cluster<'_>) -> (String, String) {
    let picture = picture(cluster);
    let names = picture["members"].as_array().into_iter().flatten().map(|member| &member[0]);
    let mut workers = names.filter_map(Value::as_str).filter(|name| name.starts_with("worker"));
    let worker = workers.next().unwrap_or_else(|| panic!("no worker: {picture:#}")).to_owned();
    let picture = picture.to_string().replace(&worker, "worker");
    (worker, picture)
}

fn upgrade(ground: &Ground) {
    let cluster = ground.cluster("killed-upgrade");
    let before = HostSnapshot::take(ground);
    let file = cluster.file("  stack: {kubernetes: {version: v1.36.1}}\n");
    let upgrade = || ground.bivouac(["upgrade", cluster.name(), "--to", "v1.36.3"]);
    let _ = cluster.up(&file).success();
    let events = count_events(upgrade());
    let wanted = picture(&cluster);
    for moment in moments(events) {
        let _ = cluster.down().success();
        let _ = cluster.up(&file).success();
        kill(upgrade(), moment);
        let _ = upgrade().success();
        assert_eq!(picture(&cluster), wanted, "killed upon event {moment} of {events}");
    }
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn snapshot_restore(ground: &Ground) {
    let cluster = ground.cluster("killed-restore");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let snapshot = |verb: &str| ground.bivouac(["snapshot", verb, "whole"]);
    let _ = cluster.kubectl(["create", "configmap", "kept"]).success();
    let _ = snapshot("save").success();
    let events = count_events(snapshot("restore"));
    let wanted = picture(&cluster);
    for moment in moments(events) {
        let _ = cluster.kubectl(["create", "configmap", "later"]).success();
        kill(snapshot("restore"), moment);
        let _ = snapshot("restore").success();
        assert_eq!(picture(&cluster), wanted, "killed upon event {moment} of {events}");
        let _ = cluster.kubectl(["get", "configmap", "kept"]).success();
        let _ = cluster.kubectl(["get", "configmap", "later"]).outcome().expect_code(1);
    }
    let _ = cluster.down().success();
    let _ = snapshot("delete").success();
    before.expect_nothing_left(ground);
}

fn down(ground: &Ground) {
    let cluster = ground.cluster("killed-down");
    let before = HostSnapshot::take(ground);
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let _ = cluster.up(&file).success();
    let events = count_events(cluster.down());
    for moment in moments(events) {
        let _ = cluster.up(&file).success();
        kill(cluster.down(), moment);
        let _ = cluster.down().success();
        before.expect_nothing_left(ground);
    }
}

fn with_events(verb: Run) -> Run {
    verb.env("BIVOUAC_PROGRESS", "json")
}

/// How many events an undisturbed run has.
fn count_events(verb: Run) -> usize {
    with_events(verb).success().stderr.lines().count()
}

fn moments(events: usize) -> Vec<usize> {
    let mut moments: Vec<usize> =
        (1..=MOMENTS).map(|part| (part * events / (MOMENTS + 1)).max(1)).collect();
    moments.dedup();
    moments
}

fn kill(verb: Run, event: usize) {
    let verb = with_events(verb).start();
    let is_there = verb.wait_for_error_lines(event);
    verb.kill_group();
    let outcome = verb.finish(SOON);
    let last = outcome.stderr.lines().last().and_then(|line| serde_json::from_str(line).ok());
    let last: Value = last.unwrap_or_default();
    say(&format!("killed upon event {event}, {}: {}", last["event"], outcome.code));
    // One that had fewer events this time has done what it was asked for.
    let _ = outcome.expect_code(if is_there { 137 } else { 0 });
}

/// A cluster without what differs from one life to the next.
fn picture(cluster: &Cluster<'_>) -> Value {
    let status = cluster.status();
    let node = |(name, node): (&String, &Value)| {
        let units = node["status"]["units"].as_array().into_iter().flatten();
        // Not how far they are: nobody waits for some of them.
        let units: Vec<&Value> = units.map(|unit| &unit["name"]).collect();
        json!([name, node["state"], node["address"], node["status"]["phase"], units])
    };
    let nodes: Vec<Value> = status["nodes"].as_object().into_iter().flatten().map(node).collect();
    let objects = cluster.get(["nodes"]);
    let member = |object: &Value| {
        let version = &object["status"]["nodeInfo"]["kubeletVersion"];
        let spec = &object["spec"];
        json!([object["metadata"]["name"], version, spec["podCIDR"], spec["taints"]])
    };
    let members: Vec<Value> =
        objects["items"].as_array().into_iter().flatten().map(member).collect();
    json!({"usable": status["usable"], "nodes": nodes, "members": members})
}
