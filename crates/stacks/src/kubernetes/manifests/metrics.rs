//! What pods and nodes use, as an API of its own behind that of the cluster (metrics-server 0.9.0, as upstream's `manifests/` set it up).
//! Unlike there, everybody is verified: the kubelets by the cluster's authority, and metrics-server by the same, which has given it its
//! certificate. The API is announced when there is somebody to answer: until then who lists all APIs would be told of an error.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bivouac_pki::{Issued, LeafRequest, Signer, Usage};
use bivouac_spec::node::unit::Request;
use bivouac_spec::node::{Expect, HttpRequest, Run, Task};
use serde_json::{Value, json};

use super::super::layout::Layout;
use super::super::places::{METRICS_API, METRICS_SECRET};
use super::super::probes::super_admin;
use super::super::tuning;
use super::super::versions::METRICS_SERVER;
use super::{apply, collection};

/// A task: what pods and nodes use can be asked for.
pub(in super::super) const METRICS: &str = "metrics-server";

const NAME: &str = "metrics-server";
const NAMESPACE: &str = "kube-system";
const ROLE: &str = "system:metrics-server";
const READER: &str = "system:aggregated-metrics-reader";
const RBAC: &str = "rbac.authorization.k8s.io";
const PORT: u16 = 10250;
/// Where the certificate is in the pod.
const CERTIFICATE: &str = "/etc/metrics-server";
/// The cluster's authority, where every pod has it.
const AUTHORITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Anybody but root.
const USER: u32 = 65532;
/// Where the loss of a node is to be survived, so is the loss of one that answers.
const REPLICAS_OF_SEVERAL: u32 = 2;

/// The certificate that the API server is shown, by the name of the Service.
pub(in super::super) fn certificate(layout: &Layout<'_>) -> LeafRequest {
    let service = format!("{NAME}.{NAMESPACE}");
    let dns_names = vec![service.clone(), format!("{service}.svc"), layout.service_name(&service)];
    LeafRequest {
        common_name: NAME.to_owned(),
        organization: None,
        dns_names,
        addresses: Vec::new(),
        usage: Usage::Server,
        signer: Signer::Cluster,
    }
}

/// The Secret with the certificate and its key, for a file of the node that applies it.
pub(in super::super) fn secret(issued: &Issued) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": BASE64_STANDARD.encode(&issued.certificate),
            "tls.key": BASE64_STANDARD.encode(issued.key.expose()),
        },
    })
}

/// The API, whose server is known by the cluster's authority.
pub(in super::super) fn api_service(authority: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "service": {"name": NAME, "namespace": NAMESPACE},
            "caBundle": BASE64_STANDARD.encode(authority),
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    })
}

/// The work of the node that applies it. No usable cluster waits for it.
pub(super) fn task(layout: &Layout<'_>, waits: Vec<String>) -> Task {
    let api = layout.first().server();
    let from_file = |object: Value, path: &str| {
        let mut request = apply(api, &object);
        request.request.body = None;
        request.request.body_file = Some(path.into());
        request
    };
    // Only what tells them apart: the rest is in the files.
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": NAMESPACE}});
    let mut requests = vec![from_file(secret, METRICS_SECRET)];
    requests.extend(objects(layout).iter().map(|object| apply(api, object)));
    requests.push(answers(layout));
    requests.push(from_file(api_service(""), METRICS_API));
    Task {
        name: METRICS.to_owned(),
        after: waits,
        run: Run::Requests(requests),
        watch: vec![METRICS_SECRET.into(), METRICS_API.into()],
        late: true,
    }
}

/// Somebody has looked at the kubelets and can answer.
fn answers(layout: &Layout<'_>) -> Request {
    let url =
        format!("https://{}{}/{NAME}", layout.first().server(), collection(&deployment(layout)));
    Request {
        name: "a metrics-server that answers".to_owned(),
        request: HttpRequest::get(url).tls(super_admin()),
        expect: Expect::json("$[?@.readyReplicas >= 1]", 1, "metrics-servers answer"),
    }
}

/// What is removed with it, the API first.
pub(in super::super) fn all(layout: &Layout<'_>) -> Vec<Value> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "namespace": NAMESPACE}});
    [api_service("")].into_iter().chain(objects(layout)).chain([secret]).collect()
}

fn objects(layout: &Layout<'_>) -> Vec<Value> {
    let mut objects = rights();
    objects.push(service());
    objects.push(deployment(layout));
    objects
}

fn rights() -> Vec<Value> {
    let version = format!("{RBAC}/v1");
    let account = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]);
    let to = |kind: &str, name: &str| json!({"apiGroup": RBAC, "kind": kind, "name": name});
    let look = json!(["get", "list", "watch"]);
    let binding = |name: &str, role: &str| {
        json!({
            "apiVersion": version, "kind": "ClusterRoleBinding",
            "metadata": {"name": name},
            "roleRef": to("ClusterRole", role), "subjects": account,
        })
    };
    vec![
        json!({
            "apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRole",
            "metadata": {"name": READER, "labels": {
                "rbac.authorization.k8s.io/aggregate-to-view": "true",
                "rbac.authorization.k8s.io/aggregate-to-edit": "true",
                "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            }},
            "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": look}],
        }),
        json!({
            "apiVersion": version, "kind": "ClusterRole",
            "metadata": {"name": ROLE},
            "rules": [
                {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": look},
            ],
        }),
        json!({
            "apiVersion": version, "kind": "RoleBinding",
            "metadata": {"name": "metrics-server-auth-reader", "namespace": NAMESPACE},
            "roleRef": to("Role", "extension-apiserver-authentication-reader"), "subjects": account,
        }),
        binding("metrics-server:system:auth-delegator", "system:auth-delegator"),
        binding(ROLE, ROLE),
    ]
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": NAME}},
        "spec": {
            "selector": {"k8s-app": NAME},
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": "https", "appProtocol": "https"}],
        },
    })
}

fn arguments(layout: &Layout<'_>) -> Vec<String> {
    let mut arguments = vec![
        format!("--secure-port={PORT}"),
        format!("--tls-cert-file={CERTIFICATE}/tls.crt"),
        format!("--tls-private-key-file={CERTIFICATE}/tls.key"),
        format!("--kubelet-certificate-authority={AUTHORITY}"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--kubelet-use-node-status-port".to_owned(),
        format!("--metric-resolution={}", tuning::METRICS_RESOLUTION),
        format!("--kubelet-request-timeout={}", tuning::METRICS_PATIENCE),
    ];
    // Its own default are all addresses of IPv4.
    if layout.dns.is_ipv6() {
        arguments.push("--bind-address=::".to_owned());
    }
    arguments
}

fn deployment(layout: &Layout<'_>) -> Value {
    let replicas = if layout.elects() { REPLICAS_OF_SEVERAL } else { 1 };
    let probe = |path: &str, seconds: u32| {
        json!({
            "httpGet": {"path": path, "port": "https", "scheme": "HTTPS"},
            "periodSeconds": seconds, "failureThreshold": 3,
        })
    };
    let environment: Vec<Value> = tuning::frugal()
        .into_iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    let mut deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {"k8s-app": NAME}},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0}},
            "selector": {"matchLabels": {"k8s-app": NAME}},
            "template": {
                "metadata": {"labels": {"k8s-app": NAME}},
                "spec": {
                    "priorityClassName": "system-cluster-critical",
                    "serviceAccountName": NAME,
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [
                        {"key": "CriticalAddonsOnly", "operator": "Exists"},
                        {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                    ],
                    "securityContext": {"fsGroup": USER},
                    "containers": [{
                        "name": NAME,
                        "image": METRICS_SERVER,
                        "imagePullPolicy": "IfNotPresent",
                        "args": arguments(layout),
                        "env": environment,
                        "resources": {"requests": {"cpu": "20m", "memory": "40Mi"}},
                        "ports": [{"name": "https", "containerPort": PORT, "protocol": "TCP"}],
                        "readinessProbe": probe("/readyz", 2),
                        "livenessProbe": probe("/livez", 10),
                        "securityContext": {
                            "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]},
                            "readOnlyRootFilesystem": true,
                            "runAsNonRoot": true,
                            "runAsUser": USER,
                            "seccompProfile": {"type": "RuntimeDefault"},
                        },
                        "volumeMounts": [{"name": "certificate", "mountPath": CERTIFICATE, "readOnly": true}],
                    }],
                    "volumes": [{"name": "certificate", "secret": {"secretName": NAME, "defaultMode": 0o440}}],
                },
            },
        },
    });
    if replicas > 1 {
        deployment["spec"]["template"]["spec"]["affinity"] = super::apart(NAME);
    }
    deployment
}
