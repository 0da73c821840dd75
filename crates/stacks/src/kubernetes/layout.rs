//! The cluster as this stack looks at it: who the members are, and the addresses that follow from the given ones.

use std::net::{IpAddr, SocketAddr};

use bivouac_spec::cluster::{Cni, Kubernetes, NodeSpec, Role, Taint, TaintEffect};
use bivouac_spec::{Addresses, ClusterName, Facts, NodeName, Problem};
use ipnet::IpNet;

use crate::stack::RenderRequest;

/// The port of the API.
pub(super) const API_PORT: u16 = 6443;
/// Keeps pods off control planes where there are workers.
const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// A cluster, looked at.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) settings: &'a Kubernetes,
    pub(super) cni: Cni,
    pub(super) addresses: &'a Addresses,
    pub(super) facts: &'a Facts,
    /// In the order of the cluster file.
    pub(super) members: Vec<Member>,
    /// The addresses of the Service `kubernetes`, one for each family.
    pub(super) api_service: Vec<IpAddr>,
    /// The address of the cluster's DNS.
    pub(super) dns: IpAddr,
}

/// A node, looked at.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: NodeSpec,
    pub(super) address: IpAddr,
    pub(super) pod_networks: Vec<IpNet>,
    /// The API server that this node talks to. A control plane's own; workers are dealt out, so that the loss of one control plane
    /// does not take all of them along.
    pub(super) api: SocketAddr,
    /// The taints of the cluster file, and the control plane's own.
    pub(super) taints: Vec<Taint>,
}

impl Member {
    pub(super) const fn name(&self) -> &NodeName {
        &self.spec.name
    }

    pub(super) fn is_control_plane(&self) -> bool {
        self.spec.role == Role::ControlPlane
    }

    /// Labels that the cluster file asks for, the zone, and those that mark a control plane as kubeadm does.
    pub(super) fn labels(&self) -> Vec<(String, String)> {
        let own = self.spec.labels.iter().map(|(key, value)| (key.clone(), value.clone()));
        let zone =
            self.spec.zone.iter().map(|zone| ("topology.kubernetes.io/zone".into(), zone.clone()));
        let marks: &[&str] = if self.is_control_plane() {
            &[CONTROL_PLANE_TAINT, "node.kubernetes.io/exclude-from-external-load-balancers"]
        } else {
            &[]
        };
        own.chain(zone)
            .chain(marks.iter().map(|mark| ((*mark).to_owned(), String::new())))
            .collect()
    }
}

impl<'a> Layout<'a> {
    pub(super) fn of(
        request: &RenderRequest<'a>,
        settings: &'a Kubernetes,
    ) -> Result<Self, Problem> {
        let (cluster, addresses) = (request.cluster, request.addresses);
        let nodes = cluster.nodes();
        let control_planes: Vec<IpAddr> = nodes
            .iter()
            .filter(|node| node.role == Role::ControlPlane)
            .filter_map(|node| Some(addresses.nodes.get(&node.name)?.address))
            .collect();
        if control_planes.is_empty() {
            let message = format!("cluster `{}` has no control plane", cluster.name());
            let problem = Problem::usage("stack.kubernetes.no_control_plane", message);
            return Err(problem.help("add `{role: control-plane}` to `spec.nodes`"));
        }
        let has_workers = nodes.iter().any(|node| node.role == Role::Worker);
        let mut workers = 0;
        let mut members = Vec::new();
        for spec in nodes {
            let Some(own) = addresses.nodes.get(&spec.name) else {
                let message = format!("node `{}` has no address", spec.name);
                return Err(Problem::failed("stack.kubernetes.no_address", message));
            };
            let mut taints = spec.taints.clone();
            let server = if spec.role == Role::ControlPlane {
                if has_workers {
                    let (key, effect) = (CONTROL_PLANE_TAINT.to_owned(), TaintEffect::NoSchedule);
                    taints.push(Taint { key, value: None, effect });
                }
                own.address
            } else {
                workers += 1;
                control_planes[(workers - 1) % control_planes.len()]
            };
            let (address, pod_networks) = (own.address, own.pod_networks.clone());
            let api = SocketAddr::new(server, API_PORT);
            members.push(Member { spec, address, pod_networks, api, taints });
        }
        let service = |index| addresses.service_networks.iter().map(move |net| nth(net, index));
        let api_service = service(1).collect::<Option<Vec<_>>>();
        let dns = service(10).next().flatten();
        let (Some(api_service), Some(dns)) = (api_service, dns) else {
            let message =
                format!("the service networks of cluster `{}` are too small", cluster.name());
            let problem = Problem::usage("stack.kubernetes.service_network", message);
            return Err(problem.help("give `spec.network.serviceCIDR` a prefix of /24 or shorter"));
        };
        let (cni, cluster, facts) = (cluster.spec.network.cni, cluster.name(), request.facts);
        Ok(Self { cluster, settings, cni, addresses, facts, members, api_service, dns })
    }

    pub(super) fn control_planes(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_control_plane())
    }

    /// The node that applies objects and watches over the whole cluster.
    pub(super) fn first(&self) -> &Member {
        self.control_planes().next().expect("a layout without control plane is refused")
    }

    pub(super) fn is_first(&self, member: &Member) -> bool {
        self.first().name() == member.name()
    }

    /// Whether several control planes must agree which of them acts.
    pub(super) fn elects(&self) -> bool {
        self.control_planes().nth(1).is_some()
    }

    /// The full name of a Service.
    pub(super) fn service_name(&self, service: &str) -> String {
        format!("{service}.svc.{}", self.settings.domain)
    }

    /// The networks of Services, joined by commas.
    pub(super) fn service_networks(&self) -> String {
        join(&self.addresses.service_networks)
    }
}

/// Networks joined by commas.
pub(super) fn join(networks: &[IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The address at this distance from the start of a network, if it is inside.
fn nth(network: &IpNet, index: u32) -> Option<IpAddr> {
    let address: IpAddr = match network.network() {
        IpAddr::V4(first) => IpAddr::V4(u32::from(first).checked_add(index)?.into()),
        IpAddr::V6(first) => IpAddr::V6(u128::from(first).checked_add(index.into())?.into()),
    };
    network.contains(&address).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_start_of_a_network() {
        let nth =
            |network: &str, index| nth(&network.parse().unwrap(), index).map(|a| a.to_string());
        assert_eq!(nth("10.96.0.0/16", 10).as_deref(), Some("10.96.0.10"));
        assert_eq!(nth("fd00:96::/112", 1).as_deref(), Some("fd00:96::1"));
        assert_eq!(nth("10.96.0.0/29", 10), None);
    }
}
