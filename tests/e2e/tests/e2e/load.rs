//! `bivouac load`: images come onto all nodes from archives.

use bivouac_e2e::{About, Case, Cluster, Ground, Run, TestImage, case};

pub(crate) const CASES: [Case; 1] =
    [case("load/archives_come_onto_every_node", About::Grounds, archives_come_onto_every_node)];

const NODES: [&str; 2] = ["control-plane-0", "worker-0"];

fn archives_come_onto_every_node(ground: &Ground) {
    let cluster = ground.cluster("load");
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let _ = cluster.up(&file).success();
    let busybox = busybox(&cluster);

    // Not what an earlier run of the tests has left in the store.
    let word = format!("word of process {}", std::process::id());
    let image = |name: &str| {
        TestImage::new(&format!("bivouac.test/e2e/{name}:1"), &busybox, &format!("{name} {word}"))
    };
    ground.write("docker.tar", image("docker").docker_archive());
    ground.write("oci.tar", image("oci").oci_archive());
    image("layout").write_oci_layout(&ground.path("layout"));
    for (name, archive) in [("docker", "docker.tar"), ("oci", "oci.tar"), ("layout", "layout")] {
        let loaded = load(ground, &cluster, archive).args(["--output", "json"]).success().json();
        assert_eq!(loaded["images"][0], format!("bivouac.test/e2e/{name}:1"), "{loaded:#}");
        assert_eq!(loaded["nodes"].as_array().map(Vec::len), Some(2), "{loaded:#}");
        cluster.apply(&pods("first", name));
    }
    for name in ["docker", "oci", "layout"] {
        prints(&cluster, "first", name, &format!("{name} {word}"));
    }
    a_name_gets_other_content(ground, &cluster, &busybox, &word);
    what_cannot_be_loaded(ground, &cluster, &busybox);
}

/// An image of one word that is loaded from an archive runs on each node of [`NODES`]; each attempt has a name of its own.
pub(crate) fn a_word(cluster: &Cluster<'_>, attempt: &str) {
    Loaded::new(cluster, attempt).runs(cluster, attempt);
}

/// An image of one word, on all nodes of a cluster and in no registry.
pub(crate) struct Loaded {
    name: String,
    word: String,
}

impl Loaded {
    /// Loads one, from an archive.
    pub(crate) fn new(cluster: &Cluster<'_>, name: &str) -> Self {
        let ground = cluster.ground();
        Self::by(cluster, name, |image, _| {
            ground.write("word.tar", image.oci_archive());
            let _ = load(ground, cluster, "word.tar").success();
        })
    }

    /// Has `load` load one, which is told its full name too.
    pub(crate) fn by(
        cluster: &Cluster<'_>,
        name: &str,
        load: impl FnOnce(&TestImage, &str),
    ) -> Self {
        let word = format!("{name} word of process {}", std::process::id());
        let name = format!("word-{name}");
        let full = format!("bivouac.test/e2e/{name}:1");
        load(&TestImage::new(&full, &busybox(cluster), &word), &full);
        Self { name, word }
    }

    /// Runs it on each node of [`NODES`]; each attempt has a name of its own.
    pub(crate) fn runs(&self, cluster: &Cluster<'_>, attempt: &str) {
        cluster.apply(&pods(attempt, &self.name));
        prints(cluster, attempt, &self.name, &self.word);
    }
}

fn busybox(cluster: &Cluster<'_>) -> Vec<u8> {
    let busybox = cluster.exec(NODES[0], ["cat", "/usr/bin/busybox"]).success().output;
    assert!(
        busybox.starts_with(b"\x7fELF"),
        "the busybox of the node image came as {} bytes",
        busybox.len()
    );
    busybox
}

fn load(ground: &Ground, cluster: &Cluster<'_>, archive: &str) -> Run {
    ground.bivouac(["load", "--cluster", cluster.name()]).args([ground.path(archive)])
}

/// A pod on each node that prints the word of an image, which no registry has.
fn pods(attempt: &str, name: &str) -> String {
    let pod = |node| {
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {attempt}-{name}-on-{node}}}
spec:
  nodeName: {node}
  restartPolicy: Never
  containers:
  - name: main
    image: bivouac.test/e2e/{name}:1
    imagePullPolicy: Never
    args: [cat, /word]
"
        )
    };
    NODES.map(pod).join("---\n")
}

#[track_caller]
fn prints(cluster: &Cluster<'_>, attempt: &str, name: &str, word: &str) {
    for node in NODES {
        assert_eq!(cluster.printed_by(&format!("{attempt}-{name}-on-{node}")).stdout(), word);
    }
}

/// As for somebody who changes a program, builds its image, and loads it again.
fn a_name_gets_other_content(ground: &Ground, cluster: &Cluster<'_>, busybox: &[u8], word: &str) {
    let changed = format!("docker changed {word}");
    let image = TestImage::new("bivouac.test/e2e/docker:1", busybox, &changed);
    ground.write("docker.tar", image.docker_archive());
    for _ in ["once", "and the same again"] {
        let said = load(ground, cluster, "docker.tar").success();
        let _ = said.expect_output(&["loaded bivouac.test/e2e/docker:1", "2 nodes"]);
    }
    cluster.apply(&pods("second", "docker"));
    prints(cluster, "second", "docker", &changed);
}

fn what_cannot_be_loaded(ground: &Ground, cluster: &Cluster<'_>, busybox: &[u8]) {
    let whole = TestImage::new("bivouac.test/e2e/half:1", busybox, "half").oci_archive();
    let mut other = busybox.to_vec();
    other.push(0);
    let damaged = TestImage::new("bivouac.test/e2e/damaged:1", &other, "damaged");
    ground.write("half.tar", &whole[..whole.len() / 2]);
    ground.write("damaged.tar", damaged.damaged_archive());
    ground.write("text.tar", "this is no archive");
    for name in ["half.tar", "damaged.tar", "text.tar"] {
        let refused = load(ground, cluster, name).outcome().expect_code(1);
        let _ = refused.expect_errors(&["error:", name]);
    }
    let absent = ["load", "--cluster", cluster.name(), "bivouac.test/e2e/absent:1"];
    let absent = ground.bivouac(absent).outcome().expect_code(1);
    let _ = absent.expect_errors(&["error:", "bivouac.test/e2e/absent:1"]);
    // What was refused harmed nothing.
    let _ = ground.bivouac(["status", cluster.name()]).success();
}
