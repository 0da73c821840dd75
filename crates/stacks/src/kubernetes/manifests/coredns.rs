//! The cluster's DNS, as kubeadm 1.36 sets it up (`cmd/kubeadm/app/phases/addons/dns`), with one replica where one will do.

use serde_json::{Value, json};

use super::super::layout::Layout;
use super::super::tuning;
use super::super::versions::COREDNS;

const NAMESPACE: &str = "kube-system";
/// One answers for a small cluster; kubeadm would make two.
pub(in super::super) const REPLICAS: u32 = 1;
/// Where the loss of a node is to be survived, so is the loss of one that answers.
const REPLICAS_OF_SEVERAL: u32 = 2;
/// Seconds between two questions of the kubelet whether it is ready.
pub(in super::super) const READY_PERIOD: u32 = 1;

pub(super) fn objects(layout: &Layout<'_>) -> Vec<Value> {
    let account = json!({"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE});
    let look = |group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]});
    vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": "coredns", "namespace": NAMESPACE},
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "system:coredns"},
            "rules": [
                look("", &["endpoints", "services", "pods", "namespaces"]),
                look("discovery.k8s.io", &["endpointslices"]),
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": "system:coredns"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns"},
            "subjects": [account],
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "coredns", "namespace": NAMESPACE},
            "data": {"Corefile": corefile(&layout.settings.domain)},
        }),
        deployment(layout),
        service(layout),
    ]
}

/// Only plugins that the bundle's CoreDNS has. `lameduck` is how long it serves on after it was told to end, until nobody asks it any more: a node that
/// stops waits for that, and in clusters of one machine or a few the news is everywhere in much less.
fn corefile(domain: &str) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 300ms
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . /etc/resolv.conf {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn service(layout: &Layout<'_>) -> Value {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "port": number, "protocol": protocol, "targetPort": number});
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns",
                "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
            "annotations": {"prometheus.io/port": "9153", "prometheus.io/scrape": "true"},
        },
        "spec": {
            "clusterIP": layout.dns,
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "selector": {"k8s-app": "kube-dns"},
            // While nobody is ready, who asks gets no worse answer than from nobody, and kube-proxy's rules are in place before.
            "publishNotReadyAddresses": true,
        },
    });
    if layout.addresses.service_networks.len() > 1 {
        service["spec"]["ipFamilyPolicy"] = json!("PreferDualStack");
    }
    service
}

/// What is different in the Service that kubeadm makes.
pub(super) fn early() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE},
        "spec": {"publishNotReadyAddresses": true},
    })
}

/// The Service from when it answers on: with several replicas, one that is lost must not be asked.
pub(super) fn settled(layout: &Layout<'_>) -> Value {
    let mut service = service(layout);
    service["spec"]["publishNotReadyAddresses"] = json!(false);
    service
}

fn deployment(layout: &Layout<'_>) -> Value {
    let mut deployment = single();
    if layout.elects() {
        deployment["spec"]["replicas"] = json!(REPLICAS_OF_SEVERAL);
        deployment["spec"]["template"]["spec"]["affinity"] = super::apart("kube-dns");
    }
    deployment
}

fn single() -> Value {
    let port = |name: &str, number: u16, protocol: &str| json!({"name": name, "containerPort": number, "protocol": protocol});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "coredns", "namespace": NAMESPACE, "labels": {"k8s-app": "kube-dns"}},
        "spec": {
            "replicas": REPLICAS,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "selector": {"matchLabels": {"k8s-app": "kube-dns"}},
            "template": {
                "metadata": {"labels": {"k8s-app": "kube-dns"}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": "coredns",
                    "tolerations": tolerations(),
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "dnsPolicy": "Default",
                    "containers": [{
                        "name": "coredns",
                        "image": COREDNS,
                        "imagePullPolicy": "IfNotPresent",
                        "args": ["-conf", "/etc/coredns/Corefile"],
                        "resources": {
                            "limits": {"memory": "170Mi"},
                            "requests": {"cpu": "100m", "memory": "70Mi"},
                        },
                        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true}],
                        "ports": [
                            port("dns", 53, "UDP"),
                            port("dns-tcp", 53, "TCP"),
                            port("metrics", 9153, "TCP"),
                            port("liveness-probe", 8080, "TCP"),
                            port("readiness-probe", 8181, "TCP"),
                        ],
                        "livenessProbe": {
                            "httpGet": {"path": "/health", "port": "liveness-probe", "scheme": "HTTP"},
                            "initialDelaySeconds": 60, "timeoutSeconds": 5, "failureThreshold": 5,
                        },
                        "readinessProbe": {
                            "httpGet": {"path": "/ready", "port": "readiness-probe", "scheme": "HTTP"},
                            "periodSeconds": READY_PERIOD,
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                        },
                    }],
                    "volumes": [{
                        "name": "config-volume",
                        "configMap": {"name": "coredns", "items": [{"key": "Corefile", "path": "Corefile"}]},
                    }],
                },
            },
        },
    })
}

/// Where it may run.
pub(in super::super) fn tolerations() -> Vec<Value> {
    let mut tolerations = vec![
        json!({"key": "CriticalAddonsOnly", "operator": "Exists"}),
        json!({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}),
    ];
    if tuning::DNS_BEFORE_READY {
        tolerations.push(json!({
            "key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoSchedule",
        }));
    }
    tolerations
}
