//! What was killed comes back: a service, a node, the whole host, and bivouac itself in the middle of its work.

mod reboot;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Provider, Running, SOON, case, wait_until,
};

pub(crate) const CASES: [Case; 4] = [
    case("healing/what_is_killed_comes_back", About::Grounds, what_is_killed_comes_back),
    case("healing/the_host_restarts", About::One(Provider::Linux), reboot::the_host_restarts),
    case("healing/an_up_that_is_killed", About::Grounds, an_up_that_is_killed),
    case("healing/ctrl_c", About::Grounds, ctrl_c),
];

const NODE: &str = "control-plane-0";

fn what_is_killed_comes_back(ground: &Ground) {
    let cluster = ground.cluster("healing");
    let _ = cluster.up_single().success();
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
    cluster.wait_until_usable();
    cluster.wait(&format!("node/{NODE}"), "condition=Ready");
}

fn a_killed_agent(cluster: &Cluster<'_>) {
    let made = ["create", "configmap", "kept", "--from-literal=word=survived"];
    let _ = cluster.kubectl(made).success();
    let address = cluster.address(NODE);
    if cluster.revives_nodes() {
        let before = uptime(cluster);
        cluster.kill_agent(NODE);
        wait_until("the node is started again", SOON, || {
            let now = uptime(cluster);
            if now.is_some() && now < before {
                Ok(())
            } else {
                Err(format!("{:#}", cluster.status()))
            }
        });
        cluster.wait_until_usable();
        is_as_before(cluster, &address);
    }
    cluster.stop_node(NODE);
    let name = cluster.name();
    let status = cluster.ground().bivouac(["status", name]).outcome().expect_code(1);
    let _ = status.expect_output(&["stopped", &format!("bivouac up {name}")]);

    let again = cluster.up_by_name().args(["--output", "json"]).success().json();
    assert_eq!(again["changed"], true, "{again:#}");
    assert_eq!(again["actions"][0]["action"], "start-node", "{again:#}");
    is_as_before(cluster, &address);
}

/// For how long the agent says that it runs.
fn uptime(cluster: &Cluster<'_>) -> Option<u64> {
    cluster.status()["nodes"][NODE]["status"]["uptime"].as_u64()
}

fn is_as_before(cluster: &Cluster<'_>, address: &str) {
    assert_eq!(cluster.address(NODE), address);
    let word =
        cluster.kubectl(["get", "configmap", "kept", "-o", "jsonpath={.data.word}"]).success();
    assert_eq!(word.stdout(), "survived");
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
}

fn an_up_that_is_killed(ground: &Ground) {
    let cluster = ground.cluster("killed");
    let before = HostSnapshot::take(ground);
    // Each goes on from what the one before left.
    for moment in ["started", "planned", "node-started", "node-status"] {
        kill_up_at(&cluster, moment);
    }
    let _ = cluster.up_single().success();
    cluster.wait(&format!("node/{NODE}"), "condition=Ready");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);

    // What is there only in part can be removed as it is.
    for moment in ["planned", "node-status"] {
        kill_up_at(&cluster, moment);
        let _ = cluster.down().success();
        before.expect_nothing_left(ground);
    }
}

fn kill_up_at(cluster: &Cluster<'_>, moment: &str) {
    let up = cluster.up_single().env("BIVOUAC_PROGRESS", "json").start();
    wait_for_event(&up, moment);
    up.kill();
    let _ = up.finish(SOON).expect_code(137);
}

fn ctrl_c(ground: &Ground) {
    let cluster = ground.cluster("interrupted");
    let before = HostSnapshot::take(ground);
    for moment in ["planned", "node-status"] {
        let up = cluster.up_single().env("BIVOUAC_PROGRESS", "json").start();
        wait_for_event(&up, moment);
        up.interrupt();
        let stopped = up.finish(SOON).expect_code(130);
        let _ = stopped.expect_errors(&["run the same command again", "bivouac down"]);
    }
    let _ = cluster.up_single().success();
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn wait_for_event(up: &Running, event: &str) {
    let wanted = format!("\"event\":\"{event}\"");
    let _ = up.wait_for_error_line(event, |line| line.contains(&wanted));
}
