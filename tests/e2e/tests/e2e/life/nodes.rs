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
    assert_eq!(taints(control_plane), [format!("{CONTROL_PLANE}:NoSchedule")]);
    for (worker, zone) in workers.iter().zip(["a", "b"]) {
        let labels = &worker["metadata"]["labels"];
        assert_eq!(labels["topology.kubernetes.io/zone"], zone, "{labels:#}");
        assert_eq!(labels["disk"], "fast", "{labels:#}");
        assert!(labels[CONTROL_PLANE].is_null(), "{labels:#}");
        assert!(taints(worker).is_empty(), "{worker:#}");
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
        // On a busy machine a probe may take too long once or twice.
        for container in pod["status"]["containerStatuses"].as_array().into_iter().flatten() {
            let restarts = container["restartCount"].as_u64();
            assert!(restarts.is_none_or(|restarts| restarts <= 2), "something falls over: {pod:#}");
            assert_ne!(container["lastState"]["terminated"]["reason"], "OOMKilled", "{pod:#}");
        }
    }
}

/// Those of a node, but for what the cluster adds and takes away while it finds a node Ready.
fn taints(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let taints = taints.map(|taint| (text(&taint["key"]), text(&taint["effect"])));
    let own = taints.filter(|(key, _)| !key.starts_with("node.kubernetes.io/"));
    own.map(|(key, effect)| format!("{key}:{effect}")).collect()
}
