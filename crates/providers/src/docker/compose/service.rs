//! A node's container as a service of a project. Pure.
//!
//! What a container is made from is decided in [`container`](super::super::container) alone. Here it is only said in other words:
//! what is understood is taken out of it, and a test sees that nothing stays behind.

use std::collections::BTreeMap;

use bivouac_spec::node::paths;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Mount,
    MountType, PortMap,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::docker::container::MODULES;

/// The name of the one network in a project.
pub(super) const NETWORK: &str = "cluster";

/// What a service has that its container does not tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extras<'a> {
    /// The node, which is the name of the service and of its volume.
    pub(super) node: &'a str,
    /// The folder from which its image is built, for the one service that builds it.
    pub(super) build: Option<&'a str>,
}

/// A service, in the order in which it is written.
#[derive(Debug, Serialize)]
struct Service {
    container_name: String,
    hostname: Option<String>,
    image: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build: Option<String>,
    pull_policy: &'static str,
    command: Option<Vec<String>>,
    restart: Option<String>,
    stop_grace_period: &'static str,
    healthcheck: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    privileged: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_add: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_drop: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    devices: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_cgroup_rules: Option<Vec<String>>,
    security_opt: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    userns_mode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mem_limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memswap_limit: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sysctls: Option<BTreeMap<String, String>>,
    networks: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<Value>,
    tmpfs: Vec<String>,
    volumes: Vec<Value>,
    labels: BTreeMap<String, String>,
}

/// The service of a container with this name, and what could not be said of it: nothing.
pub(super) fn render(
    name: &str,
    mut body: ContainerCreateBody,
    extras: Extras<'_>,
) -> (Value, ContainerCreateBody) {
    let mut host = body.host_config.take().unwrap_or_default();
    // The ports, once more.
    body.exposed_ports = None;
    let endpoints = body.networking_config.take().and_then(|it| it.endpoints_config);
    let endpoint = endpoints.unwrap_or_default().into_values().next().unwrap_or_default();
    host.network_mode = None;
    let service = Service {
        container_name: name.to_owned(),
        hostname: body.hostname.take(),
        image: body.image.take(),
        build: extras.build.map(str::to_owned),
        // No registry has it: the engine was given it, or it is built.
        pull_policy: "never",
        command: body.cmd.take(),
        restart: host.restart_policy.take().and_then(|it| it.name).map(|name| name.to_string()),
        stop_grace_period: "30s",
        healthcheck: healthcheck(),
        privileged: host.privileged.take(),
        cap_add: host.cap_add.take(),
        cap_drop: host.cap_drop.take(),
        devices: devices(&mut host),
        device_cgroup_rules: host.device_cgroup_rules.take(),
        security_opt: security(&mut host),
        cgroup: host
            .cgroupns_mode
            .take_if(|it| *it == HostConfigCgroupnsModeEnum::PRIVATE)
            .map(|mode| mode.to_string()),
        userns_mode: host.userns_mode.take(),
        pids_limit: host.pids_limit.take(),
        cpus: host.nano_cpus.take().map(billionths),
        mem_limit: host.memory.take(),
        memswap_limit: host.memory_swap.take(),
        sysctls: host.sysctls.take().map(|sysctls| sysctls.into_iter().collect()),
        networks: json!({NETWORK: endpoint_of(endpoint)}),
        ports: ports(host.port_bindings.take().unwrap_or_default()),
        tmpfs: tmpfs(&mut host),
        volumes: volumes(&mut host, extras.node),
        labels: body.labels.take().unwrap_or_default().into_iter().collect(),
    };
    if host != HostConfig::default() {
        body.host_config = Some(host);
    }
    let service = serde_json::to_value(service).expect("a service has string keys only");
    (escape(service), body)
}

/// `$` begins a variable in a project.
pub(super) fn escape(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(values) => values.into_iter().map(escape).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, escape(value))).collect(),
        other => other,
    }
}

/// Healthy is usable. A node may take its time to come up, but not to notice: engines before 25 know no shorter interval for the
/// beginning.
fn healthcheck() -> Value {
    json!({
        "test": ["CMD", paths::AGENT, "agent", "status", "--healthy"],
        "interval": "3s",
        "timeout": "10s",
        "start_period": "300s",
        "retries": 5,
    })
}

#[expect(clippy::cast_precision_loss, reason = "a machine has fewer than 2^53 billionths of a CPU")]
fn billionths(count: i64) -> f64 {
    count as f64 / 1e9
}

fn devices(host: &mut HostConfig) -> Option<Vec<String>> {
    let devices = host.devices.take()?.into_iter().map(|device| {
        let parts = [device.path_on_host, device.path_in_container, device.cgroup_permissions];
        parts.into_iter().flatten().collect::<Vec<_>>().join(":")
    });
    Some(devices.collect())
}

/// Paths of `/proc` that are hidden by default are an option of their own.
fn security(host: &mut HostConfig) -> Vec<String> {
    let mut options = host.security_opt.take().unwrap_or_default();
    let masked = host.masked_paths.take_if(|paths| paths.is_empty());
    let read_only = host.readonly_paths.take_if(|paths| paths.is_empty());
    if masked.is_some() && read_only.is_some() {
        options.push("systempaths=unconfined".to_owned());
    }
    options
}

fn endpoint_of(endpoint: EndpointSettings) -> Value {
    let addresses = endpoint.ipam_config.unwrap_or_default();
    let mut value = json!({});
    for (name, address) in
        [("ipv4_address", addresses.ipv4_address), ("ipv6_address", addresses.ipv6_address)]
    {
        if let Some(address) = address {
            value[name] = address.into();
        }
    }
    value["aliases"] = endpoint.aliases.into();
    value
}

fn ports(bindings: PortMap) -> Vec<Value> {
    let ordered: BTreeMap<_, _> = bindings.into_iter().collect();
    let ports = ordered.into_iter().flat_map(|(port, places)| {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let (number, protocol) = (number.parse::<u16>().unwrap_or_default(), protocol.to_owned());
        places.into_iter().flatten().map(move |place| {
            json!({
                "host_ip": place.host_ip,
                "published": place.host_port,
                "target": number,
                "protocol": protocol,
            })
        })
    });
    ports.collect()
}

fn tmpfs(host: &mut HostConfig) -> Vec<String> {
    let ordered: BTreeMap<_, _> = host.tmpfs.take().unwrap_or_default().into_iter().collect();
    ordered.into_iter().map(|(path, options)| format!("{path}:{options}")).collect()
}

/// The mounts, and the documents that are put into a container where no engine is asked to do so.
fn volumes(host: &mut HostConfig, node: &str) -> Vec<Value> {
    let mut volumes: Vec<Value> =
        host.mounts.take().into_iter().flatten().map(|it| volume(it, node)).collect();
    for (path, file) in [(paths::CONFIG, "node.json"), (paths::GROUND, "ground.json")] {
        let source = format!("./nodes/{node}/{file}");
        volumes.push(bind(&source, path, true));
    }
    volumes
}

fn volume(mount: Mount, node: &str) -> Value {
    let (source, target) = (mount.source.unwrap_or_default(), mount.target.unwrap_or_default());
    match mount.typ {
        // Known by another name inside of the project.
        Some(MountType::VOLUME) => json!({"type": "volume", "source": node, "target": target}),
        _ => bind(&source, &target, mount.read_only.unwrap_or_default()),
    }
}

fn bind(source: &str, target: &str, read_only: bool) -> Value {
    json!({
        "type": "bind",
        "source": source,
        "target": target,
        "read_only": read_only,
        // A machine without modules has no folder of them; whatever else is missing is a mistake.
        "bind": {"create_host_path": source == MODULES},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::container::{Binding, Blueprint, Offer, own_addresses};
    use crate::docker::samples;

    fn body(offer: &Offer) -> ContainerCreateBody {
        let mut request = samples::node();
        request.addresses = samples::dual_stack(2);
        let bindings = [Binding {
            port: samples::port(6443),
            host_ip: "127.0.0.1".parse().unwrap(),
            host_port: 36443,
        }];
        let blueprint = Blueprint {
            provider: "compose",
            request: &request,
            addresses: own_addresses(&request).unwrap(),
            image: "bivouac.dev/node:1-2",
            offer,
            bindings: &bindings,
        };
        blueprint.render()
    }

    fn offer(privileged: bool) -> Offer {
        let devices = vec!["/dev/kmsg".to_owned()];
        let shared_images = privileged.then(|| "/store/images".into());
        let shared_cache = privileged.then(|| "/store/cache".into());
        Offer { privileged, devices, modules: privileged, shared_images, shared_cache }
    }

    #[test]
    fn all_of_a_container_is_said() {
        for privileged in [true, false] {
            let extras = Extras { node: "worker-0", build: None };
            let (_, rest) = render("bivouac-demo.worker-0", body(&offer(privileged)), extras);
            assert_eq!(rest, ContainerCreateBody::default());
        }
    }

    #[test]
    fn what_another_version_of_a_container_asks_for_is_missed() {
        let mut body = body(&offer(true));
        body.host_config.as_mut().unwrap().shm_size = Some(1);
        let extras = Extras { node: "worker-0", build: None };
        let (_, rest) = render("bivouac-demo.worker-0", body, extras);
        assert_eq!(rest.host_config.unwrap().shm_size, Some(1));
    }

    #[test]
    fn a_dollar_is_no_variable() {
        let value = escape(json!({"$a": ["x$y", {"b": "$$"}], "n": 1}));
        assert_eq!(value, json!({"$a": ["x$$y", {"b": "$$$$"}], "n": 1}));
    }
}
