//! Nodes are what the cluster file asks for.

use bivouac_e2e::Cluster;
use serde_json::Value;

use super::NODES;

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

pub(super) fn are_as_asked(cluster: &Cluster<'_>) {
    let list = cluster.get(["nodes"]);
    let nodes = list["items"].as_array().expect("a list has items");
    let names: Vec<&str> =
        nodes.iter().filter_map(|node| node["metadata"]["name"].as_str()).collect();
    assert_eq!(names, NODES);
    let mut pod_networks = Vec::new();
    for node in nodes {
        assert_eq!(condition(node, "Ready"), "True", "{node:#}");
        assert_eq!(condition(node, "DiskPressure"), "False", "{node:#}");
        let network =
            node["spec"]["podCIDR"].as_str().unwrap_or_else(|| panic!("no podCIDR: {node:#}"));
        assert!(!pod_networks.contains(&network), "{network} is given twice");
        pod_networks.push(network);
    }
    let [control_plane, workers @ ..] = &nodes[..] else { unreachable!("there are three") };
    assert!(control_plane["metadata"]["labels"][CONTROL_PLANE].is_string(), "{control_plane:#}");
    let taint = &control_plane["spec"]["taints"][0];
    assert_eq!(
        (&taint["key"], &taint["effect"]),
        (&CONTROL_PLANE.into(), &"NoSchedule".into()),
        "{taint}"
    );
    for (worker, zone) in workers.iter().zip(["a", "b"]) {
        let labels = &worker["metadata"]["labels"];
        assert_eq!(labels["topology.kubernetes.io/zone"], zone, "{labels:#}");
        assert_eq!(labels["disk"], "fast", "{labels:#}");
        assert!(labels[CONTROL_PLANE].is_null(), "{labels:#}");
        assert!(worker["spec"]["taints"].is_null(), "{worker:#}");
    }
    everything_else_is_there(cluster);
}

fn condition<'a>(node: &'a Value, wanted: &str) -> &'a str {
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.into_iter().find(|condition| condition["type"] == wanted);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("absent")
}

fn everything_else_is_there(cluster: &Cluster<'_>) {
    let classes = cluster.get(["storageclasses"]);
    let default = &classes["items"][0]["metadata"]["annotations"]["storageclass.kubernetes.io/is-default-class"];
    assert_eq!(default, "true", "{classes:#}");
    let pods = cluster.get(["pods", "--all-namespaces"]);
    for pod in pods["items"].as_array().expect("a list has items") {
        let restarts = pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
        assert!(restarts.is_none_or(|restarts| restarts == 0), "something fell over: {pod:#}");
    }
}
