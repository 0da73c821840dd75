//! What kubeadm is told (`kubeadm.k8s.io/v1beta4`): the cluster of the default bootstrap, in kubeadm's words.

use bivouac_spec::node::File;
use serde_json::{Value, json};

use super::super::control_plane::{self, local_server_flags};
use super::super::layout::{API_PORT, Layout, Member, join};
use super::super::manifests::coredns;
use super::super::places::{self, CONTAINERD_SOCKET, KUBEADM_CONFIG, KUBEADM_PATCHES};
use super::super::{etcd, settings, tuning, versions};

const VERSION: &str = "kubeadm.k8s.io/v1beta4";
/// Where a published or forwarded port ends.
const LOCALHOST: [&str; 2] = ["localhost", "127.0.0.1"];

pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    if !member.is_control_plane() {
        return vec![document(KUBEADM_CONFIG, &[join_configuration(member)])];
    }
    let whole = [
        init_configuration(member),
        cluster_configuration(layout),
        settings::kubelet(layout),
        settings::proxy(layout),
    ];
    let patch = format!("{KUBEADM_PATCHES}/corednsdeployment+strategic.json");
    vec![
        control_plane::scheduler_config(layout),
        document(KUBEADM_CONFIG, &whole),
        document(&patch, &[dns_patch(member)]),
    ]
}

/// JSON is YAML too.
fn document(path: &str, parts: &[Value]) -> File {
    let parts: Vec<String> = parts.iter().map(|part| format!("{part:#}\n")).collect();
    File::public(path, parts.join("---\n"))
}

fn init_configuration(member: &Member) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "InitConfiguration",
        "localAPIEndpoint": {"advertiseAddress": member.address(), "bindPort": API_PORT},
        "nodeRegistration": registration(member),
        "patches": {"directory": KUBEADM_PATCHES},
    })
}

fn join_configuration(member: &Member) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": "JoinConfiguration",
        "discovery": {"file": {"kubeConfigPath": places::kubeconfig(places::DISCOVERY)}},
        "nodeRegistration": registration(member),
    })
}

fn registration(member: &Member) -> Value {
    json!({
        "name": member.name(),
        "criSocket": format!("unix://{CONTAINERD_SOCKET}"),
        "imagePullPolicy": "IfNotPresent",
        "kubeletExtraArgs": arguments(&[("node-ip", member.node_ip())]),
        "taints": member.taints,
    })
}

fn cluster_configuration(layout: &Layout<'_>) -> Value {
    let elects = layout.elects().to_string();
    let qps = tuning::CLIENT_QPS.to_string();
    let api_server = arguments(&[
        ("kubelet-certificate-authority", places::AUTHORITY.to_owned()),
        ("shutdown-delay-duration", "0s".to_owned()),
    ]);
    let mut manager = vec![
        // Node objects come with the pod networks that bivouac assigned.
        ("allocate-node-cidrs", "false".to_owned()),
        ("leader-elect", elects.clone()),
        ("kube-api-qps", qps.clone()),
        ("kube-api-burst", qps),
    ];
    manager.extend(local_server_flags("kube-controller-manager"));
    let mut scheduler =
        vec![("config", control_plane::SCHEDULER_CONFIG.to_owned()), ("leader-elect", elects)];
    scheduler.extend(local_server_flags("kube-scheduler"));
    let file = |name: &str, path: &str| json!({"name": name, "hostPath": path, "mountPath": path, "pathType": "File", "readOnly": true});
    let (certificate, key) = places::pair("kube-scheduler");
    let environment: Vec<Value> = tuning::hasty()
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({
        "apiVersion": VERSION,
        "kind": "ClusterConfiguration",
        "clusterName": layout.cluster,
        "kubernetesVersion": layout.settings.version,
        "imageRepository": versions::REPOSITORY,
        "networking": {
            "dnsDomain": layout.settings.domain,
            "podSubnet": join(&layout.addresses.pod_networks),
            "serviceSubnet": layout.service_networks(),
        },
        "apiServer": {
            "certSANs": LOCALHOST,
            "extraArgs": api_server,
            "extraEnvs": environment,
        },
        "controllerManager": {"extraArgs": arguments(&manager)},
        "scheduler": {
            "extraArgs": arguments(&scheduler),
            "extraVolumes": [
                file("config", control_plane::SCHEDULER_CONFIG),
                file("certificate", &certificate),
                file("key", &key),
            ],
        },
        "etcd": {"local": {
            "dataDir": places::ETCD_DATA,
            "imageTag": versions::ETCD,
            "extraArgs": etcd_arguments(layout),
        }},
        "dns": {"imageTag": versions::dns_tag()},
    })
}

fn etcd_arguments(layout: &Layout<'_>) -> Vec<Value> {
    let mut flags = vec![
        ("snapshot-count", tuning::ETCD_SNAPSHOT_COUNT.to_string()),
        ("log-level", "warn".to_owned()),
    ];
    if !layout.elects() {
        flags.extend(etcd::quick_election());
    }
    arguments(&flags)
}

/// Flags and variables alike.
fn arguments(flags: &[(&str, String)]) -> Vec<Value> {
    flags.iter().map(|(name, value)| json!({"name": name, "value": value})).collect()
}

/// One replica, which may be placed on a node that is not Ready yet, and is asked each second whether it is ready: kubeadm's own waits for
/// a moment up to ten seconds long before it is asked for the first time. It starts at the same moment as kube-proxy, and what it sends to
/// the Service of the API before the Service works is lost for seconds, so it is told the API server's own address.
///
/// kubeadm knows the versions of CoreDNS up to its own, and refuses to run again where it finds a newer one. It finds it by this label.
fn dns_patch(member: &Member) -> Value {
    let host = ("KUBERNETES_SERVICE_HOST", member.api.ip().to_string());
    let port = ("KUBERNETES_SERVICE_PORT", member.api.port().to_string());
    json!({
        "metadata": {"labels": {"k8s-app": null}},
        "spec": {
            "replicas": coredns::REPLICAS,
            "template": {"spec": {
                "tolerations": coredns::tolerations(),
                "containers": [{
                    "name": "coredns",
                    "env": arguments(&[host, port]),
                    "readinessProbe": {"periodSeconds": coredns::READY_PERIOD},
                }],
            }},
        },
    })
}
