//! Rights as kubeadm 1.36 leaves them (`cmd/kubeadm/app/phases/{bootstraptoken,kubeconfig}`), as far as they have a meaning without
//! kubeadm's own ConfigMaps. What the API server makes by itself is not repeated.

use serde_json::{Value, json};

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
        json!({
            "apiVersion": format!("{GROUP}/v1"),
            "kind": "ClusterRole",
            "metadata": {"name": "kubeadm:get-nodes"},
            "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}],
        }),
        binding("kubeadm:get-nodes", "kubeadm:get-nodes", &group(BOOTSTRAPPERS)),
    ]
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
