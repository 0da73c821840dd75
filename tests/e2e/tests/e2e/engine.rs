//! The engine under the nodes: absent, refusing, restarted, and with things of others on it.

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Provider, Run, SOON, case, wait_until,
};

pub(crate) const CASES: [Case; 7] = [
    case("engine/no_engine", About::One(Provider::Docker), no_engine),
    case("engine/no_permission", About::One(Provider::Docker), no_permission),
    case("engine/a_container_of_somebody_else", About::One(Provider::Docker), somebody_else),
    case("engine/a_container_is_restarted", About::One(Provider::Docker), container_restarted),
    case("engine/the_image_is_removed", About::One(Provider::Docker), image_removed),
    case("engine/the_engine_is_restarted", About::OwnEngine, engine_restarted),
    case(
        "engine/the_engine_is_restarted_while_a_cluster_comes_up",
        About::OwnEngine,
        restarted_early,
    ),
];

const NODES: [&str; 2] = ["control-plane-0", "worker-0"];
const SPEC: &str = "  nodes:\n  - {role: control-plane}\n  - {role: worker}\n";

fn no_engine(ground: &Ground) {
    let cluster = ground.cluster("absent");
    let socket = ground.path("absent.sock");
    let host = format!("unix://{}", socket.display());
    let without = |run: Run| run.env("DOCKER_HOST", &host);
    let file = cluster.file("");
    let place = socket.to_string_lossy().into_owned();
    for verb in ["up", "plan"] {
        let refused = without(ground.bivouac([verb, "--file"])).args([&file]).outcome();
        let _ = refused.expect_code(3).expect_errors(&[&place, "hint:"]);
    }
    let doctor = without(ground.bivouac(["doctor", "--provider", "docker"])).outcome();
    let _ = doctor.expect_code(3);
    assert!(!ground.state().exists(), "a refused `up` made a state folder");
    // Whoever has clusters elsewhere is not bothered.
    let list = without(ground.bivouac(["list", "--output", "json"])).success().json();
    assert!(
        list.as_array().is_some_and(|list| list.iter().all(|one| one["name"] != cluster.name())),
        "{list:#}"
    );
}

fn no_permission(ground: &Ground) {
    let cluster = ground.cluster("forbidden");
    let file = cluster.file("");
    // As it is for a real user: the way to the cluster file is open, that to the engine's socket is not.
    let _ = Run::new("chmod").args(["0755"]).args([ground.folder()]).success();
    let refused = ground.up(["--file"]).args([&file]).as_nobody().outcome().expect_code(3);
    let _ = refused.expect_errors(&["permission", "hint:"]);
    assert!(!ground.state().exists(), "a refused `up` made a state folder");
}

/// A container with the name that a node would have is nobody's but its owner's.
fn somebody_else(ground: &Ground) {
    let engine = ground.engine();
    let cluster = ground.cluster("clash");
    let name = format!("bivouac-{}.{}", cluster.name(), NODES[0]);
    let image = "bivouac.test/e2e/empty:1";
    let _own = Own { ground, container: &name, image };
    let empty = Run::new("tar").args(["--create", "--files-from=/dev/null"]).success().output;
    let _ = engine.docker(["import", "-", image]).input(empty).success();
    let _ = engine.docker(["create", "--name", &name, "--network=none", image, "/none"]).success();

    let before = HostSnapshot::take(ground);
    let refused = cluster.up_single().outcome();
    assert!([1, 2, 3].contains(&refused.code), "{refused}");
    let _ = refused.expect_errors(&[&name, "hint:"]);
    before.expect_nothing_left(ground);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// A container and an image of the test's own. They go with the value.
struct Own<'a> {
    ground: &'a Ground,
    container: &'a str,
    image: &'a str,
}

impl Drop for Own<'_> {
    fn drop(&mut self) {
        let engine = self.ground.engine();
        let _ = engine.docker(["rm", "--force", self.container]).outcome();
        let _ = engine.docker(["image", "rm", "--force", self.image]).outcome();
    }
}

fn remember(cluster: &Cluster<'_>) -> [String; 2] {
    let made = ["create", "configmap", "kept", "--from-literal=word=survived"];
    let _ = cluster.kubectl(made).success();
    NODES.map(|node| cluster.address(node))
}

/// Same addresses, same data, and pods run.
fn is_as_before(cluster: &Cluster<'_>, addresses: &[String; 2], pod: &str) {
    assert_eq!(NODES.map(|node| cluster.address(node)), *addresses);
    let word = ["get", "configmap", "kept", "-o", "jsonpath={.data.word}"];
    assert_eq!(cluster.kubectl(word).success().stdout(), "survived");
    let image = crate::life::image(cluster.ground(), "busybox");
    let ask = ["-c", "nslookup kubernetes.default.svc.cluster.local"];
    let _ = crate::life::run_once(cluster, pod, NODES[1], &image, &ask).success();
    let _ = cluster.printed_by(pod);
    let same = cluster.up_by_name().success();
    let _ = same.expect_output(&["nothing changed"]);
}

fn container_restarted(ground: &Ground) {
    let cluster = ground.cluster("restarted");
    let _ = cluster.up(&cluster.file(SPEC)).success();
    let addresses = remember(&cluster);
    for (node, pod) in NODES.into_iter().zip(["one", "other"]) {
        let _ =
            ground.engine().docker(["restart", "--time=20", &cluster.container(node)]).success();
        cluster.wait_until_usable();
        is_as_before(&cluster, &addresses, pod);
    }
    let _ = cluster.down().success();
}

/// Between clusters it is brought again; under a cluster it is not missed.
fn image_removed(ground: &Ground) {
    let cluster = ground.cluster("image");
    let image = || {
        let images = ground.engine().lines(["image", "ls", "--format={{.Repository}}:{{.Tag}}"]);
        images.into_iter().find(|image| image.starts_with("bivouac.dev/node:"))
    };
    let _ = cluster.up_single().success();
    let name = image().expect("`up` brought it");
    let _ = ground.engine().docker(["image", "rm", "--force", &name]).success();
    cluster.stop_node(NODES[0]);
    let _ = cluster.up_by_name().success();
    let _ = cluster.down().success();

    if let Some(name) = image() {
        let _ = ground.engine().docker(["image", "rm", "--force", &name]).success();
    }
    let up = cluster.up_single().env("BIVOUAC_PROGRESS", "json").start();
    let _ = up.wait_for_error_line("the plan", |line| line.contains("\"event\":\"planned\""));
    up.kill();
    let _ = up.finish(SOON).expect_code(137);
    let _ = cluster.up_single().success();
    assert_eq!(image(), Some(name));
    let _ = cluster.down().success();
}

/// The cluster comes back by itself.
fn engine_restarted(ground: &Ground) {
    let cluster = ground.cluster("engine");
    let _ = cluster.up(&cluster.file(SPEC)).success();
    let addresses = remember(&cluster);
    ground.engine().restart(|| {
        let status = ground.bivouac(["status", cluster.name()]).outcome().expect_code(3);
        let _ = status.expect_errors(&["docker.sock", "hint:"]);
        let list = ground.bivouac(["list"]).outcome();
        let _ = list.expect_output(&[cluster.name()]);
    });
    cluster.wait_until_usable();
    let _ = ground.bivouac(["status", cluster.name()]).success();
    wait_until("the API answers", SOON, || {
        let ready = cluster.kubectl(["get", "--raw", "/readyz"]).outcome();
        if ready.code == 0 { Ok(()) } else { Err(ready.to_string()) }
    });
    is_as_before(&cluster, &addresses, "after");
    let _ = cluster.down().success();
}

/// Whether `up` survives it or not: it says so, the next one goes on, and nothing is left in the end.
fn restarted_early(ground: &Ground) {
    let cluster = ground.cluster("early");
    let before = HostSnapshot::take(ground);
    let file = cluster.file(SPEC);
    let up = cluster.up(&file).env("BIVOUAC_PROGRESS", "json").start();
    let _ = up.wait_for_error_line("a node", |line| line.contains("\"event\":\"node-started\""));
    ground.engine().restart(|| ());
    let outcome = up.finish(5 * SOON);
    if outcome.code != 0 {
        let outcome = outcome.expect_code(1).expect_errors(&["hint:"]);
        let is_told = ["provider.docker.", "engine.node_ended"];
        assert!(is_told.iter().any(|code| outcome.stderr.contains(code)), "{outcome}");
    }
    let _ = cluster.up(&file).success();
    let addresses = remember(&cluster);
    is_as_before(&cluster, &addresses, "pod");
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}
