//! Rights as kubeadm 1.36 leaves them (`cmd/kubeadm/app/phases/{bootstraptoken,kubeconfig}`), as far as they have a meaning without
//! kubeadm's own ConfigMaps; and the few of the API server's own that must be there before it makes them.

use serde_json::{Value, json};

const LOOK: [&str; 3] = ["get", "list", "watch"];
const GROUP: &str = "rbac.authorization.k8s.io";
/// Who has a bootstrap token.
const BOOTSTRAPPERS: &str = "system:bootstrappers:kubeadm:default-node-token";
const SELF_APPROVE: &str = "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient";
const APPROVE: &str = "system:certificates.k8s.io:certificatesigningrequests:nodeclient";

pub(super) fn objects() -> Vec<Value> {
    let group = |name: &str| subject("Group", name);
    vec![
        // The user's own kubeconfig is in this group.
        binding("kubeadm:cluster-admins", "cluster-admin", &group("kubeadm:cluster-admins")),
        binding(
            "kubeadm:apiserver-kubelet-client",
            "system:kubelet-api-admin",
            &subject("User", "kube-apiserver-kubelet-client"),
        ),
        binding(
            "kubeadm:node-autoapprove-certificate-rotation",
            SELF_APPROVE,
            &group("system:nodes"),
        ),
        binding("kubeadm:kubelet-bootstrap", "system:node-bootstrapper", &group(BOOTSTRAPPERS)),
        binding("kubeadm:node-autoapprove-bootstrap", APPROVE, &group(BOOTSTRAPPERS)),
        role("kubeadm:get-nodes", &json!([rule(&[""], &["nodes"], &["get"])])),
        binding("kubeadm:get-nodes", "kubeadm:get-nodes", &group(BOOTSTRAPPERS)),
    ]
}

/// What kube-proxy may do, before the API server says the same by itself, which it does a second after it has come up. It then finds
/// these and adds what they lack.
pub(super) fn proxy() -> Vec<Value> {
    let rules = json!([
        rule(&[""], &["endpoints", "services"], &["list", "watch"]),
        rule(&[""], &["nodes"], &LOOK),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
        rule(&["networking.k8s.io"], &["servicecidrs"], &["list", "watch"]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"]),
    ]);
    let user = subject("User", "system:kube-proxy");
    let name = "system:node-proxier";
    vec![role(name, &rules), binding(name, name, &user)]
}

/// What the scheduler may do, likewise, as far as it needs it to begin.
pub(super) fn scheduler() -> Vec<Value> {
    let core = [
        "namespaces",
        "nodes",
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "replicationcontrollers",
        "services",
    ];
    let storage = ["csidrivers", "csinodes", "csistoragecapacities", "volumeattachments"];
    let rules = json!([
        rule(&[""], &core, &LOOK),
        rule(&["apps"], &["replicasets", "statefulsets"], &LOOK),
        rule(&["policy"], &["poddisruptionbudgets"], &LOOK),
        rule(&["resource.k8s.io"], &["deviceclasses", "resourceclaims", "resourceslices"], &LOOK),
        rule(&["storage.k8s.io"], &storage, &LOOK),
        rule(&[""], &["bindings", "pods/binding"], &["create"]),
        rule(&[""], &["pods/status"], &["patch", "update"]),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch", "update"]),
    ]);
    let volumes = json!([rule(&["storage.k8s.io"], &["storageclasses"], &LOOK)]);
    let user = subject("User", "system:kube-scheduler");
    let (name, volume) = ("system:kube-scheduler", "system:volume-scheduler");
    vec![
        role(name, &rules),
        binding(name, name, &user),
        role(volume, &volumes),
        binding(volume, volume, &user),
    ]
}

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": groups, "resources": resources, "verbs": verbs})
}

fn role(name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    })
}

fn subject(kind: &str, name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": kind, "name": name})
}

fn binding(name: &str, role: &str, subject: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [subject],
    })
}
