//! `docker-compose.yaml`, as text and as a value. Pure.

use std::collections::BTreeMap;

use bivouac_provider::{NetworkRequest, NodeRequest};
use bivouac_spec::{ClusterName, NodeName, Problem};
use bollard::models::ContainerCreateBody;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::problem::failed;
use super::service::{Extras, NETWORK, escape, render};
use crate::docker::{names, network, record};

/// A project, see <https://github.com/compose-spec/compose-spec>. What it holds is escaped.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Document {
    name: String,
    #[serde(default)]
    services: BTreeMap<String, Value>,
    #[serde(default)]
    networks: Value,
    #[serde(default)]
    volumes: BTreeMap<String, Value>,
}

/// The name of the project of a cluster.
pub(super) fn project_name(cluster: &ClusterName) -> String {
    format!("bivouac-{cluster}")
}

impl Document {
    /// The project of a cluster without nodes.
    pub(super) fn new(provider: &str, request: &NetworkRequest) -> Self {
        let mut document = Self { name: project_name(&request.cluster), ..Self::default() };
        document.set_network(provider, request);
        document
    }

    /// Describes the network anew.
    pub(super) fn set_network(&mut self, provider: &str, request: &NetworkRequest) {
        let wanted = network::body(provider, request);
        let ranges = wanted.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let ranges: Vec<Value> = ranges
            .into_iter()
            .map(|range| {
                let mut own = json!({"subnet": range.subnet, "gateway": range.gateway});
                if let Some(part) = range.ip_range {
                    own["ip_range"] = part.into();
                }
                own
            })
            .collect();
        let sorted = |map: Option<std::collections::HashMap<String, String>>| {
            map.unwrap_or_default().into_iter().collect::<BTreeMap<_, _>>()
        };
        self.networks = escape(json!({NETWORK: {
            "name": wanted.name,
            "driver": wanted.driver,
            "driver_opts": sorted(wanted.options),
            "enable_ipv6": wanted.enable_ipv6,
            "ipam": {"config": ranges},
            "labels": sorted(wanted.labels),
        }}));
    }

    /// Describes a node, anew or for the first time.
    pub(super) fn set_node(
        &mut self,
        provider: &str,
        request: &NodeRequest,
        body: ContainerCreateBody,
        build: Option<&str>,
    ) {
        let (cluster, node) = (&request.cluster, &request.node);
        let name = names::node(cluster, node);
        let extras = Extras { node: node.as_str(), build };
        let (service, rest) = render(&name, body, extras);
        debug_assert_eq!(rest, ContainerCreateBody::default(), "all of a container is said");
        self.services.insert(node.to_string(), service);
        let labels: BTreeMap<_, _> =
            names::node_labels(provider, cluster, node).into_iter().collect();
        let volume = escape(json!({"name": name, "labels": labels}));
        self.volumes.insert(node.to_string(), volume);
    }

    /// Describes a node that is changed while it runs: its limits and its record. The rest stays as it was made.
    pub(super) fn change_node(&mut self, request: &NodeRequest) {
        let service = self.services.get_mut(request.node.as_str());
        let Some(service) = service.and_then(Value::as_object_mut) else { return };
        let cpus = request.resources.cpus.map(|cpus| f64::from(cpus.0) / 1000.0);
        let memory = request.resources.memory.map(|memory| memory.0);
        for (name, limit) in
            [("cpus", json!(cpus)), ("mem_limit", json!(memory)), ("memswap_limit", json!(memory))]
        {
            match limit {
                Value::Null => drop(service.remove(name)),
                limit => drop(service.insert(name.to_owned(), limit)),
            }
        }
        if let Some(labels) = service.get_mut("labels").and_then(Value::as_object_mut) {
            let record = escape(record::text(&request.record()).into());
            labels.insert(names::RECORD.to_owned(), record);
        }
    }

    /// Forgets a node.
    pub(super) fn remove_node(&mut self, node: &NodeName) {
        self.services.remove(node.as_str());
        self.volumes.remove(node.as_str());
    }

    /// The project as text.
    ///
    /// # Errors
    /// Never in practice: all keys are text.
    pub(super) fn text(&self) -> Result<String, Problem> {
        let message = "the project of the cluster cannot be written as YAML";
        let yaml = yaml_serde::to_string(self)
            .map_err(|error| failed("project", message).because(&error))?;
        Ok(format!("# Written by bivouac, which writes it again.\n{yaml}"))
    }

    /// A project that was written.
    pub(super) fn parse(text: &str) -> Result<Self, yaml_serde::Error> {
        yaml_serde::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::container::{Binding, Blueprint, Offer, own_addresses};
    use crate::docker::samples;

    fn document(offer: &Offer, build: Option<&str>) -> Document {
        document_of(&samples::node(), offer, build)
    }

    fn document_of(control: &NodeRequest, offer: &Offer, build: Option<&str>) -> Document {
        let network = NetworkRequest {
            cluster: control.cluster.clone(),
            addresses: control.addresses.clone(),
            ports: Vec::new(),
        };
        let mut worker = NodeRequest { node: "worker-1".parse().unwrap(), ..control.clone() };
        worker.resources = bivouac_spec::cluster::Resources::default();
        let bindings = [Binding {
            port: samples::port(6443),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 36443,
        }];
        let mut document = Document::new("compose", &network);
        for (request, bindings, build) in [(control, &bindings[..], build), (&worker, &[], None)] {
            let blueprint = Blueprint {
                provider: "compose",
                request,
                addresses: own_addresses(request).unwrap(),
                image: "bivouac.dev/node:1-2",
                offer,
                bindings,
            };
            document.set_node("compose", request, blueprint.render(), build);
        }
        document
    }

    #[test]
    fn a_project_of_an_engine_with_all_rights() {
        let offer = Offer {
            privileged: true,
            devices: vec!["/dev/kmsg".to_owned()],
            modules: true,
            shared_images: Some("/store/images".into()),
            shared_cache: Some("/store/cache".into()),
        };
        insta::assert_snapshot!(document(&offer, None).text().unwrap());
    }

    #[test]
    fn an_exported_project_of_an_engine_that_lacks_rights() {
        let offer = Offer {
            privileged: false,
            devices: vec!["/dev/kmsg".to_owned()],
            modules: false,
            shared_images: None,
            shared_cache: None,
        };
        insta::assert_snapshot!(document(&offer, Some("./image")).text().unwrap());
    }

    #[test]
    fn a_node_that_is_changed_is_described_as_if_made_so() {
        let offer = Offer { privileged: true, ..Offer::default() };
        let (before, mut after) = (samples::node(), samples::node());
        for resources in [
            bivouac_spec::cluster::Resources::default(),
            bivouac_spec::cluster::Resources {
                cpus: Some(bivouac_spec::quantity::Cpus(250)),
                memory: Some(bivouac_spec::quantity::Bytes(1 << 29)),
                disk: None,
            },
        ] {
            after.resources = resources;
            after.config.modules.push("x".to_owned());
            let mut changed = document_of(&before, &offer, None);
            changed.change_node(&after);
            let node = |document: &Document| document.services["worker-0"].clone();
            assert_eq!(node(&changed), node(&document_of(&after, &offer, None)));
        }
    }

    #[test]
    fn a_network_of_two_ip_families() {
        let mut request = samples::node();
        request.addresses = samples::dual_stack(2);
        let network = NetworkRequest {
            cluster: request.cluster.clone(),
            addresses: request.addresses,
            ports: Vec::new(),
        };
        let network = Document::new("compose", &network).networks[NETWORK].clone();
        assert_eq!(network["enable_ipv6"], true);
        assert_eq!(network["ipam"]["config"][1]["subnet"], "fd00:89::/64");
    }

    #[test]
    fn what_is_written_is_read_again() {
        let offer = Offer { privileged: true, ..Offer::default() };
        let mut document = document(&offer, None);
        assert_eq!(Document::parse(&document.text().unwrap()).unwrap(), document);
        let text = document.text().unwrap();
        document.remove_node(&"worker-1".parse().unwrap());
        assert!(text.contains("worker-1") && document.services.len() == 1);
        assert_eq!(document.volumes.len(), 1);
    }

    #[test]
    fn names_that_look_like_something_else_stay_names() {
        let mut document = Document::default();
        for name in ["on", "1e3", "0x10", "null", "true", "007", "1-2", "y"] {
            document.services.insert(name.to_owned(), json!(name));
        }
        insta::assert_snapshot!(document.text().unwrap());
    }
}
