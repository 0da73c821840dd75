//! Nodes with disks of their own: what they write is bounded, told as capacity, kept, and gone with them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, Provider, SOON, case, wait_until};

use crate::life;

pub(crate) const CASES: [Case; 2] = [
    case("disks/bound_what_nodes_write", About::One(Provider::Linux), bound_what_nodes_write),
    case("disks/are_refused_in_containers", About::One(Provider::Docker), are_refused),
];

const NODE: &str = "worker-0";
const MEBIBYTE: u64 = 1 << 20;
const KEPT: &str = "/var/lib/kubelet/kept";
/// More than there is room for.
const GREED: &str = "dd if=/dev/zero of=/more bs=1M count=700";

fn file(cluster: &Cluster<'_>, disk: &str) -> std::path::PathBuf {
    cluster.file(&format!(
        "  nodes:\n  - {{role: control-plane}}\n  - {{role: worker, resources: {{disk: {disk}}}}}\n"
    ))
}

fn bound_what_nodes_write(ground: &Ground) {
    let cluster = ground.cluster("disks");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&file(&cluster, "512MiB")).success();
    expect_capacity(&cluster, "512Mi");
    let kept = format!("echo word > {KEPT}");
    let _ = cluster.exec(NODE, ["/bin/sh", "-c", kept.as_str()]).success();

    let image = life::image(ground, "busybox");
    let _ = life::run_once(&cluster, "greedy", NODE, &image, &["-c", GREED]).success();
    wait_until("the greedy pod fails", SOON, || {
        let pod = cluster.get(["pod", "greedy"]);
        if pod["status"]["phase"] == "Failed" { Ok(()) } else { Err(format!("{pod:#}")) }
    });
    let said = cluster.kubectl(["logs", "greedy"]).success().stdout();
    assert!(said.contains("No space left on device"), "{said}");
    let disk = ground.state().join(format!("linux/{}/nodes/{NODE}/disk.ext4", cluster.name()));
    let taken = fs::metadata(&disk).expect("the disk is a file").blocks() * 512;
    assert!(taken <= 512 * MEBIBYTE, "{taken}");
    let _ = cluster.kubectl(["delete", "pod", "greedy"]).success();
    cluster.wait(&format!("node/{NODE}"), "condition=Ready");

    let _ = ground.bivouac(["restart", cluster.name(), "--node", NODE]).success();
    expect_kept(&cluster);
    let larger = file(&cluster, "1GiB");
    let plan =
        ground.bivouac(["plan", "--output", "json", "--file"]).args([&larger]).success().json();
    let action = &plan["actions"][0];
    assert_eq!((&action["node"], &action["remakes"]), (&NODE.into(), &true.into()), "{plan:#}");
    assert_eq!(action["aspects"], serde_json::json!(["disk"]), "{plan:#}");
    let _ = cluster.up(&larger).success();
    expect_capacity(&cluster, "1Gi");
    expect_kept(&cluster);
    let refused = cluster.up(&file(&cluster, "600MiB")).outcome().expect_code(2);
    let _ = refused.expect_errors(&["plan.disk_stays", "disk of 1GiB", "node remove"]);

    assert_eq!(devices(ground).len(), 1);
    let _ = cluster.down().success();
    assert_eq!(devices(ground), [""; 0]);
    before.expect_nothing_left(ground);
}

fn are_refused(ground: &Ground) {
    let cluster = ground.cluster("disks");
    let plan = ground.bivouac(["plan", "--file"]).args([file(&cluster, "1GiB")]);
    let _ = plan.outcome().expect_code(3).expect_errors(&["plan.no_disks", "volume", "linux"]);
}

fn expect_capacity(cluster: &Cluster<'_>, wanted: &str) {
    wait_until("the kubelet reports the disk", SOON, || {
        let node = cluster.get(["node", NODE]);
        let found = &node["status"]["capacity"]["ephemeral-storage"];
        if *found == wanted { Ok(()) } else { Err(format!("{found}, and not {wanted}")) }
    });
}

fn expect_kept(cluster: &Cluster<'_>) {
    assert_eq!(cluster.exec(NODE, ["/bin/cat", KEPT]).success().stdout(), "word\n");
}

/// The files of these tests that are block devices.
fn devices(ground: &Ground) -> Vec<String> {
    let folder = ground.state().to_string_lossy().into_owned();
    let devices = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    let files = devices
        .filter_map(|device| fs::read_to_string(device.path().join("loop/backing_file")).ok());
    files.filter(|file| file.contains(&folder)).collect()
}
