//! The cluster as this stack looks at it: who the members are, and the addresses that follow from the given ones.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use bivouac_spec::cluster::{Cni, Kubernetes, LoadBalancer, NodeSpec, Role, Taint, TaintEffect};
use bivouac_spec::network::Families;
use bivouac_spec::{Addresses, Cluster, ClusterName, Facts, NodeName, Problem};
use ipnet::IpNet;

use super::balancer;
use crate::stack::RenderRequest;

/// The port of the API.
pub(super) const API_PORT: u16 = Kubernetes::API_PORT;
/// Keeps pods off control planes where there are workers.
const CONTROL_PLANE_TAINT: &str = "node-role.kubernetes.io/control-plane";

/// A cluster, looked at.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) settings: &'a Kubernetes,
    pub(super) cni: Cni,
    /// Whether Services get addresses on the network of the nodes.
    pub(super) load_balances: bool,
    pub(super) addresses: &'a Addresses,
    pub(super) facts: &'a Facts,
    /// Those that run Kubernetes, in the order of the cluster file.
    pub(super) members: Vec<Member>,
    /// Who leads those outside of the cluster to its control planes, where there are several.
    pub(super) balancer: Option<Balancer>,
    /// The nodes that join what is there; the others found it.
    joined: &'a BTreeSet<NodeName>,
    /// The addresses of the Service `kubernetes`, one for each family.
    pub(super) api_service: Vec<IpAddr>,
    /// The address of the cluster's DNS.
    pub(super) dns: IpAddr,
}

/// A node, looked at.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: NodeSpec,
    pub(super) addresses: Families<IpAddr>,
    pub(super) pod_networks: Vec<IpNet>,
    /// Where this node finds the API: at the only control plane, or at its own balancer, which knows those that are well.
    pub(super) api: SocketAddr,
    /// The taints of the cluster file, and the control plane's own.
    pub(super) taints: Vec<Taint>,
}

/// The node of a balancer.
#[derive(Debug)]
pub(super) struct Balancer {
    pub(super) name: NodeName,
    pub(super) addresses: Families<IpAddr>,
}

impl Member {
    pub(super) const fn name(&self) -> &NodeName {
        &self.spec.name
    }

    /// The node's address of the family that is preferred.
    pub(super) const fn address(&self) -> IpAddr {
        self.addresses.primary
    }

    /// Its addresses of all families, joined by commas.
    pub(super) fn node_ip(&self) -> String {
        join(self.addresses.iter())
    }

    /// The API server of this node, which is a control plane.
    pub(super) const fn server(&self) -> SocketAddr {
        SocketAddr::new(self.address(), API_PORT)
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
        let (nodes, workers) = (cluster.nodes(), has_workers(cluster));
        let (mut members, mut balancer) = (Vec::new(), None);
        for spec in nodes {
            let Some(own) = addresses.nodes.get(&spec.name) else {
                let message = format!("node `{}` has no address", spec.name);
                return Err(Problem::failed("stack.kubernetes.no_address", message));
            };
            let (own, pod_networks) = (own.addresses, own.pod_networks.clone());
            if spec.role == Role::Balancer {
                balancer = Some(Balancer { name: spec.name, addresses: own });
                continue;
            }
            let (taints, api) = (taints(&spec, workers), balancer::OF_A_NODE);
            members.push(Member { spec, addresses: own, pod_networks, api, taints });
        }
        let servers = members.iter().filter(|member| member.is_control_plane());
        let servers: Vec<SocketAddr> = servers.map(Member::server).collect();
        match servers[..] {
            [] => {
                let message = format!("cluster `{}` has no control plane", cluster.name());
                let problem = Problem::usage("stack.kubernetes.no_control_plane", message);
                return Err(problem.help("add `{role: control-plane}` to `spec.nodes`"));
            }
            [only] => members.iter_mut().for_each(|member| member.api = only),
            _ => {}
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
        let facts = request.facts;
        let wanted = cluster.spec.network.load_balancer == LoadBalancer::NodeNetwork;
        let has_room = addresses.node_networks.iter().all(|own| own.service_addresses().is_some());
        let load_balances = wanted && has_room && facts.shares_network;
        let (cni, cluster) = (cluster.spec.network.cni, cluster.name());
        let joined = request.joined;
        Ok(Self {
            cluster,
            settings,
            cni,
            load_balances,
            addresses,
            facts,
            members,
            balancer,
            joined,
            api_service,
            dns,
        })
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

    /// Whether the member came to a cluster that was there already.
    pub(super) fn has_joined(&self, member: &Member) -> bool {
        self.joined.contains(member.name())
    }

    /// Whether control planes came to a cluster that was there already.
    pub(super) fn has_grown(&self) -> bool {
        self.control_planes().any(|member| self.has_joined(member))
    }

    /// Whether anything has addresses of this family.
    pub(super) fn has(&self, v4: bool) -> bool {
        self.first().addresses.iter().any(|address| address.is_ipv4() == v4)
            || self.addresses.pod_networks.iter().any(|net| net.addr().is_ipv4() == v4)
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

/// Whether there are nodes for pods only.
fn has_workers(cluster: &Cluster) -> bool {
    cluster.nodes().iter().any(|node| node.role == Role::Worker)
}

/// The taints of each node that a cluster asks for.
pub(super) fn all_taints(cluster: &Cluster) -> Vec<(NodeName, Vec<Taint>)> {
    let workers = has_workers(cluster);
    let nodes = cluster.nodes().into_iter().filter(|node| node.role != Role::Balancer);
    nodes.map(|node| (node.name.clone(), taints(&node, workers))).collect()
}

/// Those of the cluster file, and that of a control plane whose cluster has workers.
fn taints(node: &NodeSpec, has_workers: bool) -> Vec<Taint> {
    let mut taints = node.taints.clone();
    if node.role == Role::ControlPlane && has_workers {
        let (key, effect) = (CONTROL_PLANE_TAINT.to_owned(), TaintEffect::NoSchedule);
        taints.push(Taint { key, value: None, effect });
    }
    taints
}

/// Networks, addresses and the like, joined by commas.
pub(super) fn join<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
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
