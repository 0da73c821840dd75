//! What was killed comes back: a service, a node, and bivouac itself in the middle of its work.

use std::path::Path;

use bivouac_e2e::{Cluster, Ground, HostSnapshot, Run, Running, SOON, wait_until};

const NODE: &str = "control-plane-0";

#[test]
fn what_is_killed_comes_back() {
    let ground = Ground::new();
    let cluster = ground.cluster("healing");
    let _ = cluster.up_by_name().success();
    a_killed_kubelet(&cluster);
    a_killed_agent(&cluster);
}

fn a_killed_kubelet(cluster: &Cluster<'_>) {
    let before = cluster.unit(NODE, "kubelet");
    let pid =
        before["pid"].as_u64().unwrap_or_else(|| panic!("the kubelet has no pid: {before:#}"));
    assert_eq!(before["restarts"], 0, "{before:#}");
    let _ = cluster.exec(NODE, ["kill", "-9", &pid.to_string()]).success();
    let after = wait_until("the kubelet runs again", SOON, || {
        let unit = cluster.unit(NODE, "kubelet");
        let again = unit["state"] == "ready" && unit["pid"].as_u64().is_some_and(|now| now != pid);
        if again { Ok(unit) } else { Err(format!("{unit:#}")) }
    });
    assert_eq!(after["restarts"], 1, "{after:#}");
    wait_until("the cluster is usable again", SOON, || {
        let status = cluster.status();
        if status["usable"] == true { Ok(()) } else { Err(format!("{status:#}")) }
    });
    let _ =
        cluster.kubectl(["wait", "--for=condition=Ready", "node", NODE, "--timeout=60s"]).success();
}

fn a_killed_agent(cluster: &Cluster<'_>) {
    let name = cluster.name();
    let _ =
        cluster.kubectl(["create", "configmap", "kept", "--from-literal=word=survived"]).success();
    let address = cluster.address(NODE);
    kill_agent(cluster, NODE);
    let status = cluster.ground().bivouac(["status", name]).outcome().expect_code(1);
    let _ = status.expect_output(&["stopped", &format!("bivouac up {name}")]);

    let again = cluster.up_by_name().args(["--output", "json"]).success().json();
    assert_eq!(again["changed"], true, "{again:#}");
    assert_eq!(again["actions"][0]["action"], "start-node", "{again:#}");
    assert_eq!(cluster.address(NODE), address);
    let word =
        cluster.kubectl(["get", "configmap", "kept", "-o", "jsonpath={.data.word}"]).success();
    assert_eq!(word.stdout(), "survived");
    let _ = cluster.ground().bivouac(["status", name]).success();
}

#[test]
fn a_cluster_outlives_one_of_three_control_planes() {
    let ground = Ground::new();
    let cluster = ground.cluster("three");
    let file = cluster.file("  nodes:\n  - {role: control-plane, count: 3}\n");
    let _ = cluster.up(&file).success();
    let other = format!("--server=https://{}:6443", cluster.address("control-plane-1"));
    kill_agent(&cluster, NODE);

    wait_until("the others take a change", SOON, || {
        let made = ["create", "configmap", "meanwhile", "--from-literal=word=kept"];
        let made = cluster.kubectl([&other]).args(made).outcome();
        if made.code == 0 { Ok(()) } else { Err(made.to_string()) }
    });
    let _ = cluster.up(&file).success();
    let word = ["get", "configmap", "meanwhile", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(word).success().stdout(), "kept");
}

fn kill_agent(cluster: &Cluster<'_>, node: &str) {
    let pid = first_process(cluster.name(), node).expect("a running node has a first process");
    let _ = Run::new("kill").args(["-9", &pid.to_string()]).success();
    wait_until("the node is seen to be stopped", SOON, || {
        let state = cluster.status()["nodes"][node]["state"].clone();
        if state == "stopped" { Ok(()) } else { Err(format!("{state}")) }
    });
}

/// The first process of a node in the host's numbering: the agent, which says on its command line whose it is.
fn first_process(cluster: &str, node: &str) -> Option<u32> {
    let label = format!("{cluster}/{node}");
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let command = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
            .unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == label.as_bytes())
    })
}

#[test]
fn an_up_that_is_killed_goes_on_when_it_is_run_again() {
    let ground = Ground::new();
    let cluster = ground.cluster("killed");
    let before = HostSnapshot::take(&ground);
    // Each goes on from what the one before left.
    for moment in ["started", "planned", "node-started", "node-status"] {
        kill_up_at(&cluster, moment);
    }
    let _ = cluster.up_by_name().success();
    let _ =
        cluster.kubectl(["wait", "--for=condition=Ready", "node", NODE, "--timeout=60s"]).success();
    let _ = cluster.down().success();
    before.expect_nothing_left(&ground);

    // What is there only in part can be removed as it is.
    for moment in ["planned", "node-status"] {
        kill_up_at(&cluster, moment);
        let _ = cluster.down().success();
        before.expect_nothing_left(&ground);
    }
}

fn kill_up_at(cluster: &Cluster<'_>, moment: &str) {
    let up = cluster.up_by_name().env("BIVOUAC_PROGRESS", "json").start();
    wait_for_event(&up, moment);
    up.kill();
    let _ = up.finish(SOON).expect_code(137);
}

#[test]
fn ctrl_c_stops_cleanly() {
    let ground = Ground::new();
    let cluster = ground.cluster("interrupted");
    let before = HostSnapshot::take(&ground);
    for moment in ["planned", "node-status"] {
        let up = cluster.up_by_name().env("BIVOUAC_PROGRESS", "json").start();
        wait_for_event(&up, moment);
        up.interrupt();
        let stopped = up.finish(SOON).expect_code(130);
        let _ = stopped.expect_errors(&["run the same command again", "bivouac down"]);
    }
    let _ = cluster.up_by_name().success();
    let _ = cluster.down().success();
    before.expect_nothing_left(&ground);
}

fn wait_for_event(up: &Running, event: &str) {
    let wanted = format!("\"event\":\"{event}\"");
    let _ = up.wait_for_error_line(event, |line| line.contains(&wanted));
}
