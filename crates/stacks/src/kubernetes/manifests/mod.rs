//! Objects of the cluster, as requests to its API. They are applied on the server's side, so that doing it again changes nothing
//! and what a person changed beside them stays.

pub(super) mod coredns;
pub(super) mod metrics;
pub(super) mod nodes;
mod rbac;
pub(super) mod storage;

use std::net::SocketAddr;

use bivouac_spec::cluster::{Bootstrap, Cni};
use bivouac_spec::node::unit::Request;
use bivouac_spec::node::{Expect, HttpRequest, Run, Task};
use serde_json::{Value, json};

use super::command::after;
use super::control_plane::API_SERVER;
use super::layout::Layout;
use super::probes::{DNS_ANSWERS, super_admin};
use super::{flannel, kubeadm, load_balancer};

/// A task of the first control plane: every Node object is there, and those that begin early have their rights.
pub(super) const NODES: &str = "nodes";
/// A task: the cluster's DNS is there.
const DNS: &str = "dns";
/// A task: of the cluster's DNS only those who are ready are asked.
const DNS_SETTLED: &str = "dns-settled";
/// A task: administrators have rights.
const ROLES: &str = "roles";
/// A task: the default storage class is there.
const STORAGE: &str = "storage";
/// A task: what makes volumes is on its way. Its start would compete with that of the cluster's DNS, which is waited for.
const PROVISIONER: &str = "provisioner";
const MANAGER: &str = "fieldManager=bivouac";

/// The tasks of the node that applies objects. What a usable cluster waits for comes first.
pub(super) fn tasks(layout: &Layout<'_>) -> Vec<Task> {
    let api = layout.first().server();
    let task = |name: &str, after, requests| Task {
        name: name.to_owned(),
        after,
        run: Run::Requests(requests),
        watch: Vec::new(),
        late: false,
    };
    let apply_all = |objects: Vec<Value>| objects.iter().map(|object| apply(api, object)).collect();
    let create_all = |objects: Vec<Value>| objects.into_iter().map(|object| create(api, &object));
    let flannel = if layout.cni == Cni::Flannel { flannel::rights() } else { Vec::new() };
    let mut roles = rbac::objects();
    if layout.load_balances {
        roles.extend(load_balancer::rights());
    }
    let by_kubeadm = layout.settings.bootstrap == Bootstrap::Kubeadm;
    let early = if by_kubeadm { Vec::new() } else { rbac::proxy() };
    let mut first: Vec<Request> = create_all(early).chain(create_all(flannel)).collect();
    first.extend(nodes::requests(layout));
    first.extend(create_all(rbac::scheduler()));
    let mut tasks = vec![task(NODES, after([API_SERVER]), first)];
    if by_kubeadm {
        // Who joins by kubeadm needs these rights.
        tasks.push(task(ROLES, after([NODES]), apply_all(roles)));
        tasks.push(task(DNS, after([kubeadm::FINISH]), vec![apply(api, &coredns::early())]));
    } else {
        tasks.push(task(DNS, after([NODES]), apply_all(coredns::objects(layout))));
        tasks.push(task(ROLES, after([DNS]), apply_all(roles)));
    }
    let addons = &layout.settings.addons;
    let mut waits = after([if by_kubeadm { DNS } else { ROLES }]);
    if addons.storage {
        tasks.push(task(STORAGE, waits, apply_all(storage::objects())));
        waits = after([STORAGE]);
    }
    if layout.elects() && layout.cni != Cni::None {
        let settled = vec![apply(api, &coredns::settled(layout))];
        tasks.push(task(DNS_SETTLED, after([DNS, DNS_ANSWERS]), settled));
    }
    if layout.cni != Cni::None {
        waits.push(DNS_ANSWERS.to_owned());
    }
    if addons.storage {
        tasks.push(task(PROVISIONER, waits, vec![apply(api, &storage::provisioner())]));
        waits = after([PROVISIONER]);
    }
    if addons.metrics_server {
        tasks.push(metrics::task(layout, waits));
    }
    tasks
}

/// Pods of this label are on different nodes when there are as many.
fn apart(label: &str) -> Value {
    json!({"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
        "weight": 100,
        "podAffinityTerm": {
            "labelSelector": {"matchLabels": {"k8s-app": label}},
            "topologyKey": "kubernetes.io/hostname",
        },
    }]}})
}

/// Makes the object equal to what is given, field by field.
fn apply(api: SocketAddr, object: &Value) -> Request {
    let url = format!("https://{api}{}/{}?{MANAGER}&force=true", collection(object), name(object));
    let mut request = request("PATCH", url, object);
    request.headers.insert("Content-Type".to_owned(), "application/apply-patch+yaml".to_owned());
    Request { name: title(object), request, expect: Expect::success() }
}

/// Makes the object unless there is one of its name, which is then left as it is.
fn create(api: SocketAddr, object: &Value) -> Request {
    let mut request =
        request("POST", format!("https://{api}{}?{MANAGER}", collection(object)), object);
    request.headers.insert("Content-Type".to_owned(), "application/json".to_owned());
    Request { name: title(object), request, expect: Expect { status: vec![201, 409], json: None } }
}

fn request(method: &str, url: String, body: &Value) -> HttpRequest {
    let (method, body) = (method.to_owned(), Some(body.to_string()));
    HttpRequest { method, body, ..HttpRequest::get(url) }.tls(super_admin())
}

/// The path of the objects of the same kind.
fn collection(object: &Value) -> String {
    let version = text(object, "/apiVersion");
    let root = if version.contains('/') { "apis" } else { "api" };
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace =
        namespace.map(|namespace| format!("/namespaces/{namespace}")).unwrap_or_default();
    format!("/{root}/{version}{namespace}/{}", plural(text(object, "/kind")))
}

/// The resource of a kind. Regular for every kind that bivouac applies.
fn plural(kind: &str) -> String {
    let kind = kind.to_ascii_lowercase();
    if kind.ends_with('s') { format!("{kind}es") } else { format!("{kind}s") }
}

fn title(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), name(object))
}

fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .expect("every object has a version, a kind and a name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_from_version_kind_and_namespace() {
        let core = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}});
        assert_eq!(collection(&core), "/api/v1/nodes");
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "n"}});
        assert_eq!(collection(&class), "/apis/storage.k8s.io/v1/storageclasses");
        let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "n", "namespace": "x"}});
        assert_eq!(collection(&deployment), "/apis/apps/v1/namespaces/x/deployments");
        let request = apply("10.0.0.1:6443".parse().unwrap(), &deployment);
        assert_eq!(request.name, "Deployment n");
        assert!(request.request.url.ends_with("/deployments/n?fieldManager=bivouac&force=true"));
    }
}
