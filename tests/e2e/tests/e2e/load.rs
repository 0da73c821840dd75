//! `bivouac load`: images come onto all nodes from archives.

use bivouac_e2e::{Cluster, Ground, TestImage};

const NODES: [&str; 2] = ["control-plane-0", "worker-0"];

#[test]
fn archives_come_onto_every_node() {
    let ground = Ground::new();
    let cluster = ground.cluster("load");
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let _ = cluster.up(&file).success();
    let busybox = cluster.exec(NODES[0], ["cat", "/usr/bin/busybox"]).success().output;
    assert!(
        busybox.starts_with(b"\x7fELF"),
        "the busybox of the node image came as {} bytes",
        busybox.len()
    );

    let docker = TestImage::new("bivouac.test/e2e/docker:1", &busybox);
    let oci = TestImage::new("bivouac.test/e2e/oci:1", &busybox);
    let layout = TestImage::new("bivouac.test/e2e/layout:1", &busybox);
    ground.write("docker.tar", docker.docker_archive());
    ground.write("oci.tar", oci.oci_archive());
    layout.write_oci_layout(&ground.path("layout"));
    for (name, archive) in [("docker", "docker.tar"), ("oci", "oci.tar"), ("layout", "layout")] {
        let path = ground.path(archive);
        let loaded = load(&ground, &cluster, &path.to_string_lossy())
            .args(["--output", "json"])
            .success()
            .json();
        assert_eq!(loaded["images"][0], format!("bivouac.test/e2e/{name}:1"), "{loaded:#}");
        assert_eq!(loaded["nodes"].as_array().map(Vec::len), Some(2), "{loaded:#}");
        cluster.apply(&NODES.map(|node| pod(name, node)).join("---\n"));
    }
    for name in ["docker", "oci", "layout"] {
        for node in NODES {
            let printed = cluster.printed_by(&format!("{name}-on-{node}"));
            assert_eq!(printed.stdout(), format!("{name} on {node}\n"));
        }
    }
    again(&ground, &cluster);
    what_cannot_be_loaded(&ground, &cluster, &busybox);
}

fn load(ground: &Ground, cluster: &Cluster<'_>, what: &str) -> bivouac_e2e::Run {
    ground.bivouac(["load", "--cluster", cluster.name(), what])
}

/// A pod that prints a line, from an image that no registry has.
fn pod(name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}-on-{node}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: main
    image: bivouac.test/e2e/{name}:1
    imagePullPolicy: Never
    args: [echo, {name} on {node}]
"
    )
}

fn again(ground: &Ground, cluster: &Cluster<'_>) {
    let said = load(ground, cluster, &ground.path("docker.tar").to_string_lossy()).success();
    let _ = said.expect_output(&["loaded bivouac.test/e2e/docker:1", "2 nodes"]);
}

fn what_cannot_be_loaded(ground: &Ground, cluster: &Cluster<'_>, busybox: &[u8]) {
    let whole = TestImage::new("bivouac.test/e2e/half:1", busybox).oci_archive();
    let mut other = busybox.to_vec();
    other.push(0);
    let damaged = TestImage::new("bivouac.test/e2e/damaged:1", &other);
    ground.write("half.tar", &whole[..whole.len() / 2]);
    ground.write("damaged.tar", damaged.damaged_archive());
    ground.write("text.tar", "this is no archive");
    for name in ["half.tar", "damaged.tar", "text.tar"] {
        let refused =
            load(ground, cluster, &ground.path(name).to_string_lossy()).outcome().expect_code(1);
        let _ = refused.expect_errors(&["error:", name]);
    }
    let absent = load(ground, cluster, "bivouac.test/e2e/absent:1").outcome().expect_code(1);
    let _ = absent.expect_errors(&["error:", "bivouac.test/e2e/absent:1"]);
    // What was refused harmed nothing.
    let _ = ground.bivouac(["status", cluster.name()]).success();
}
