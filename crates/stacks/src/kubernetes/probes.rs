//! The questions that order the units of a node and say when it is usable.

use std::net::{Ipv4Addr, SocketAddr};

use bivouac_spec::cluster::Cni;
use bivouac_spec::node::probe::{Identity, SINCE};
use bivouac_spec::node::{Check, Dns, Expect, HttpRequest, Probe, Tls, Vantage};

use super::layout::{Layout, Member};
use super::node::KUBELET;
use super::{places, tuning};

/// A condition of every node; see [`dns_from_a_pod`].
pub(super) const DNS_ANSWERS: &str = "a pod gets a DNS answer";

/// An address of the node's own loopback.
pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Trusts the cluster's authority and says nothing of who asks.
pub(super) fn anonymous() -> Tls {
    Tls { authority: places::AUTHORITY.into(), identity: None }
}

/// Asks as the administrator whom authorization never refuses.
pub(super) fn super_admin() -> Tls {
    identified(places::SUPER_ADMIN)
}

/// Asks as the node's kubelet.
pub(super) fn kubelet() -> Tls {
    identified(places::KUBELET_CLIENT)
}

/// Asks as the one who joins the node by kubeadm.
pub(super) fn joiner() -> Tls {
    identified(places::JOINER)
}

fn identified((certificate, key): (&str, &str)) -> Tls {
    let identity = Identity { certificate: certificate.into(), key: key.into() };
    Tls { authority: places::AUTHORITY.into(), identity: Some(identity) }
}

/// A path on a server answers with success.
pub(super) fn http(url: String, tls: Option<Tls>) -> Probe {
    let request = HttpRequest { tls, ..HttpRequest::get(url) };
    Probe::new(Check::Http { request, expect: Expect::success() }).every(tuning::PROBE)
}

/// Somebody listens at a socket. Its clients may connect from then on, and are answered when it is ready.
pub(super) fn accepting(socket: &str) -> Probe {
    Probe::new(Check::Socket(socket.into())).every(tuning::PROBE)
}

/// A health path on the loopback, without TLS.
pub(super) fn local(port: u16, path: &str) -> Probe {
    http(format!("http://{}{path}", loopback(port)), None)
}

/// The API server answers those whom it need not look up. Two of its own start-up steps are left out of the question: making roles
/// and making priority classes both begin with a second of doing nothing (`wait.Poll` in `pkg/registry/{rbac,scheduling}/rest`),
/// which is time enough for a kubelet to start. Who needs what they make asks for it: [`first_objects`].
pub(super) fn open_to_administrators(member: &Member) -> Probe {
    let (request, expect) = (administrators(member), Expect::success());
    Probe::new(Check::Http { request, expect }).every(tuning::PROBE)
}

/// The same as a request.
pub(super) fn administrators(member: &Member) -> HttpRequest {
    ready_but_for_first_objects(member.server()).tls(super_admin())
}

/// The same, answered to everybody who may ask: without a name one may do so only when the roles are there.
pub(super) fn open_to_clients(api: SocketAddr) -> HttpRequest {
    ready_but_for_first_objects(api).tls(anonymous())
}

fn ready_but_for_first_objects(api: SocketAddr) -> HttpRequest {
    let late = ["rbac/bootstrap-roles", "scheduling/bootstrap-system-priority-classes"];
    let late = late.map(|step| format!("exclude=poststarthook/{step}")).join("&");
    HttpRequest::get(format!("https://{api}/readyz?{late}"))
}

/// The objects that an API server makes by itself are there. It makes them one after the other, and these are the last. They lie in etcd
/// from then on: with its data, nobody waits for the second after which an API server looks whether they are as they should be.
pub(super) fn first_objects(member: &Member) -> Vec<(&'static str, HttpRequest)> {
    let (roles, classes) = ("rbac.authorization.k8s.io/v1", "scheduling.k8s.io/v1");
    let bindings = |namespace: &str, name: &str| {
        format!("{roles}/namespaces/{namespace}/rolebindings/system:controller:{name}")
    };
    let objects = [
        ("the roles of kube-system", bindings("kube-system", "token-cleaner")),
        ("the roles of kube-public", bindings("kube-public", "bootstrap-signer")),
        ("the first priority class", format!("{classes}/priorityclasses/system-node-critical")),
        ("the second priority class", format!("{classes}/priorityclasses/system-cluster-critical")),
    ];
    let get = |path: String| {
        HttpRequest::get(format!("https://{}/apis/{path}", member.server())).tls(super_admin())
    };
    objects.map(|(what, path)| (what, get(path))).into()
}

/// The API server answers everybody: without a name one may ask only when the roles are there.
pub(super) fn open_to_all(api: SocketAddr) -> HttpRequest {
    HttpRequest::get(format!("https://{api}/readyz")).tls(anonymous())
}

/// The node's own Node object is there.
pub(super) fn announced(member: &Member, asks: Tls) -> HttpRequest {
    HttpRequest::get(format!("https://{}/api/v1/nodes/{}", member.api, member.name())).tls(asks)
}

/// The node's own kubelet, as it was started last, has said that the node is Ready; or anything, where pods have no network yet. What the
/// one before it said stays for a while, and the new one begins by taking it back.
pub(super) fn node_reported(layout: &Layout<'_>, member: &Member, asks: Tls) -> Probe {
    let (ready, what) = if layout.cni == Cni::None {
        ("", "kubelets have reported since they started")
    } else {
        (
            r#" && @.status == "True""#,
            "kubelets have said since they started that their node is Ready",
        )
    };
    let select = format!(
        r#"$.status.conditions[?@.type == "Ready"{ready} && @.lastHeartbeatTime >= "{SINCE}"]"#
    );
    let expect = Expect::json(select, 1, what).since(KUBELET);
    let request = announced(member, asks);
    Probe::new(Check::Http { request, expect }).every(tuning::CLUSTER_PROBE)
}

/// Every node is Ready.
pub(super) fn nodes_ready(layout: &Layout<'_>) -> Probe {
    let select = r#"$.items[?@.status.conditions[?@.type == "Ready" && @.status == "True"]]"#;
    nodes(layout, select, "nodes are Ready")
}

fn nodes(layout: &Layout<'_>, select: &str, what: &str) -> Probe {
    let url = format!("https://{}/api/v1/nodes", layout.first().server());
    let request = HttpRequest::get(url).tls(super_admin());
    let expect = Expect::json(select, layout.members.len(), what);
    Probe::new(Check::Http { request, expect }).every(tuning::CLUSTER_PROBE)
}

/// Every kubelet has reported, whatever it said.
pub(super) fn nodes_registered(layout: &Layout<'_>) -> Probe {
    let select = r#"$.items[?@.status.conditions[?@.type == "Ready"]]"#;
    nodes(layout, select, "nodes are registered")
}

/// Pods may be made in the default namespace.
pub(super) fn default_service_account(layout: &Layout<'_>) -> Probe {
    let url = format!(
        "https://{}/api/v1/namespaces/default/serviceaccounts/default",
        layout.first().server()
    );
    http(url, Some(super_admin()))
}

/// The cluster's DNS answers, asked from the network that the node's pods are in.
pub(super) fn dns_from_a_pod(layout: &Layout<'_>) -> Probe {
    let from = Vantage::Pod { directory: places::PROBE_NAMESPACES.into() };
    let (server, name) = ((layout.dns, 53).into(), layout.service_name("kubernetes.default"));
    Probe::new(Check::Dns(Dns { server, name, from })).every(tuning::PROBE)
}
