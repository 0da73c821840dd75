//! A pod takes more than its node has: it is ended, and its node and the others live on.

use bivouac_e2e::{About, Case, Ground, HostSnapshot, SOON, case, wait_until};

use crate::life;

pub(crate) const CASES: [Case; 1] =
    [case("greedy/a_pod_cannot_use_more", About::Grounds, a_pod_cannot_use_more)];

const NODE: &str = "worker-0";
/// It asks for nothing, and fills twice what its node has at one go.
const GREED: &str = "dd if=/dev/zero of=/dev/null bs=2000M count=1";

fn a_pod_cannot_use_more(ground: &Ground) {
    let cluster = ground.cluster("greedy");
    let before = HostSnapshot::take(ground);
    let nodes = "  nodes:\n  - {role: control-plane}\n  \
                 - {role: worker, resources: {cpus: 1, memory: 1GiB}}\n";
    let _ = cluster.up(&cluster.file(nodes)).success();
    let image = life::image(ground, "busybox");
    let _ = life::run_once(&cluster, "greedy", NODE, &image, &["-c", GREED]).success();
    wait_until("the greedy pod is ended", SOON, || {
        let pod = cluster.get(["pod", "greedy"]);
        if pod["status"]["phase"] == "Failed" { Ok(()) } else { Err(format!("{pod:#}")) }
    });
    cluster.wait(&format!("node/{NODE}"), "condition=Ready");
    cluster.wait_until_usable();
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}
