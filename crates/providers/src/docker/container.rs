//! A node as the engine's API describes it. Pure.

use std::collections::HashMap;
use std::net::IpAddr;

use bivouac_provider::NodeRequest;
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::node::paths;
use bivouac_spec::{Problem, PublishedPort};
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HostConfig,
    HostConfigCgroupnsModeEnum, Mount, MountType, NetworkingConfig, PortBinding, PortMap,
    RestartPolicy, RestartPolicyNameEnum,
};
use camino::Utf8PathBuf;

use super::problem::failed;
use super::{names, record};

/// Where the kernel's modules are, which some programs of a node look for.
pub(super) const MODULES: &str = "/lib/modules";

/// What the engine can give to nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// All rights at once. An engine that lacks one itself cannot give that: then nodes get a list of those that it has.
    pub(super) privileged: bool,
    /// Devices of its machine that nodes want.
    pub(super) devices: Vec<String>,
    /// Whether its machine has a folder of kernel modules.
    pub(super) modules: bool,
    /// The folder of container images that nodes share, if it is on its machine.
    pub(super) shared_images: Option<Utf8PathBuf>,
    /// The folder that nodes share to write to, if it is on its machine.
    pub(super) shared_cache: Option<Utf8PathBuf>,
}

/// A port of a node with its place on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binding {
    pub(super) port: PublishedPort,
    pub(super) host_ip: IpAddr,
    pub(super) host_port: u16,
}

/// All that a container is made from.
#[derive(Debug, Clone)]
pub(super) struct Blueprint<'a> {
    pub(super) provider: &'a str,
    pub(super) request: &'a NodeRequest,
    pub(super) addresses: &'a NodeAddresses,
    pub(super) image: &'a str,
    pub(super) offer: &'a Offer,
    pub(super) bindings: &'a [Binding],
}

impl Blueprint<'_> {
    /// What the engine is asked for.
    pub(super) fn render(&self) -> ContainerCreateBody {
        let request = self.request;
        let network = names::network(&request.cluster);
        let label = format!("{}/{}", request.cluster, request.node);
        let ports = self.bindings.iter().map(|binding| port_name(&binding.port));
        ContainerCreateBody {
            image: Some(self.image.to_owned()),
            hostname: Some(request.node.to_string()),
            cmd: Some(texts(["agent", "run", "--shares-kernel", "--label", &label])),
            labels: Some(self.labels()),
            exposed_ports: Some(ports.collect()),
            host_config: Some(self.host_config(&network)),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network, self.endpoint())])),
            }),
            ..ContainerCreateBody::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        let request = self.request;
        let mut labels = names::node_labels(self.provider, &request.cluster, &request.node);
        labels.insert(names::RECORD.to_owned(), record::text(&request.record()));
        labels.insert(names::IMAGE.to_owned(), request.image.key.clone());
        labels.insert(names::ADDRESS.to_owned(), self.addresses.primary().to_string());
        labels
    }

    fn endpoint(&self) -> EndpointSettings {
        let of = |is_ipv6| {
            let mut all = self.addresses.addresses.iter();
            all.find(|address| address.is_ipv6() == is_ipv6).map(ToString::to_string)
        };
        let addresses = EndpointIpamConfig {
            ipv4_address: of(false),
            ipv6_address: of(true),
            ..EndpointIpamConfig::default()
        };
        let node = &self.request.node;
        EndpointSettings {
            ipam_config: Some(addresses),
            aliases: Some(vec![node.to_string(), format!("{node}.{}", self.request.cluster)]),
            ..EndpointSettings::default()
        }
    }

    fn host_config(&self, network: &str) -> HostConfig {
        let resources = self.request.resources;
        let memory = resources.memory.and_then(|memory| i64::try_from(memory.0).ok());
        let mut host = HostConfig {
            network_mode: Some(network.to_owned()),
            port_bindings: Some(self.port_bindings()),
            mounts: Some(self.mounts()),
            // The engine's own are `noexec`, and containers start programs from there.
            tmpfs: Some(
                [("/run", "exec,mode=755"), ("/tmp", "exec,mode=1777")]
                    .map(|(path, options)| (path.to_owned(), options.to_owned()))
                    .into(),
            ),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
            // Engines that map users do so only for containers without special rights.
            userns_mode: Some("host".to_owned()),
            security_opt: Some(texts([
                "seccomp=unconfined",
                "apparmor=unconfined",
                "label=disable",
            ])),
            masked_paths: Some(Vec::new()),
            readonly_paths: Some(Vec::new()),
            sysctls: self.sysctls(),
            // Not podman's 2048.
            pids_limit: Some(-1),
            nano_cpus: resources.cpus.map(|cpus| i64::from(cpus.0) * 1_000_000),
            memory,
            // The same: no swap on top of it.
            memory_swap: memory,
            ..HostConfig::default()
        };
        if self.offer.privileged {
            host.privileged = Some(true);
        } else {
            host.cap_add = Some(texts(["ALL"]));
            host.cap_drop = Some(texts(["SYS_RESOURCE"]));
            host.device_cgroup_rules = Some(texts(["a *:* rwm"]));
            host.devices = Some(self.offer.devices.iter().map(|path| device(path)).collect());
        }
        host
    }

    /// Engines turn IPv6 off in containers, also for the interfaces that a node makes for its pods.
    fn sysctls(&self) -> Option<HashMap<String, String>> {
        let on = [
            ("net.ipv6.conf.all.disable_ipv6", "0"),
            ("net.ipv6.conf.default.disable_ipv6", "0"),
            ("net.ipv6.conf.all.forwarding", "1"),
        ];
        let has_ipv6 = self.addresses.addresses.iter().any(IpAddr::is_ipv6);
        has_ipv6.then(|| on.map(|(name, value)| (name.to_owned(), value.to_owned())).into())
    }

    fn mounts(&self) -> Vec<Mount> {
        let volume = names::node(&self.request.cluster, &self.request.node);
        let mut mounts = vec![Mount {
            typ: Some(MountType::VOLUME),
            source: Some(volume),
            target: Some("/var".to_owned()),
            ..Mount::default()
        }];
        if self.offer.modules {
            mounts.push(read_only(MODULES, MODULES));
        }
        if let Some(shared) = &self.offer.shared_images {
            mounts.push(read_only(shared.as_str(), paths::SHARED_IMAGES));
        }
        if let Some(shared) = &self.offer.shared_cache {
            let mount = read_only(shared.as_str(), paths::SHARED_CACHE);
            mounts.push(Mount { read_only: Some(false), ..mount });
        }
        mounts
    }

    fn port_bindings(&self) -> PortMap {
        let mut map = PortMap::new();
        for binding in self.bindings {
            let place = PortBinding {
                host_ip: Some(binding.host_ip.to_string()),
                host_port: Some(binding.host_port.to_string()),
            };
            let places = map.entry(port_name(&binding.port)).or_insert_with(|| Some(Vec::new()));
            places.get_or_insert_default().push(place);
        }
        map
    }
}

/// The node's own addresses.
///
/// # Errors
/// When it has none.
pub(super) fn own_addresses(request: &NodeRequest) -> Result<&NodeAddresses, Problem> {
    let NodeRequest { cluster, node, addresses, .. } = request;
    addresses.nodes.get(node).ok_or_else(|| {
        failed("no_address", format_args!("node {node} of cluster {cluster} has no address"))
    })
}

/// A port as the engine names it: `6443/tcp`.
pub(super) fn port_name(port: &PublishedPort) -> String {
    format!("{}/{}", port.port, port.protocol.name())
}

fn read_only(source: &str, target: &str) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    }
}

fn device(path: &str) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(path.to_owned()),
        path_in_container: Some(path.to_owned()),
        cgroup_permissions: Some("rwm".to_owned()),
    }
}

fn texts<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;

    fn render(offer: &Offer) -> serde_json::Value {
        render_node(&samples::node(), offer)
    }

    fn render_node(request: &NodeRequest, offer: &Offer) -> serde_json::Value {
        let bindings = [Binding {
            port: samples::port(6443),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 36443,
        }];
        let blueprint = Blueprint {
            provider: "docker",
            request,
            addresses: own_addresses(request).unwrap(),
            image: "bivouac.dev/node:1-2",
            offer,
            bindings: &bindings,
        };
        let mut value = serde_json::to_value(blueprint.render()).unwrap();
        // Maps of the client have no order.
        value.sort_all_objects();
        value
    }

    #[test]
    fn a_node_of_an_engine_with_all_rights() {
        let offer = Offer {
            privileged: true,
            devices: vec!["/dev/kmsg".to_owned()],
            modules: true,
            shared_images: Some("/store/images".into()),
            shared_cache: Some("/store/cache".into()),
        };
        insta::assert_json_snapshot!(render(&offer));
    }

    #[test]
    fn a_node_of_an_engine_that_lacks_rights() {
        let offer = Offer {
            privileged: false,
            devices: vec!["/dev/kmsg".to_owned()],
            modules: false,
            shared_images: None,
            shared_cache: None,
        };
        let host = render(&offer)["HostConfig"].clone();
        assert_eq!(host["Privileged"], serde_json::Value::Null);
        assert_eq!(host["CapDrop"], serde_json::json!(["SYS_RESOURCE"]));
        assert_eq!(host["Devices"][0]["PathOnHost"], "/dev/kmsg");
        assert_eq!(host["Mounts"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn a_node_of_two_ip_families() {
        let mut request = samples::node();
        request.addresses = crate::docker::samples::dual_stack(2);
        let offer = Offer { privileged: true, ..Offer::default() };
        let node = render_node(&request, &offer);
        let endpoint = &node["NetworkingConfig"]["EndpointsConfig"]["bivouac-demo"]["IPAMConfig"];
        assert_eq!(endpoint["IPv4Address"], "10.89.7.2");
        assert_eq!(endpoint["IPv6Address"], "fd00:89::2");
        assert_eq!(node["HostConfig"]["Sysctls"]["net.ipv6.conf.all.disable_ipv6"], "0");
        assert_eq!(render(&offer)["HostConfig"]["Sysctls"], serde_json::Value::Null);
    }
}
