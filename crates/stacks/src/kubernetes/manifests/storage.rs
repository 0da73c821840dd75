//! The default storage class: volumes are folders on the node where the pod is (local-path-provisioner 0.0.30, as upstream's
//! `deploy/local-path-storage.yaml` sets it up). A cluster is usable when the class is there; its pod comes a moment later, and
//! claims wait for it.

use serde_json::{Value, json};

use super::super::places::VOLUMES;
use super::super::versions::{BUSYBOX, LOCAL_PATH};

const NAMESPACE: &str = "local-path-storage";
const ACCOUNT: &str = "local-path-provisioner-service-account";
const ROLE: &str = "local-path-provisioner-role";
const BINDING: &str = "local-path-provisioner-bind";
const NAME: &str = "local-path-provisioner";
const RBAC: &str = "rbac.authorization.k8s.io/v1";

const SETUP: &str = "#!/bin/sh\nset -eu\nmkdir -m 0777 -p \"$VOL_DIR\"\n";
const TEARDOWN: &str = "#!/bin/sh\nset -eu\nrm -rf \"$VOL_DIR\"\n";

/// The class, and what its provisioner needs.
pub(super) fn objects() -> Vec<Value> {
    let subjects = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]);
    let role =
        |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": ROLE});
    vec![
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": {
                "name": "standard",
                "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
            },
            "provisioner": "rancher.io/local-path",
            "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer",
        }),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}}),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": ROLE},
            "rules": [
                rule("", &["nodes", "persistentvolumeclaims", "configmaps", "pods", "pods/log"], &LOOK),
                rule("", &["persistentvolumes"], &CHANGE),
                rule("", &["events"], &["create", "patch"]),
                rule("storage.k8s.io", &["storageclasses"], &LOOK),
            ],
        }),
        json!({
            "apiVersion": RBAC, "kind": "Role", "metadata": {"name": ROLE, "namespace": NAMESPACE},
            "rules": [rule("", &["pods"], &CHANGE)],
        }),
        json!({
            "apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": BINDING},
            "roleRef": role("ClusterRole"), "subjects": &subjects,
        }),
        json!({
            "apiVersion": RBAC, "kind": "RoleBinding",
            "metadata": {"name": BINDING, "namespace": NAMESPACE},
            "roleRef": role("Role"), "subjects": &subjects,
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "local-path-config", "namespace": NAMESPACE},
            "data": {
                "config.json": config(),
                "setup": SETUP,
                "teardown": TEARDOWN,
                "helperPod.yaml": helper_pod(),
            },
        }),
    ]
}

/// What is removed with it. Its namespace takes what is in it along.
pub(in super::super) fn all() -> Vec<Value> {
    objects().into_iter().chain([provisioner()]).collect()
}

const LOOK: [&str; 3] = ["get", "list", "watch"];
const CHANGE: [&str; 7] = ["get", "list", "watch", "create", "patch", "update", "delete"];

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

fn config() -> String {
    let nodes = json!([{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [VOLUMES]}]);
    format!("{:#}\n", json!({"nodePathMap": nodes}))
}

/// The pod that makes and removes a folder on the node that has it.
fn helper_pod() -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "tolerations": [
                {"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"},
            ],
            "containers": [{"name": "helper-pod", "image": BUSYBOX, "imagePullPolicy": "IfNotPresent"}],
        },
    });
    format!("{pod:#}\n")
}

/// What makes and removes volumes.
pub(super) fn provisioner() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "serviceAccountName": ACCOUNT,
                    // It does not end when it is asked to, and a node that is drained would wait for it.
                    "terminationGracePeriodSeconds": 2,
                    // On a cluster whose workers are all tainted there would be no storage otherwise.
                    "tolerations": [
                        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"},
                    ],
                    "containers": [{
                        "name": NAME,
                        "image": LOCAL_PATH,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["local-path-provisioner", "start", "--config", "/etc/config/config.json"],
                        "env": [
                            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                            {"name": "CONFIG_MOUNT_PATH", "value": "/etc/config/"},
                        ],
                        "volumeMounts": [{"name": "config-volume", "mountPath": "/etc/config/"}],
                    }],
                    "volumes": [{"name": "config-volume", "configMap": {"name": "local-path-config"}}],
                },
            },
        },
    })
}
