//! The cluster as this stack looks at it: its members, and the addresses that follow from the given ones.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use bivouac_spec::cluster::{Incus, NodeSpec};
use bivouac_spec::{ClusterName, Facts, NodeName, Problem};
use ipnet::{IpNet, Ipv4Net};

use super::storage;
use crate::stack::RenderRequest;

/// The port of the API, for users and for members.
pub(super) const API_PORT: u16 = Incus::API_PORT;

/// A cluster, looked at.
#[derive(Debug)]
pub(super) struct Layout<'a> {
    pub(super) cluster: &'a ClusterName,
    pub(super) settings: &'a Incus,
    pub(super) facts: &'a Facts,
    /// In the order of the cluster file; at least one.
    pub(super) members: Vec<Member>,
    /// The network that all instances are in.
    pub(super) instances: Ipv4Net,
    /// The networks between the nodes.
    pub(super) nodes: Vec<IpNet>,
    joined: &'a BTreeSet<NodeName>,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) spec: NodeSpec,
    /// Where other members find it.
    pub(super) address: IpAddr,
    /// The addresses of instances on it.
    pub(super) share: Ipv4Net,
}

impl Member {
    pub(super) const fn name(&self) -> &NodeName {
        &self.spec.name
    }

    /// Its own address among instances: their gateway and their name server.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        nth(self.share, 1)
    }

    /// The addresses that it hands out.
    pub(super) fn range(&self) -> (Ipv4Addr, Ipv4Addr) {
        (nth(self.share, 10), nth(self.share, 254))
    }
}

impl<'a> Layout<'a> {
    pub(super) fn of(request: &RenderRequest<'a>, settings: &'a Incus) -> Result<Self, Problem> {
        storage::check(settings, request.facts)?;
        let (cluster, addresses) = (request.cluster, request.addresses);
        let no_address = |what: &str| {
            let message = format!("{what} of cluster `{}` has no IPv4 network", cluster.name());
            Problem::failed("stack.incus.no_address", message)
        };
        let mut members = Vec::new();
        for spec in cluster.nodes() {
            let own = addresses.nodes.get(&spec.name);
            let share = own.and_then(|own| v4(&own.pod_networks));
            let Some((own, share)) = own.zip(share) else {
                return Err(no_address(&format!("node `{}`", spec.name)));
            };
            members.push(Member { spec, address: own.primary(), share });
        }
        if members.is_empty() {
            let message = format!("cluster `{}` has no member", cluster.name());
            let problem = Problem::usage("stack.incus.no_member", message);
            return Err(problem.help("add `{role: member}` to `spec.nodes`"));
        }
        let Some(instances) = v4(&addresses.pod_networks) else {
            return Err(no_address("the network of instances"));
        };
        let nodes = addresses.node_networks.iter().map(|own| own.network).collect();
        let (cluster, facts, joined) = (cluster.name(), request.facts, request.joined);
        Ok(Self { cluster, settings, facts, members, instances, nodes, joined })
    }

    /// Whether members came to a cluster that was there already. Then nobody makes one: who has lost its data joins the others.
    fn has_grown(&self) -> bool {
        self.members.iter().any(|member| self.joined.contains(member.name()))
    }

    /// The member that makes the cluster, or else asks about the whole of it.
    pub(super) fn first(&self) -> &Member {
        let founder = self.members.iter().find(|member| !self.joined.contains(member.name()));
        founder.unwrap_or(&self.members[0])
    }

    pub(super) fn is_first(&self, member: &Member) -> bool {
        self.first().name() == member.name()
    }

    /// Whether it makes the cluster.
    pub(super) fn founds(&self, member: &Member) -> bool {
        self.is_first(member) && !self.has_grown()
    }

    pub(super) fn member(&self, name: &NodeName) -> Option<&Member> {
        self.members.iter().find(|member| member.name() == name)
    }

    /// All members but this one.
    pub(super) fn others(&self, member: &Member) -> impl Iterator<Item = &Member> {
        let name = member.name().clone();
        self.members.iter().filter(move |other| *other.name() != name)
    }

    /// Whom it joins, the best first: founders wait for the first; where there is a cluster, whoever answers is asked.
    pub(super) fn joins(&self, member: &Member) -> Vec<&Member> {
        if self.has_grown() {
            return self.others(member).collect();
        }
        vec![self.first()]
    }

    /// The founder after whom it joins; none for who makes the cluster, and where there is one. Two that join at the same moment are two
    /// changes of the database's members, of which it bears one at a time.
    pub(super) fn before(&self, member: &Member) -> Option<&Member> {
        let before = self.position(member).checked_sub(1)?;
        (!self.has_grown()).then(|| &self.members[before])
    }

    /// Its position, from 0.
    pub(super) fn position(&self, member: &Member) -> usize {
        let position = self.members.iter().position(|other| other.name() == member.name());
        position.unwrap_or_default()
    }
}

fn v4(networks: &[IpNet]) -> Option<Ipv4Net> {
    networks.iter().find_map(|network| match network {
        IpNet::V4(network) => Some(*network),
        IpNet::V6(_) => None,
    })
}

fn nth(network: Ipv4Net, n: u32) -> Ipv4Addr {
    u32::from(network.network()).saturating_add(n).into()
}
