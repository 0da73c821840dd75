//! The kubelet and kube-proxy as services of every node.

use bivouac_spec::node::{File, Service, Task};
use serde_json::json;

use super::balancer::before_clients;
use super::command::{Command, after, ask};
use super::control_plane::{API, API_SERVER};
use super::layout::{Layout, Member};
use super::network;
use super::places::{self, KUBELET_CONFIG, PROXY_CONFIG};
use super::probes::{self, announced, local, open_to_clients};
use super::runtime::{CONTAINERD, IMAGES};
use super::{settings, tuning};

pub(super) const KUBELET: &str = "kubelet";
pub(super) const PROXY: &str = "kube-proxy";
/// A task: the node's own Node object is there.
pub(super) const ANNOUNCED: &str = "announced";

/// Configuration files without keys.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    let mut kubelet = settings::kubelet(layout);
    kubelet["providerID"] = json!(super::manifests::nodes::provider_id(layout, member));
    kubelet["rotateCertificates"] = json!(false);
    let mut proxy = settings::proxy(layout);
    proxy["hostnameOverride"] = json!(member.name());
    proxy["clientConnection"]["kubeconfig"] = json!(places::kubeconfig(PROXY));
    vec![
        File::public(KUBELET_CONFIG, format!("{kubelet:#}\n")),
        File::public(PROXY_CONFIG, format!("{proxy:#}\n")),
    ]
}

/// The services of every node.
pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    let command = Command::new(KUBELET)
        .flag("config", KUBELET_CONFIG)
        .flag("kubeconfig", places::kubeconfig(KUBELET))
        .flag("hostname-override", member.name())
        .flag("node-ip", member.node_ip());
    let mut kubelet = command.service(layout, KUBELET, local(10248, "/healthz"));
    // A pod whose image is not known yet would be pulled, and then wait in a backoff.
    kubelet.after = after([CONTAINERD, IMAGES]);
    if tuning::KUBELET_WAITS_FOR_NODE {
        kubelet.after.push(ANNOUNCED.to_owned());
    }
    kubelet.oom_score = Some(-999);
    kubelet.environment = tuning::frugal();

    let mut proxy = Command::new(PROXY).flag("config", PROXY_CONFIG).service(
        layout,
        PROXY,
        local(10256, "/healthz"),
    );
    // It asks for its Node object once, and then only each second. Its rights are there before any Node object is.
    proxy.after = after([ANNOUNCED]);
    proxy.after.extend(network::before_proxy(layout));
    proxy.oom_score = Some(-999);
    proxy.environment = tuning::frugal();
    vec![kubelet, proxy]
}

/// The tasks of every node.
pub(super) fn tasks(layout: &Layout<'_>, member: &Member) -> Vec<Task> {
    let clients = before_clients(layout);
    let (server, own) = if member.is_control_plane() {
        (member.server(), after([API_SERVER]))
    } else {
        (member.api, clients.clone())
    };
    let mut questions =
        if member.is_control_plane() { probes::first_objects(member) } else { Vec::new() };
    questions.push(("the API server", open_to_clients(server)));
    // Where there are others, the kubelet does not depend on its own node's server.
    let early = if clients.is_empty() { own.clone() } else { clients };
    let announced = announced(member, probes::kubelet());
    vec![
        ask(API, own, questions),
        ask(ANNOUNCED, early, vec![("this node's Node object", announced)]),
    ]
}
