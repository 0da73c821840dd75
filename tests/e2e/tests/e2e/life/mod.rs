//! The life of one cluster of three nodes, as a person leads it: up, look around, run things, ask bivouac, down.

mod commands;
mod datagrams;
mod kubeconfig;
mod metrics;
mod nodes;
mod pods;
mod see;
pub(crate) mod storage;

use bivouac_e2e::{About, Case, Cluster, Ground, Run, case, free_ports};

pub(crate) const CASES: [Case; 3] = [
    case("life/a_cluster_from_a_file", About::Everything, a_cluster_from_a_file),
    case("life/the_example_can_be_planned", About::Bivouac, the_example_can_be_planned),
    case("life/shells_read_what_completes", About::Bivouac, see::shells_read_what_completes),
];

const NODES: [&str; 3] = ["control-plane-0", "worker-0", "worker-1"];
const WORKERS: [&str; 2] = ["worker-0", "worker-1"];

/// Ports of the host that lead to workers: to a Service's node port, and to a pod's host port. And one for datagrams, that leads to the
/// first node.
#[derive(Clone, Copy)]
struct Ports {
    service: u16,
    pod: u16,
    names: u16,
}

fn spec(ports: Ports) -> String {
    let Ports { service, pod, names } = ports;
    let (service_node, pod_node) = (WORKERS[0], WORKERS[1]);
    format!(
        "  nodes:
  - {{role: control-plane}}
  - {{role: worker, count: 2, zones: [a, b], labels: {{disk: fast}}}}
  ports:
  - {{hostPort: {service}, port: {}, node: {service_node}}}
  - {{hostPort: {pod}, port: {}, node: {pod_node}}}
  - {{hostPort: {names}, port: {}, protocol: UDP}}
",
        pods::NODE_PORT,
        pods::HOST_PORT,
        datagrams::NODE_PORT
    )
}

fn a_cluster_from_a_file(ground: &Ground) {
    kubeconfig::write_own(ground);
    let cluster = ground.cluster("life");
    let [service, pod, names] = free_ports();
    let ports = Ports { service, pod, names };
    let spec = spec(ports);
    let file = cluster.file(&spec);

    let up = cluster.up(&file).args(["--output", "json"]).success();
    let result = up.json();
    assert_eq!(result["cluster"], cluster.name(), "{up}");
    assert_eq!(result["changed"], true, "{up}");
    assert_eq!(result["nodes"], 3, "{up}");
    let _ = up.expect_errors(&["control-plane-0: usable", "worker-0: usable", "worker-1: usable"]);

    nodes::are_as_asked(&cluster);
    kubeconfig::leads_to_the_cluster(&cluster);
    pods::answer(&cluster, ports);
    datagrams::are_answered(&cluster, ports.names);
    storage::is_written(&cluster);
    storage::is_kept(&cluster);
    metrics::are_told(&cluster);
    commands::on_a_node(&cluster);
    commands::about_the_cluster(&cluster);
    see::how_it_is(&cluster);
    see::what_was_done(&cluster);
    see::all_in_one_file(&cluster);
    see::what_a_shell_offers(&cluster);
    see::what_starts_it(&cluster);
    commands::with_typing_errors(&cluster);
    commands::up_again(&cluster, &file, &spec);

    let _ = cluster.down().success().expect_output(&[cluster.name(), "removed"]);
    kubeconfig::is_as_it_was(ground);
    let _ = cluster.down().success().expect_output(&["nothing"]);
}

fn the_example_can_be_planned(ground: &Ground) {
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
pub(crate) fn run_once(
    cluster: &Cluster<'_>,
    pod: &str,
    node: &str,
    image: &str,
    arguments: &[&str],
) -> Run {
    let place = format!("{{\"spec\":{{\"nodeName\":\"{node}\"}}}}");
    let run = cluster.kubectl(["run", pod, "--restart=Never", "--image-pull-policy=IfNotPresent"]);
    run.args(["--image", image, "--overrides", &place, "--"]).args(arguments)
}
