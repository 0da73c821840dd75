//! Clusters as projects: one that `docker compose` makes without bivouac, and those that bivouac makes by it.

use std::path::Path;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Project, Provider, SOON, case, free_ports,
    wait_until,
};

use crate::{life, load};

pub(crate) const CASES: [Case; 3] = [
    case(
        "compose/an_exported_cluster_comes_up_alone",
        About::One(Provider::Compose),
        an_exported_cluster_comes_up_alone,
    ),
    case(
        "compose/the_test_cluster_comes_up_by_compose",
        About::One(Provider::Compose),
        the_test_cluster_comes_up_by_compose,
    ),
    case("compose/a_project_of_bivouac", About::One(Provider::Compose), a_project_of_bivouac),
];

const NODES: [&str; 2] = ["control-plane-0", "worker-0"];
const NODE: &str = NODES[0];
const EXAMPLE: &str = "../../examples/k8s-test-cluster/cluster.yaml";
const READY: &str =
    "jsonpath={range .items[*]}{.status.conditions[?(@.type==\"Ready\")].status} {end}";
const DEFAULTS: &str = "jsonpath={range .items[*]}{.metadata.annotations.storageclass\\.kubernetes\\.io/is-default-class} {end}";

fn an_exported_cluster_comes_up_alone(ground: &Ground) {
    let cluster = ground.cluster("export");
    let [port] = free_ports();
    let file = cluster.file(&format!(
        "  nodes:\n  - {{role: control-plane}}\n  - {{role: worker}}\n  ports:\n  - {{hostPort: {port}, port: 6443}}\n"
    ));
    forget_the_image(ground);
    let before = HostSnapshot::take(ground);
    let project = export(&cluster, &file);
    let up = || project.compose(["up", "--detach", "--wait"]);

    let _ = up().success();
    all_are_ready(&project);
    let image = life::image(ground, "busybox");
    keeps_the_answer_to_a_name(&project, "before", &image);
    for node in NODES {
        let _ = project.compose(["restart", node]).success();
        // Nothing is to be done but to wait.
        let _ = up().success();
        all_are_ready(&project);
        keeps_the_answer_to_a_name(&project, &format!("after-{node}"), &image);
    }
    let kept = ["exec", "last", "--", "/bin/sh", "-c", "cat /data/*"];
    apply(&project, &pod("last", &image, "sleep 1000000"));
    wait(&project, "pod/last", "condition=Ready");
    let words = project.kubectl(NODE, kept).success();
    let _ = words.expect_output(&["before", "after-control-plane-0", "after-worker-0"]);

    let _ = project.compose(["down", "--volumes"]).success();
    before.expect_nothing_left(ground);
    assert!(!ground.state().exists(), "an export keeps nothing outside its folder");
}

fn the_test_cluster_comes_up_by_compose(ground: &Ground) {
    // Of another name: the example's own may be there.
    let cluster = ground.cluster("test-cluster");
    let before = HostSnapshot::take(ground);
    let project = export(&cluster, &Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE));
    // As the original is started, which does not wait.
    let _ = project.compose(["up", "-d"]).success();
    all_are_healthy(&project);
    all_are_ready(&project);
    let server = "--server=https://localhost:36443";
    let ready = project.kubectl(NODE, [server, "get", "--raw", "/readyz"]).success();
    let _ = ready.expect_output(&["ok"]);
    let classes = project.kubectl(NODE, ["get", "storageclasses", "-o", DEFAULTS]).success();
    assert_eq!(classes.stdout(), "true ", "{classes}");
    let _ = project.compose(["down", "--volumes"]).success();
    before.expect_nothing_left(ground);
}

fn a_project_of_bivouac(ground: &Ground) {
    let cluster = ground.cluster("project");
    let file = cluster.file("  nodes:\n  - {role: control-plane}\n  - {role: worker}\n");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&file).success();
    let label = format!("label=com.docker.compose.project=bivouac-{}", cluster.name());
    let containers = ground.engine().lines(["ps", "--quiet", "--filter", &label]);
    assert_eq!(containers.len(), NODES.len(), "{containers:?}");
    let list = ground.bivouac(["list", "--output", "json"]).success().json();
    let listed = list.as_array().into_iter().flatten().find(|one| one["name"] == cluster.name());
    assert!(listed.is_some_and(|one| one["provider"] == "compose"), "{list:#}");
    let name = cluster.exec(NODES[1], ["hostname"]).success();
    assert_eq!(name.stdout(), "worker-0\n");
    load::a_word(&cluster, "first");
    let _ = cluster.kubectl(["create", "configmap", "kept", "--from-literal=word=kept"]).success();

    cluster.stop_node(NODE);
    let status = ground.bivouac(["status", cluster.name()]).outcome().expect_code(1);
    let _ = status.expect_output(&["stopped", &format!("bivouac up {}", cluster.name())]);
    goes_on(&cluster, "second");
    // Its data is in its volume.
    let _ = ground.engine().docker(["rm", "--force", &cluster.container(NODE)]).success();
    goes_on(&cluster, "third");
    let _ = cluster.up(&file).success().expect_output(&["nothing changed"]);

    let _ = cluster.down().success().expect_output(&[cluster.name(), "removed"]);
    before.expect_nothing_left(ground);
}

/// After `up` it is the cluster that it was.
fn goes_on(cluster: &Cluster<'_>, attempt: &str) {
    let addresses = NODES.map(|node| cluster.address(node));
    let _ = cluster.up_by_name().success();
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
    assert_eq!(NODES.map(|node| cluster.address(node)), addresses);
    let word = ["get", "configmap", "kept", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(word).success().stdout(), "kept");
    load::a_word(cluster, attempt);
}

/// As on a machine that has no bivouac and never had one: the image is built.
fn forget_the_image(ground: &Ground) {
    let engine = ground.engine();
    let images = ["image", "ls", "--format={{.Repository}}:{{.Tag}}", "bivouac.dev/node"];
    for image in engine.lines(images) {
        let _ = engine.docker(["image", "rm", "--force", &image]).success();
    }
}

fn export<'a>(cluster: &Cluster<'a>, file: &Path) -> Project<'a> {
    let project = Project::new(cluster.ground(), "project");
    let export = cluster.ground().bivouac(["export", "compose", cluster.name(), "--file"]);
    let said = export.args([file, Path::new("--output-dir"), project.folder()]).success();
    let _ = said.expect_output(&["exported cluster", cluster.name()]);
    project
}

/// Waits for what `--wait` waits for.
#[track_caller]
fn all_are_healthy(project: &Project<'_>) {
    wait_until("all nodes are healthy", 2 * SOON, || {
        let health = project.compose(["ps", "--all", "--format", "{{.Health}}"]).outcome();
        let all = health.stdout() == "healthy\n".repeat(NODES.len());
        if all { Ok(()) } else { Err(health.to_string()) }
    });
}

#[track_caller]
fn all_are_ready(project: &Project<'_>) {
    // A kubelet that was started again says for a moment that its node is not.
    wait_until("all nodes are Ready", SOON, || {
        let nodes = project.kubectl(NODE, ["get", "nodes", "-o", READY]).outcome();
        let all = nodes.stdout() == "True ".repeat(NODES.len());
        if all { Ok(()) } else { Err(nodes.to_string()) }
    });
}

/// A pod asks for the name of a Service and writes what it is told into a volume.
#[track_caller]
fn keeps_the_answer_to_a_name(project: &Project<'_>, name: &str, image: &str) {
    let ask = "nslookup kubernetes.default.svc.cluster.local";
    apply(project, &pod(name, image, &format!("{ask} && echo {name} > /data/{name}")));
    wait(project, &format!("pod/{name}"), "jsonpath={.status.phase}=Succeeded");
    wait(project, "persistentvolumeclaim/data", "jsonpath={.status.phase}=Bound");
}

fn pod(name: &str, image: &str, script: &str) -> String {
    format!(
        "apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: data}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 1Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: {image}
    args: [-c, {script}]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: data}}}}
"
    )
}

#[track_caller]
fn apply(project: &Project<'_>, documents: &str) {
    let _ = project.kubectl(NODE, ["apply", "-f", "-"]).input(documents).success();
}

#[track_caller]
fn wait(project: &Project<'_>, object: &str, what: &str) {
    let waited = project.kubectl(NODE, ["wait", "--for", what, "--timeout=300s", object]).outcome();
    if waited.code != 0 {
        let described = project.kubectl(NODE, ["describe", object]).outcome();
        panic!("waited for {what} of {object}: {waited}\n{described}");
    }
}
