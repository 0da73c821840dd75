//! Nodes are honest: what the kubelet reports as capacity is what the node may use, also after that has changed.

use bivouac_e2e::{About, Case, Cluster, Ground, SOON, case, wait_until};

pub(crate) const CASES: [Case; 1] =
    [case("limits/are_the_capacity", About::Grounds, are_the_capacity)];

const NODE: &str = "control-plane-0";

fn are_the_capacity(ground: &Ground) {
    let cluster = ground.cluster("limits");
    let up = |resources: &str| {
        let nodes = format!("  nodes:\n  - {{role: control-plane, resources: {resources}}}\n");
        let _ = cluster.up(&cluster.file(&nodes)).success();
    };
    up("{cpus: 1, memory: 1200MiB}");
    expect(&cluster, 1, 1200);
    // Pods see no more than that in sum: what they ask for beyond it waits.
    let node = cluster.get(["node", NODE]);
    assert_eq!(node["status"]["allocatable"]["cpu"], "1", "{node:#}");

    up("{cpus: 1500m, memory: 1500MiB}");
    expect(&cluster, 2, 1500);
    let _ = ground.usable_by("restart", [cluster.name()]).success();
    expect(&cluster, 2, 1500);
    let _ = cluster.down().success();
}

fn expect(cluster: &Cluster<'_>, cpus: u64, mebibytes: u64) {
    // As Kubernetes writes a number that is no multiple of 1 GiB.
    let wanted = (cpus.to_string(), format!("{mebibytes}Mi"));
    wait_until("the kubelet reports the limits", SOON, || {
        let node = cluster.get(["node", NODE]);
        let capacity =
            |what: &str| node["status"]["capacity"][what].as_str().unwrap_or_default().to_owned();
        let reported = (capacity("cpu"), capacity("memory"));
        if reported == wanted { Ok(()) } else { Err(format!("{reported:?}, and not {wanted:?}")) }
    });
    let seen = cluster.exec(NODE, ["/bin/cat", "/proc/meminfo"]).success().stdout();
    let total = format!("{} kB", mebibytes << 10);
    let line = seen.lines().find(|line| line.starts_with("MemTotal:")).unwrap_or_default();
    assert!(line.ends_with(&total), "{line}");
}
