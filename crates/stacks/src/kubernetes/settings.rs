//! The configuration of the kubelet and of kube-proxy, as far as it is the same on every node and however the cluster comes up.

use bivouac_spec::facts::CgroupVersion;
use serde_json::{Value, json};

use super::layout::{Layout, join};
use super::places::{self, CONTAINERD_SOCKET};
use super::tuning;

/// What holds for the kubelet of every node.
pub(super) fn kubelet(layout: &Layout<'_>) -> Value {
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
        "resolvConf": "/etc/resolv.conf",
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

/// What holds for kube-proxy on every node; how it reaches the API is left to who starts it.
pub(super) fn proxy(layout: &Layout<'_>) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": join(&layout.addresses.pod_networks),
        "detectLocalMode": "ClusterCIDR",
        "clientConnection": {
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
