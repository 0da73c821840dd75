//! The life of one cluster of three nodes, as a person leads it: up, look around, run things, ask bivouac, down.

mod commands;
mod kubeconfig;
mod nodes;
mod pods;
mod storage;

use bivouac_e2e::{Cluster, Ground, Run};

const NODES: [&str; 3] = ["control-plane-0", "worker-0", "worker-1"];
const WORKERS: [&str; 2] = ["worker-0", "worker-1"];

const SPEC: &str = "  nodes:
  - {role: control-plane}
  - {role: worker, count: 2, zones: [a, b], labels: {disk: fast}}
";

#[test]
fn a_cluster_from_a_file() {
    let ground = Ground::new();
    kubeconfig::write_own(&ground);
    let cluster = ground.cluster("life");
    let file = cluster.file(SPEC);

    let up = cluster.up(&file).args(["--output", "json"]).success();
    let result = up.json();
    assert_eq!(result["cluster"], cluster.name(), "{up}");
    assert_eq!(result["changed"], true, "{up}");
    assert_eq!(result["nodes"], 3, "{up}");
    let _ = up.expect_errors(&["control-plane-0: usable", "worker-0: usable", "worker-1: usable"]);

    nodes::are_as_asked(&cluster);
    kubeconfig::leads_to_the_cluster(&cluster);
    pods::answer(&cluster);
    storage::survives_a_pod(&cluster);
    commands::on_a_node(&cluster);
    commands::about_the_cluster(&cluster);
    commands::with_typing_errors(&cluster);
    commands::up_again(&cluster, &file);

    let _ = cluster.down().success().expect_output(&[cluster.name(), "removed"]);
    kubeconfig::is_as_it_was(&ground);
    let _ = cluster.down().success().expect_output(&["nothing"]);
}

#[test]
fn the_example_can_be_planned() {
    let ground = Ground::new();
    let file = ground.path("cluster.yaml");
    let _ = ground.bivouac(["init"]).args([&file]).success().expect_output(&["cluster.yaml"]);
    let again = ground.bivouac(["init"]).args([&file]).outcome().expect_code(1);
    let _ = again.expect_errors(&["cluster.yaml", "--force"]);
    let example = std::fs::read(&file).expect("it was just written");
    // Of another name: a cluster of the example's may be there.
    let plan = ["plan", "--file", "-", "--output", "json", "e2e-example"];
    let plan = ground.bivouac(plan).input(example).success().json();
    assert!(plan["actions"].as_array().is_some_and(|actions| actions.len() > 1), "{plan:#}");
    assert!(!ground.state().exists(), "a plan changes nothing");
}

/// The full name of a container image that every node has.
pub(crate) fn image(ground: &Ground, program: &str) -> String {
    let versions = ground.bivouac(["version", "--output", "json"]).success().json();
    let version = versions["programs"][program].as_str();
    let version =
        version.unwrap_or_else(|| panic!("`version` does not know {program}: {versions:#}"));
    format!("bivouac.dev/{program}:{version}")
}

/// `kubectl run` of a pod that ends by itself, on a node.
fn run_once(cluster: &Cluster<'_>, pod: &str, node: &str, image: &str, arguments: &[&str]) -> Run {
    let place = format!("{{\"spec\":{{\"nodeName\":\"{node}\"}}}}");
    let run = cluster.kubectl(["run", pod, "--restart=Never", "--image-pull-policy=IfNotPresent"]);
    run.args(["--image", image, "--overrides", &place, "--"]).args(arguments)
}
