//! The API server, the controller manager and the scheduler, with the flags that kubeadm 1.36 gives them
//! (`cmd/kubeadm/app/phases/controlplane`), and what differs said where it differs.

use bivouac_spec::node::{File, Probe, Service};
use bivouac_spec::quantity::Span;
use serde_json::json;

use super::command::{Command, after};
use super::layout::{API_PORT, Layout, Member};
use super::manifests::NODES;
use super::places::{self, PKI, pair};
use super::probes::{http, loopback, open_to_administrators};
use super::{etcd, tuning};

pub(super) const API_SERVER: &str = "kube-apiserver";
pub(super) const CONTROLLER_MANAGER: &str = "kube-controller-manager";
pub(super) const SCHEDULER: &str = "kube-scheduler";
/// A task on every node: the API server that the node talks to answers everybody. On a control plane: and what it makes by itself is there.
pub(super) const API: &str = "api";

/// The scheduler's configuration.
pub(super) const SCHEDULER_CONFIG: &str = "/etc/kubernetes/scheduler.yaml";

/// Files of a control plane that hold no keys.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    let mut files = etcd::files(layout, member);
    files.push(scheduler_config(layout));
    files
}

/// The scheduler's configuration.
pub(super) fn scheduler_config(layout: &Layout<'_>) -> File {
    let scheduler = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {
            "kubeconfig": places::kubeconfig("scheduler"),
            "qps": tuning::CLIENT_QPS,
            "burst": tuning::CLIENT_QPS,
        },
        "leaderElection": {"leaderElect": layout.elects()},
    });
    File::public(SCHEDULER_CONFIG, format!("{scheduler:#}\n"))
}

/// The services of a control plane.
pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    vec![
        etcd::service(layout, member),
        api_server(layout, member),
        controller_manager(layout),
        scheduler(layout, member),
    ]
}

/// It would wait for watches that others hold, for which a node that stops has no time. What it answered is in etcd.
const API_SERVER_GRACE: Span = Span::millis(300);

fn api_server(layout: &Layout<'_>, member: &Member) -> Service {
    let pki = |name: &str| format!("{PKI}/{name}");
    let (certificate, key) = pair("apiserver");
    let (kubelet_certificate, kubelet_key) = pair("apiserver-kubelet-client");
    let (proxy_certificate, proxy_key) = pair("front-proxy-client");
    let command = Command::new(API_SERVER)
        .flag("advertise-address", member.address())
        .flag("secure-port", API_PORT)
        .flag("allow-privileged", true)
        .flag("authorization-mode", "Node,RBAC")
        .flag("enable-admission-plugins", "NodeRestriction")
        .flag("enable-bootstrap-token-auth", true)
        .flag("client-ca-file", places::AUTHORITY)
        .flag("tls-cert-file", certificate)
        .flag("tls-private-key-file", key)
        .flag("etcd-servers", etcd::SOCKET)
        .flag("kubelet-client-certificate", kubelet_certificate)
        .flag("kubelet-client-key", kubelet_key)
        // kubeadm leaves it out, because kubelets there sign their own certificates.
        .flag("kubelet-certificate-authority", places::AUTHORITY)
        .flag("kubelet-preferred-address-types", "InternalIP,ExternalIP,Hostname")
        .flag("requestheader-client-ca-file", pki("front-proxy-ca.crt"))
        .flag("requestheader-allowed-names", "front-proxy-client")
        .flag("requestheader-username-headers", "X-Remote-User")
        .flag("requestheader-group-headers", "X-Remote-Group")
        .flag("requestheader-extra-headers-prefix", "X-Remote-Extra-")
        .flag("proxy-client-cert-file", proxy_certificate)
        .flag("proxy-client-key-file", proxy_key)
        .flag(
            "service-account-issuer",
            format!("https://{}", layout.service_name("kubernetes.default")),
        )
        .flag("service-account-key-file", pki("sa.pub"))
        .flag("service-account-signing-key-file", pki("sa.key"))
        .flag("service-cluster-ip-range", layout.service_networks())
        .flag("shutdown-delay-duration", "0s");
    let mut service = command.service(layout, API_SERVER, open_to_administrators(member));
    service.after = if tuning::API_WAITS_FOR_ETCD { etcd::ready(layout) } else { Vec::new() };
    service.environment = tuning::hasty();
    service.oom_score = Some(-997);
    service.stop.grace = API_SERVER_GRACE;
    service
}

fn controller_manager(layout: &Layout<'_>) -> Service {
    let kubeconfig = places::kubeconfig("controller-manager");
    let (authority, authority_key) = pair("ca");
    let command = local_server(CONTROLLER_MANAGER)
        .flag("kubeconfig", &kubeconfig)
        .flag("authentication-kubeconfig", &kubeconfig)
        .flag("authorization-kubeconfig", &kubeconfig)
        .flag("client-ca-file", places::AUTHORITY)
        .flag("requestheader-client-ca-file", format!("{PKI}/front-proxy-ca.crt"))
        .flag("root-ca-file", places::AUTHORITY)
        .flag("service-account-private-key-file", format!("{PKI}/sa.key"))
        .flag("cluster-signing-cert-file", authority)
        .flag("cluster-signing-key-file", authority_key)
        .flag("use-service-account-credentials", true)
        .flag("controllers", "*,bootstrapsigner,tokencleaner")
        .flag("cluster-name", layout.cluster)
        // Node objects come with the pod networks that bivouac assigned.
        .flag("allocate-node-cidrs", false)
        .flag("leader-elect", layout.elects())
        .flag("kube-api-qps", tuning::CLIENT_QPS)
        .flag("kube-api-burst", tuning::CLIENT_QPS);
    let mut service = command.service(layout, CONTROLLER_MANAGER, healthy(10257, "/healthz"));
    service.after = after([API]);
    service
}

fn scheduler(layout: &Layout<'_>, member: &Member) -> Service {
    let kubeconfig = places::kubeconfig("scheduler");
    let command = local_server(SCHEDULER)
        .flag("config", SCHEDULER_CONFIG)
        .flag("authentication-kubeconfig", &kubeconfig)
        .flag("authorization-kubeconfig", &kubeconfig);
    let mut service = command.service(layout, SCHEDULER, healthy(10259, "/livez"));
    service.after = after([if layout.is_first(member) { NODES } else { API }]);
    service
}

/// A program that serves its health on the loopback only, with a certificate that can be verified.
fn local_server(program: &str) -> Command {
    Command::new(program).flag("bind-address", loopback(0).ip()).flags(local_server_flags(program))
}

/// Without a certificate of its own, a server makes an RSA key at each start, which nobody can verify.
pub(super) fn local_server_flags(program: &str) -> [(&'static str, String); 2] {
    let (certificate, key) = pair(program);
    [("tls-cert-file", certificate), ("tls-private-key-file", key)]
}

/// A local server says that it is well.
pub(super) fn healthy(port: u16, path: &str) -> Probe {
    http(format!("https://{}{path}", loopback(port)), Some(super::probes::anonymous()))
}
