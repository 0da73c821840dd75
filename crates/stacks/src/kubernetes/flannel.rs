//! flannel: an overlay between the pod networks of the nodes, for grounds that route nothing but nodes. It learns every node's pod
//! network from its Node object and keeps a VXLAN device, routes and neighbours; translation is the node's own work.

use std::net::SocketAddr;

use bivouac_spec::node::{File, Service};
use serde_json::{Value, json};

use super::command::Command;
use super::layout::{Layout, Member};
use super::places::{self, FLANNEL_CONFIG};
use super::probes::{local, loopback};
use super::tuning;

/// The name of its kubeconfig and of its rights.
pub(super) const FLANNEL: &str = "flannel";
const PROGRAM: &str = "flanneld";
/// flannel's own, and not that of the standard, because every guide to its firewalls says so.
const PORT: u16 = 8472;
const HEALTH: u16 = 8471;

/// What the tunnel takes of a packet: VXLAN, UDP, IP and Ethernet headers. Packets of pods fit through that of either family.
pub(super) fn overhead(layout: &Layout<'_>) -> u16 {
    if layout.has(false) { 70 } else { 50 }
}

/// Files without keys.
pub(super) fn files(layout: &Layout<'_>) -> Vec<File> {
    let of = |v4: bool| {
        let networks = &layout.addresses.pod_networks;
        networks.iter().find(|network| network.addr().is_ipv4() == v4)
    };
    let mut config = json!({
        "EnableIPv4": of(true).is_some(),
        "EnableIPv6": of(false).is_some(),
        "Backend": {"Type": "vxlan", "VNI": 1, "Port": PORT},
    });
    for (key, network) in [("Network", of(true)), ("IPv6Network", of(false))] {
        if let Some(network) = network {
            config[key] = json!(network);
        }
    }
    vec![File::public(FLANNEL_CONFIG, format!("{config:#}\n"))]
}

/// flanneld, which starts when the node's own Node object is there.
pub(super) fn service(layout: &Layout<'_>, member: &Member, announced: Vec<String>) -> Service {
    let health: SocketAddr = loopback(HEALTH);
    let command = Command::new(PROGRAM)
        .flag("kubeconfig", places::kubeconfig(FLANNEL))
        .flag("net-conf", FLANNEL_CONFIG)
        .flag("iface", member.address())
        .flag("healthz-bind-address", health);
    let mut service = command.service(layout, PROGRAM, local(HEALTH, "/healthz"));
    service.after = announced;
    service.environment = tuning::frugal();
    service.environment.insert("NODE_NAME".to_owned(), member.name().to_string());
    service.oom_score = Some(-999);
    service
}

/// What it may do: see nodes, and write to each how it is reached.
pub(super) fn rights() -> Vec<Value> {
    let rules = json!([
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]},
    ]);
    let (rbac, version) = ("rbac.authorization.k8s.io", "rbac.authorization.k8s.io/v1");
    vec![
        json!({
            "apiVersion": version, "kind": "ClusterRole",
            "metadata": {"name": FLANNEL}, "rules": rules,
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding",
            "metadata": {"name": FLANNEL},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": FLANNEL},
            "subjects": [{"apiGroup": rbac, "kind": "User", "name": bivouac_pki::FLANNEL}],
        }),
    ]
}
