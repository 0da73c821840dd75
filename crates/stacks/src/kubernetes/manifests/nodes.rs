//! Node objects. They are there before any kubelet asks for its own, because kubelets may neither give themselves role labels nor
//! pod networks.

use bivouac_spec::cluster::Bootstrap;
use bivouac_spec::node::unit::Request;
use serde_json::{Map, Value, json};

use super::super::layout::{Layout, Member};
use super::{apply, create};

/// What identifies the node to those who made it.
pub(in super::super) fn provider_id(layout: &Layout<'_>, member: &Member) -> String {
    format!("bivouac://{}/{}", layout.cluster, member.name())
}

/// First what is there only at the beginning, for every node; then what holds always. Taints belong to the first: they are one
/// list, in which a person and the node controller have their own, and applying it would take those away.
pub(super) fn requests(layout: &Layout<'_>) -> Vec<Request> {
    let api = layout.first().server();
    let made = layout.members.iter().map(|member| create(api, &initial(layout, member)));
    let held = layout.members.iter().map(|member| apply(api, &lasting(layout, member)));
    made.chain(held).collect()
}

fn initial(layout: &Layout<'_>, member: &Member) -> Value {
    let mut node = lasting(layout, member);
    if !member.taints.is_empty() {
        node["spec"]["taints"] = json!(member.taints);
    }
    if layout.settings.bootstrap == Bootstrap::Kubeadm {
        // kubeadm takes an object for a node's when it has the first of them, and its addons run where the second is. Kubelets give
        // themselves the same.
        let labels =
            [("kubernetes.io/hostname", member.name().as_str()), ("kubernetes.io/os", "linux")];
        for (key, value) in labels {
            node["metadata"]["labels"][key] = json!(value);
        }
    }
    // kube-proxy looks for the address once, and then only each second; the kubelet reports it later, and the same.
    let mut addresses: Vec<Value> = member
        .addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": member.name()}));
    node["status"] = json!({"addresses": addresses});
    node
}

fn lasting(layout: &Layout<'_>, member: &Member) -> Value {
    let labels: Map<String, Value> =
        member.labels().into_iter().map(|(key, value)| (key, Value::from(value))).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": member.name(), "labels": labels},
        "spec": {
            "podCIDR": member.pod_networks.first(),
            "podCIDRs": member.pod_networks,
            "providerID": provider_id(layout, member),
        },
    })
}
