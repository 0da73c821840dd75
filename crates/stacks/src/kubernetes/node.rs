//! What every node runs: containerd, the kubelet and kube-proxy.

use bivouac_spec::facts::CgroupVersion;
use bivouac_spec::node::unit::Request;
use bivouac_spec::node::{Expect, File, HttpRequest, Probe, Run, Service, Task, paths};
use serde_json::{Value, json};

use super::command::{Command, after};
use super::control_plane::{API, API_SERVER};
use super::layout::{Layout, Member, join};
use super::network::NAT;
use super::places::{
    self, CNI_CONFIG, CONTAINERD_CONFIG, CONTAINERD_SOCKET, KUBELET_CONFIG, PROXY_CONFIG,
};
use super::probes::{announced, local, open_to_all};
use super::tuning;
use super::versions::{CNI_PLUGINS, PAUSE, RUNC};

const CONTAINERD: &str = "containerd";
const KUBELET: &str = "kubelet";
pub(super) const PROXY: &str = "kube-proxy";
/// A task: the images of the node image are known to containerd.
const IMAGES: &str = "images";
/// A task: the images that were loaded on this host are known to containerd.
const SHARED_IMAGES: &str = "shared-images";
/// A task: the node's own Node object is there.
const ANNOUNCED: &str = "announced";

/// Configuration files without keys.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    vec![
        File::public(CONTAINERD_CONFIG, containerd_config(layout)),
        File::public(KUBELET_CONFIG, format!("{:#}\n", kubelet_config(layout, member))),
        File::public(PROXY_CONFIG, format!("{:#}\n", proxy_config(layout, member))),
    ]
}

/// The services of every node.
pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    let mut containerd = Command::new(CONTAINERD).flag("config", CONTAINERD_CONFIG).service(
        layout,
        CONTAINERD,
        Probe::new(bivouac_spec::node::Check::Socket(CONTAINERD_SOCKET.into()))
            .every(tuning::PROBE),
    );
    containerd.oom_score = Some(-999);
    containerd.environment = tuning::frugal();

    let command = Command::new(KUBELET)
        .flag("config", KUBELET_CONFIG)
        .flag("kubeconfig", places::kubeconfig(KUBELET))
        .flag("hostname-override", member.name())
        .flag("node-ip", member.address);
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
    proxy.after = after([ANNOUNCED, NAT]);
    proxy.oom_score = Some(-999);
    proxy.environment = tuning::frugal();
    vec![containerd, kubelet, proxy]
}

/// The tasks of every node.
pub(super) fn tasks(layout: &Layout<'_>, member: &Member) -> Vec<Task> {
    let own_server = if member.is_control_plane() { after([API_SERVER]) } else { Vec::new() };
    let ask = |name: &str, what: &str, request: HttpRequest| Task {
        name: name.to_owned(),
        after: own_server.clone(),
        run: Run::Requests(vec![Request {
            name: what.to_owned(),
            request,
            expect: Expect::success(),
        }]),
    };
    let register = |name: &str, directory: &str, after: Vec<String>| Task {
        name: name.to_owned(),
        after,
        run: Run::Images { directory: directory.into(), containerd: CONTAINERD_SOCKET.into() },
    };
    let mut tasks = vec![
        ask(API, "the API server", open_to_all(member)),
        ask(ANNOUNCED, "this node's Node object", announced(member)),
        register(IMAGES, paths::IMAGES, after([CONTAINERD])),
    ];
    if layout.facts.shares_images {
        tasks.push(register(SHARED_IMAGES, paths::SHARED_IMAGES, after([IMAGES])));
    }
    tasks
}

fn containerd_config(layout: &Layout<'_>) -> String {
    let lowers_oom_scores = layout.facts.raises_limits;
    let oom_score = if lowers_oom_scores { -999 } else { 0 };
    let restrict_oom_score_adj = !lowers_oom_scores;
    format!(
        r#"version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = {oom_score}
disabled_plugins = [
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.native",
]

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  pinned_images = {{ sandbox = "{PAUSE}" }}
  registry = {{ config_path = "{registries}" }}

[plugins."io.containerd.cri.v1.runtime"]
  # runc cannot lower OOM scores without CAP_SYS_RESOURCE, and dies of it.
  restrict_oom_score_adj = {restrict_oom_score_adj}

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{CNI_PLUGINS}"]
  conf_dir = "{CNI_CONFIG}"
  use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options = {{ BinaryName = "{RUNC}", SystemdCgroup = false }}

[plugins."io.containerd.server.v1.grpc"]
  address = "{CONTAINERD_SOCKET}"
"#,
        registries = places::REGISTRIES,
    )
}

fn kubelet_config(layout: &Layout<'_>, member: &Member) -> Value {
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": places::AUTHORITY},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "clusterDNS": [layout.dns],
        "clusterDomain": layout.settings.domain,
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        // The disk is a person's own, and often full: that is no reason to remove pods or images.
        "evictionHard": {"imagefs.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "failSwapOn": false,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 10248,
        "kubeAPIQPS": tuning::CLIENT_QPS,
        "kubeAPIBurst": tuning::CLIENT_QPS,
        // Nothing here uses iptables; kube-proxy and the CNI plugins use nftables.
        "makeIPTablesUtilChains": false,
        "oomScoreAdj": if layout.facts.raises_limits { -999 } else { 0 },
        "providerID": super::manifests::nodes::provider_id(layout, member),
        "registerWithTaints": member.taints,
        "resolvConf": "/etc/resolv.conf",
        "rotateCertificates": false,
        "serializeImagePulls": false,
        "staticPodPath": places::STATIC_PODS,
        "tlsCertFile": places::KUBELET_SERVING.0,
        "tlsPrivateKeyFile": places::KUBELET_SERVING.1,
    });
    if layout.facts.cgroup == CgroupVersion::V1 {
        // The kubelet has refused them since 1.35 unless told.
        config["failCgroupV1"] = json!(false);
    }
    config
}

fn proxy_config(layout: &Layout<'_>, member: &Member) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "hostnameOverride": member.name(),
        "clusterCIDR": join(&layout.addresses.pod_networks),
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {
            "kubeconfig": places::kubeconfig(PROXY),
            "qps": tuning::CLIENT_QPS,
            "burst": tuning::CLIENT_QPS,
        },
        // The sizes and times of connection tracking are the whole kernel's.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpCloseWaitTimeout": "0s",
            "tcpEstablishedTimeout": "0s",
        },
        "nftables": {"minSyncPeriod": tuning::PROXY_MIN_SYNC, "syncPeriod": "30s"},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "oomScoreAdj": if layout.facts.raises_limits { -999 } else { 0 },
    })
}
