//! The network of a cluster, and everything that is refused before it is made.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, TcpListener, UdpSocket};

use bivouac_provider::NetworkRequest;
use bivouac_spec::cluster::Protocol;
use bivouac_spec::{ClusterName, Problem, PublishedPort};
use bollard::models::{
    ContainerSummary, Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect, PortSummaryTypeEnum,
};
use bollard::query_parameters::{InspectNetworkOptions, ListContainersOptions, ListVolumesOptions};
use ipnet::IpNet;

use super::engine::Engine;
use super::names;
use super::problem::{OrProblem as _, absent_is_success, port_taken, status, unfit, usage};

/// Makes the network, unless it is there.
pub(super) async fn ensure(
    engine: &Engine,
    provider: &str,
    request: &NetworkRequest,
) -> Result<(), Problem> {
    if check(engine, provider, request).await?.is_some() {
        return Ok(());
    }
    let cluster = &request.cluster;
    match engine.docker.create_network(body(provider, request)).await {
        Ok(_) => Ok(()),
        // Somebody was faster: another `up`, or a stranger.
        Err(error) if status(&error) == Some(409) && find(engine, cluster).await?.is_some() => {
            Box::pin(ensure(engine, provider, request)).await
        }
        other => other
            .map(drop)
            .or_problem("network", format_args!("the network of cluster {cluster} cannot be made")),
    }
}

/// Refuses what would fail later. Gives the network if it is there.
pub(super) async fn check(
    engine: &Engine,
    provider: &str,
    request: &NetworkRequest,
) -> Result<Option<NetworkInspect>, Problem> {
    let cluster = &request.cluster;
    let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let (found, containers, volumes) = futures::join!(
        find(engine, cluster),
        engine.docker.list_containers(Some(all)),
        engine.docker.list_volumes(None::<ListVolumesOptions>),
    );
    let found = found?;
    let containers = containers
        .or_problem("containers", "the containers of the container engine cannot be listed")?;
    let volumes =
        volumes.or_problem("volumes", "the volumes of the container engine cannot be listed")?;
    for node in request.addresses.nodes.keys() {
        let name = names::node(cluster, node);
        let container = containers.iter().find(|container| is_called(container, &name));
        let labels = container.map(|it| it.labels.clone().unwrap_or_default());
        refuse_strange("container", &name, labels.as_ref(), provider, cluster)?;
        let volume = volumes.volumes.iter().flatten().find(|volume| volume.name == name);
        refuse_strange("volume", &name, volume.map(|it| &it.labels), provider, cluster)?;
    }
    check_ports(engine.local.is_some(), request, &containers)?;
    if let Some(found) = &found {
        let labels = found.labels.clone().unwrap_or_default();
        let name = names::network(cluster);
        refuse_strange("network", &name, Some(&labels), provider, cluster)?;
        check_range(found, request)?;
    }
    Ok(found)
}

/// The network of the cluster's name, whoever made it.
pub(super) async fn find(
    engine: &Engine,
    cluster: &ClusterName,
) -> Result<Option<NetworkInspect>, Problem> {
    let name = names::network(cluster);
    let found = engine.docker.inspect_network(&name, None::<InspectNetworkOptions>).await;
    absent_is_success(found)
        .or_problem("network", format_args!("network {name} cannot be looked for"))
}

/// What the engine is asked for.
pub(super) fn body(provider: &str, request: &NetworkRequest) -> NetworkCreateRequest {
    let networks = &request.addresses.node_networks;
    let ranges = networks.iter().map(|own| IpamConfig {
        subnet: Some(own.network.to_string()),
        gateway: Some(own.gateway.to_string()),
        // What the engine gives to containers of others is no node's, which are told their addresses, and none of Services.
        ip_range: own.lower_half().map(|half| half.to_string()),
        ..IpamConfig::default()
    });
    let asked: Vec<String> = networks.iter().map(|own| own.network.to_string()).collect();
    let mut labels = names::labels(provider, &request.cluster);
    labels.insert(names::NETWORKS.to_owned(), asked.join(","));
    let masquerade = ("com.docker.network.bridge.enable_ip_masquerade", "true");
    NetworkCreateRequest {
        name: names::network(&request.cluster),
        driver: Some("bridge".to_owned()),
        enable_ipv6: Some(networks.iter().any(|own| own.gateway.is_ipv6())),
        ipam: Some(Ipam { config: Some(ranges.collect()), ..Ipam::default() }),
        options: Some([masquerade].map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}

/// A network of ours with other addresses is of another cluster of this name, which is only half removed.
fn check_range(found: &NetworkInspect, request: &NetworkRequest) -> Result<(), Problem> {
    let ranges = found.ipam.iter().flat_map(|ipam| ipam.config.iter().flatten());
    let ranges: BTreeSet<IpNet> = ranges
        .filter_map(|it| it.subnet.as_deref()?.parse().ok())
        .map(|it: IpNet| it.trunc())
        .collect();
    let mut wanted = request.addresses.node_networks.iter().map(|own| own.network.trunc());
    let Some(wanted) = wanted.find(|wanted| !ranges.contains(wanted)) else { return Ok(()) };
    let cluster = &request.cluster;
    let name = names::network(cluster);
    Err(usage(
        "other_network",
        format_args!("network {name} of cluster {cluster} has no range {wanted}"),
    )
    .help(format!("remove the cluster with `bivouac down {cluster}`, then make it again")))
}

fn is_called(container: &ContainerSummary, name: &str) -> bool {
    let mut names = container.names.iter().flatten();
    names.any(|one| one.trim_start_matches('/') == name)
}

/// What has our name without our labels was made by somebody else, and is left alone.
fn refuse_strange(
    kind: &str,
    name: &str,
    labels: Option<&HashMap<String, String>>,
    provider: &str,
    cluster: &ClusterName,
) -> Result<(), Problem> {
    let Some(labels) = labels else { return Ok(()) };
    if names::is_of(labels, provider, cluster) {
        return Ok(());
    }
    let owner = match (labels.get(names::PROVIDER), labels.get(names::CLUSTER)) {
        (Some(other), Some(owner)) => format!("cluster {owner} of provider {other}"),
        _ => "none of bivouac's".to_owned(),
    };
    let message = format!("the {kind} {name}, which cluster {cluster} needs, is {owner}");
    Err(usage("name_taken", message).help(format!(
        "rename the cluster, or look at the {kind} with `docker {kind} inspect {name}` and remove it"
    )))
}

/// Host ports that somebody else has. Those that the node's own container publishes are not asked about. `is_local`: the engine runs
/// on this machine, so that ports can be tried here.
fn check_ports(
    is_local: bool,
    request: &NetworkRequest,
    containers: &[ContainerSummary],
) -> Result<(), Problem> {
    for port in &request.ports {
        let Some(number) = port.host_port else { continue };
        let name = names::node(&request.cluster, &port.node);
        let own = containers.iter().find(|it| is_called(it, &name) && is_running(it));
        if own.is_some_and(|own| publishes(own, port, number)) {
            continue;
        }
        let holder = containers.iter().find(|container| publishes(container, port, number));
        if let Some(holder) = holder {
            let name = holder.names.iter().flatten().next().map_or("?", |name| name.as_str());
            let holder = format!("container {}", name.trim_start_matches('/'));
            return Err(taken_by(port, number, &holder));
        }
        if is_local && let Err(error) = try_bind(port, number) {
            return Err(not_bound(&request.cluster, port, number, &error));
        }
    }
    Ok(())
}

fn is_running(container: &ContainerSummary) -> bool {
    use bollard::models::ContainerSummaryStateEnum as State;
    matches!(container.state, Some(State::RUNNING | State::PAUSED | State::RESTARTING))
}

fn publishes(container: &ContainerSummary, port: &PublishedPort, number: u16) -> bool {
    container.ports.iter().flatten().any(|one| {
        let protocol = match port.protocol {
            Protocol::Tcp => PortSummaryTypeEnum::TCP,
            Protocol::Udp => PortSummaryTypeEnum::UDP,
        };
        one.public_port == Some(number)
            && one.typ == Some(protocol)
            && overlap(one.ip.as_deref().and_then(|ip| ip.parse().ok()), port.host_ip)
    })
}

/// Whether two addresses of the host can be the same one. None is every address, an unspecified one every address of its family.
fn overlap(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) if one.is_ipv6() == other.is_ipv6() => {
            one == other || one.is_unspecified() || other.is_unspecified()
        }
        (Some(_), Some(_)) => false,
        _ => true,
    }
}

fn try_bind(port: &PublishedPort, number: u16) -> std::io::Result<()> {
    let address = (port.host_ip.unwrap_or(IpAddr::from([127, 0, 0, 1])), number);
    match port.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
    .or_else(|error| match error.kind() {
        // Ports below 1024 are the engine's to bind, not ours.
        std::io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error),
    })
}

fn not_bound(
    cluster: &ClusterName,
    port: &PublishedPort,
    number: u16,
    error: &std::io::Error,
) -> Problem {
    match port.host_ip {
        Some(ip) if error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            let protocol = port.protocol.name();
            let message = format!(
                "cluster {cluster} cannot publish {protocol} port {number}: the host has no address {ip}"
            );
            unfit("no_host_address", message).help(
                "write an address of the host as `hostIP` in the cluster file, or 0.0.0.0 (IPv6: `::`) for all of them",
            )
        }
        _ => taken_by(port, number, "a program of the host").because(error),
    }
}

fn taken_by(port: &PublishedPort, number: u16, holder: &str) -> Problem {
    let (node, protocol) = (&port.node, port.protocol.name());
    port_taken(format_args!(
        "{protocol} port {number} of the host, which node {node} is to have, is taken by {holder}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: &str) -> PublishedPort {
        PublishedPort {
            node: "worker-0".parse().unwrap(),
            port: 80,
            protocol: Protocol::Tcp,
            host_ip: Some(host_ip.parse().unwrap()),
            host_port: Some(8080),
        }
    }

    #[test]
    fn what_has_our_name_and_not_our_label_is_refused() {
        let demo = "demo".parse().unwrap();
        let ask = |labels: Option<&HashMap<String, String>>| {
            refuse_strange("container", "bivouac-demo.a", labels, "docker", &demo)
        };
        ask(None).unwrap();
        ask(Some(&names::labels("docker", &demo))).unwrap();
        let problem = ask(Some(&HashMap::new())).unwrap_err();
        insta::assert_json_snapshot!(problem);
        let problem = ask(Some(&names::labels("compose", &demo))).unwrap_err();
        assert!(problem.message.ends_with("is cluster demo of provider compose"));
    }

    #[test]
    fn a_node_that_runs_has_only_the_ports_that_it_publishes() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = held.local_addr().unwrap().port();
        let container = |name: &str, number| ContainerSummary {
            names: Some(vec![format!("/{name}")]),
            state: Some(bollard::models::ContainerSummaryStateEnum::RUNNING),
            ports: Some(vec![bollard::models::PortSummary {
                ip: Some("127.0.0.1".to_owned()),
                private_port: 80,
                public_port: Some(number),
                typ: Some(PortSummaryTypeEnum::TCP),
            }]),
            ..ContainerSummary::default()
        };
        let request = NetworkRequest {
            cluster: "demo".parse().unwrap(),
            addresses: crate::samples::addresses(1),
            ports: vec![PublishedPort { host_port: Some(number), ..port("127.0.0.1") }],
        };
        let node = names::node(&request.cluster, &request.ports[0].node);
        let check = |is_local, containers: &[ContainerSummary]| {
            check_ports(is_local, &request, containers).map_err(|problem| problem.message)
        };
        assert_eq!(check(true, &[container(&node, number)]), Ok(()));
        let others = number ^ 1;
        assert_eq!(check(false, &[container(&node, others)]), Ok(()));
        let holder = container("other", number);
        let said = check(false, &[container(&node, others), holder]).unwrap_err();
        assert!(said.ends_with("is taken by container other"), "{said}");
        let said = check(true, &[container(&node, others)]).unwrap_err();
        assert!(said.ends_with("is taken by a program of the host"), "{said}");
    }

    #[test]
    fn ports_clash_by_address_and_protocol() {
        let published = |ip: &str, typ| ContainerSummary {
            ports: Some(vec![bollard::models::PortSummary {
                ip: Some(ip.to_owned()),
                private_port: 80,
                public_port: Some(8080),
                typ: Some(typ),
            }]),
            ..ContainerSummary::default()
        };
        let tcp = PortSummaryTypeEnum::TCP;
        for (held, wanted, clash) in [
            ("0.0.0.0", "127.0.0.1", true),
            ("127.0.0.1", "0.0.0.0", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "192.0.2.1", false),
            ("::", "::1", true),
            ("0.0.0.0", "::1", false),
        ] {
            assert_eq!(publishes(&published(held, tcp), &port(wanted), 8080), clash);
        }
        let udp = published("0.0.0.0", PortSummaryTypeEnum::UDP);
        assert!(!publishes(&udp, &port("127.0.0.1"), 8080));
    }

    #[test]
    fn a_port_in_use_is_seen() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = held.local_addr().unwrap().port();
        let problem = |ip: &str| {
            let error = try_bind(&port(ip), number).unwrap_err();
            not_bound(&"demo".parse().unwrap(), &port(ip), number, &error)
        };
        assert_eq!(problem("127.0.0.1").code, "provider.docker.port_taken");
        assert_eq!(problem("192.0.2.1").code, "provider.docker.no_host_address");
    }
}
