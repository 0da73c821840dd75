//! bivouac is killed in the middle of a verb, with all that it started, and the same command is run again: it comes to what an
//! undisturbed one comes to.
//!
//! The tests of the engine end each verb at each of its calls, over a ground in memory. Here is what that cannot show: processes, mounts
//! and files that a real ground is left with. So a verb is killed a few times in a row, each time when another kind of thing is in the
//! making, before it may come to its end.

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Outcome, Run, SOON, case, say, wait_until,
};
use serde_json::{Value, json};

pub(crate) const CASES: [Case; 5] = [
    case("killed/up", About::Grounds, up),
    case("killed/node_add", About::Grounds, node_add),
    case("killed/upgrade", About::Grounds, upgrade),
    case("killed/snapshot_restore", About::Grounds, snapshot_restore),
    case("killed/down", About::Grounds, down),
];

const OLD: &str = "v1.36.1";
const NEW: &str = "v1.36.3";

fn up(ground: &Ground) {
    let cluster = ground.cluster("killed-up");
    let before = HostSnapshot::take(ground);
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let up = || cluster.up(&file);
    let _ = up().success();
    let wanted = picture(&cluster);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
    // It is recorded, and nothing is made; nodes boot; one has everything, and the user's access is missing.
    kill_and_finish(&up, &["planned", "node-started", "node-usable"]);
    expect_picture(&cluster, &wanted);
    let again = up().args(["--output", "json"]).success().json();
    assert_eq!(again["changed"], false, "{again:#}");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn node_add(ground: &Ground) {
    let cluster = ground.cluster("killed-add");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let node = |verb: &str| ground.bivouac(["node", verb, "--cluster", cluster.name()]);
    let add = || node("add");
    let _ = add().success();
    let wanted = without_names(&picture(&cluster));
    let _ = node("remove").args(["worker-0"]).success();
    // The others know of the new one, which is not there; it boots.
    kill_and_finish(&add, &["node-updated", "node-started"]);
    wait_until("there is one worker more", SOON, || {
        let found = without_names(&picture(&cluster));
        if found == wanted { Ok(()) } else { Err(format!("{found}, and not {wanted}")) }
    });
    let plan = ground.bivouac(["plan", "--output", "json", cluster.name()]).success().json();
    assert_eq!(plan["actions"], json!([]), "{plan:#}");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// With all workers called the same: what is added has another name each time.
fn without_names(picture: &Value) -> String {
    let names = picture["members"].as_array().into_iter().flatten().map(|member| &member[0]);
    let workers = names.filter_map(Value::as_str).filter(|name| name.starts_with("worker"));
    workers.fold(picture.to_string(), |text, name| text.replace(name, "worker"))
}

fn upgrade(ground: &Ground) {
    let cluster = ground.cluster("killed-upgrade");
    let before = HostSnapshot::take(ground);
    let upgrade = || ground.bivouac(["upgrade", cluster.name(), "--to", NEW]);
    let old = cluster.file(&format!("  stack: {{kubernetes: {{version: {OLD}}}}}\n"));
    let _ = cluster.up(&old).success();
    let _ = cluster.kubectl(["create", "configmap", "kept"]).success();
    let wanted = picture(&cluster).to_string().replace(OLD, NEW);
    let wanted: Value = serde_json::from_str(&wanted).expect("versions are texts");
    // The new version is recorded, and the node is the old one; the new one boots around its data.
    kill_and_finish(&upgrade, &["planned", "node-status"]);
    expect_picture(&cluster, &wanted);
    let _ = cluster.kubectl(["get", "configmap", "kept"]).success();
    let _ = upgrade().success().expect_output(&["nothing changed"]);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn snapshot_restore(ground: &Ground) {
    let cluster = ground.cluster("killed-restore");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up_single().success();
    let snapshot = |verb: &str| ground.bivouac(["snapshot", verb, "whole"]);
    let _ = cluster.kubectl(["create", "configmap", "kept"]).success();
    let wanted = picture(&cluster);
    let _ = snapshot("save").success();
    let _ = cluster.kubectl(["create", "configmap", "later"]).success();
    // The cluster is gone, and only the snapshot has it; its node is there without data; with data, it becomes what it was.
    let restore = || snapshot("restore");
    kill_and_finish(&restore, &["node-removed", "node-started", "node-status"]);
    expect_picture(&cluster, &wanted);
    let _ = cluster.kubectl(["get", "configmap", "kept"]).success();
    let _ = cluster.kubectl(["get", "configmap", "later"]).outcome().expect_code(1);
    let _ = cluster.down().success();
    let _ = snapshot("delete").success();
    before.expect_nothing_left(ground);
}

fn down(ground: &Ground) {
    let cluster = ground.cluster("killed-down");
    let before = HostSnapshot::take(ground);
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let _ = cluster.up(&file).success();
    // Nodes stop; they are gone, and what bivouac knows of them is not.
    kill_and_finish(&|| cluster.down(), &["planned", "node-removed"]);
    before.expect_nothing_left(ground);
}

/// Kills a verb upon the first event of each of these kinds, and lets it come to its end then.
///
/// A kill may come late: the next run then finds done what it was to be killed for. But each kind comes in one of the runs, and the first in
/// the first.
fn kill_and_finish(verb: &dyn Fn() -> Run, events: &[&str]) {
    let verb = || verb().env("BIVOUAC_PROGRESS", "json");
    let line = |event: &str| format!("\"event\":\"{event}\"");
    let mut said = String::new();
    for event in events {
        let outcome = kill(verb(), event, &line(event));
        said.push_str(&outcome.stderr);
        assert!(said.contains(&line(event)) || *event != events[0], "no {event}: {outcome}");
        if outcome.code == 0 {
            // It came to its end before it was killed, and has done what it was asked for.
            return;
        }
    }
    said.push_str(&verb().success().stderr);
    for event in events {
        assert!(said.contains(&line(event)), "no run said {event}: {said}");
    }
}

/// Kills a verb when it says this line, unless it is quicker.
fn kill(verb: Run, event: &str, wanted: &str) -> Outcome {
    let verb = verb.start();
    let came = verb.sees_error_line(event, |line| line.contains(wanted));
    verb.kill_group();
    let outcome = verb.finish(SOON);
    say(&format!("killed upon {event}, which came: {came}; exit code {}", outcome.code));
    assert!([0, 128 + 9].contains(&outcome.code), "{outcome}");
    outcome
}

#[track_caller]
fn expect_picture(cluster: &Cluster<'_>, wanted: &Value) {
    wait_until("the cluster is as after an undisturbed run", SOON, || {
        let found = picture(cluster);
        if found == *wanted { Ok(()) } else { Err(format!("{found:#}, and not {wanted:#}")) }
    });
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
