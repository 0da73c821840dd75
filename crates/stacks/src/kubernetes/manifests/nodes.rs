//! Node objects. They are there before any kubelet asks for its own, because kubelets may neither give themselves role labels nor
//! pod networks.

use bivouac_spec::node::unit::Request;
use bivouac_spec::quantity::{Bytes, Cpus};
use serde_json::{Map, Value, json};

use super::super::layout::{Layout, Member};
use super::{apply, create};

/// How many a kubelet takes, unless it is told otherwise.
const PODS: u32 = 110;

/// Stands for the memory of a machine that is not known, as in an export: more than any has, and not too much to count with.
const MOST_MEMORY: u64 = 1 << 50;

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

/// The object of a node as it is at the beginning, and what of it holds always.
pub(in super::super) fn objects(layout: &Layout<'_>, member: &Member) -> [String; 2] {
    [initial(layout, member), lasting(layout, member)].map(|object| object.to_string())
}

fn initial(layout: &Layout<'_>, member: &Member) -> Value {
    let mut node = lasting(layout, member);
    if !member.taints.is_empty() {
        node["spec"]["taints"] = json!(member.taints);
    }
    // kubeadm takes an object for a node's when it has the first of them. Kubelets give themselves the same, but only after they have
    // looked whether the pods that are there already fit.
    let labels = [
        ("kubernetes.io/hostname", member.name().as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", &layout.facts.architecture),
    ];
    for (key, value) in labels {
        node["metadata"]["labels"][key] = json!(value);
    }
    // kube-proxy looks for the address once, and then only each second; the kubelet reports it later, and the same.
    let mut addresses: Vec<Value> = member
        .addresses
        .iter()
        .map(|address| json!({"type": "InternalIP", "address": address}))
        .collect();
    addresses.push(json!({"type": "Hostname", "address": member.name()}));
    node["status"] = json!({"addresses": addresses, "capacity": capacity(layout, member)});
    node["status"]["allocatable"] = node["status"]["capacity"].clone();
    node
}

/// What a node has until its kubelet says so. In the copy of a cluster pods are there before any kubelet: it would fail those of a node that
/// has nothing. How much its disk holds only the kubelet knows, and pods that fitted before must not fail for it. Memory without a limit
/// is told in whole GiB, because each version of a kernel counts a little less or more of the same machine, and a config should not.
fn capacity(layout: &Layout<'_>, member: &Member) -> Value {
    let (facts, limits) = (layout.facts, member.spec.resources);
    let all = Cpus(facts.cpus.saturating_mul(1000));
    let cpus = limits.cpus.map_or(all, |limit| limit.min(all));
    let all = Bytes(facts.memory.0.min(MOST_MEMORY).next_multiple_of(1 << 30));
    let memory = limits.memory.map_or(all, |limit| limit.min(all));
    json!({
        "cpu": cpus.to_string(),
        "memory": memory.0.to_string(),
        "ephemeral-storage": "1Pi",
        "pods": PODS.to_string(),
    })
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
