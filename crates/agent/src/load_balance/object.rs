//! What is needed of objects in the API.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

/// The class that a Service can name to be ours and nobody else's.
pub(super) const CLASS: &str = "bivouac.dev/load-balancer";
/// The addresses that a Service wants, separated by commas. Other than `spec.loadBalancerIP` it can name one of each family.
pub(super) const ADDRESSES: &str = "bivouac.dev/load-balancer-addresses";
/// Nodes that are taken only when there is no other.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// An object that is kept while it is there.
pub(super) trait Object: Sized + Send + 'static {
    /// None when it is of no interest.
    fn read(object: &Value) -> Option<Self>;
}

/// A Service of type `LoadBalancer` that is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) uid: String,
    /// RFC 3339, which sorts as time does.
    pub(super) created: String,
    /// Of each family that it has: whether it is IPv4.
    pub(super) families: Vec<bool>,
    /// The addresses that it wants.
    pub(super) asked: Vec<Result<IpAddr, String>>,
    /// The addresses that its status says.
    pub(super) has: Vec<IpAddr>,
    /// Only a node that has a pod of it may have its address.
    pub(super) local: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    creation_timestamp: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    r#type: String,
    load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    load_balancer_ip: Option<String>,
    #[serde(default)]
    ip_families: Vec<String>,
    #[serde(default)]
    external_traffic_policy: String,
}

impl Object for Service {
    fn read(object: &Value) -> Option<Self> {
        let metadata = Metadata::deserialize(object.get("metadata")?).ok()?;
        let spec = ServiceSpec::deserialize(object.get("spec")?).ok()?;
        let is_ours = spec.load_balancer_class.as_deref().is_none_or(|class| class == CLASS);
        if spec.r#type != "LoadBalancer" || !is_ours {
            return None;
        }
        let ingress = object.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
        let has = ingress.into_iter().flatten().filter_map(|one| one["ip"].as_str()?.parse().ok());
        let annotation = metadata.annotations.get(ADDRESSES).map(String::as_str);
        let wanted = annotation.or(spec.load_balancer_ip.as_deref()).unwrap_or_default();
        let wanted = wanted.split(',').map(str::trim).filter(|text| !text.is_empty());
        Some(Self {
            uid: metadata.uid,
            created: metadata.creation_timestamp,
            families: spec.ip_families.iter().map(|family| family == "IPv4").collect(),
            asked: wanted.map(|text| text.parse().map_err(|_| text.to_owned())).collect(),
            has: has.collect(),
            local: spec.external_traffic_policy == "Local",
        })
    }
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) ready: bool,
    /// Taken only when there is no other: it is marked so, or about to be emptied.
    pub(super) reluctant: bool,
    /// Where it listens.
    pub(super) address: Option<IpAddr>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct NodeAddress {
    r#type: String,
    address: String,
}

#[derive(Deserialize)]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    addresses: Vec<NodeAddress>,
}

impl Object for Node {
    fn read(object: &Value) -> Option<Self> {
        let metadata = Metadata::deserialize(object.get("metadata")?).ok()?;
        let status = NodeStatus::deserialize(object.get("status")?).ok()?;
        let mut conditions = status.conditions.iter();
        let mut addresses = status.addresses.iter().filter(|one| one.r#type == "InternalIP");
        let unschedulable = object.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
        Some(Self {
            ready: conditions.any(|one| one.r#type == "Ready" && one.status == "True"),
            reluctant: unschedulable || metadata.labels.contains_key(EXCLUDED),
            address: addresses.find_map(|one| one.address.parse().ok()),
        })
    }
}

/// The nodes that have a pod of a Service that is ready, as one EndpointSlice knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slice(pub(super) Vec<String>);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Endpoint {
    node_name: Option<String>,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
}

impl Object for Slice {
    fn read(object: &Value) -> Option<Self> {
        let endpoints = object.get("endpoints").filter(|endpoints| !endpoints.is_null());
        let endpoints = endpoints.map(Vec::<Endpoint>::deserialize).transpose().ok()?;
        let ready =
            endpoints.into_iter().flatten().filter(|one| one.conditions.ready != Some(false));
        Some(Self(ready.filter_map(|one| one.node_name).collect()))
    }
}

/// How an object is called: its namespace and name, joined by a slash.
pub(super) fn key(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match text("/metadata/namespace") {
        "" => text("/metadata/name").to_owned(),
        namespace => format!("{namespace}/{}", text("/metadata/name")),
    }
}
