//! A pod takes more than its node has: it gets no more processor time, or is ended, and its node and the others live on.

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, SOON, case, wait_until};

use crate::life;

pub(crate) const CASES: [Case; 1] =
    [case("greedy/a_pod_cannot_use_more", About::Grounds, a_pod_cannot_use_more)];

const NODE: &str = "worker-0";
/// It asks for nothing, and fills twice what its node has at one go.
const GREED: &str = "dd if=/dev/zero of=/dev/null bs=2000M count=1";
/// It asks for nothing, and runs more at once than its node may.
const HASTE: &str = "for n in 1 2 3 4; do while :; do :; done & done; wait";
/// In how many periods the node was held back, by control groups of the first and of the second version.
const THROTTLED: &str =
    "cd /sys/fs/cgroup; [ ! -e cpu ] || cd cpu; sed -n 's/^nr_throttled //p' cpu.stat";

fn a_pod_cannot_use_more(ground: &Ground) {
    let cluster = ground.cluster("greedy");
    let before = HostSnapshot::take(ground);
    let nodes = "  nodes:\n  - {role: control-plane}\n  \
                 - {role: worker, resources: {cpus: 1, memory: 1GiB}}\n";
    let _ = cluster.up(&cluster.file(nodes)).success();
    let image = life::image(ground, "busybox");
    let _ = life::run_once(&cluster, "hasty", NODE, &image, &["-c", HASTE]).success();
    cluster.wait("pod/hasty", "condition=Ready");
    is_throttled(&cluster);
    let _ = cluster.kubectl(["delete", "pod", "hasty", "--grace-period=0", "--force"]).success();
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

/// The kernel holds back the node that wants more than its CPU, whatever the machine has beside it.
fn is_throttled(cluster: &Cluster<'_>) {
    let throttled = || -> u64 {
        let said = cluster.exec(NODE, ["sh", "-c", THROTTLED]).success().stdout();
        said.trim().parse().unwrap_or_else(|error| panic!("{error}: `{said}`"))
    };
    let before = throttled();
    wait_until("the node is held back", SOON, || {
        let now = throttled();
        if now > before { Ok(()) } else { Err(format!("{now} times")) }
    });
}
