//! The networks of a cluster.

use std::borrow::Cow;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The networks of a cluster. Absent ones are chosen free.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The IP families that nodes, pods and Services have, the one that is preferred first: `[IPv4, IPv6]` is dual stack.
    #[serde(default = "Network::default_families")]
    pub ip_families: Vec<IpFamily>,
    /// The networks between the nodes, such as `10.89.0.0/24`, at most one of each family.
    #[serde(default, rename = "nodeCIDR", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Cidr>")]
    pub node_cidr: Vec<IpNet>,
    /// The networks of pods, at most one of each family; each node gets a /24 (IPv6: a /64) of it.
    #[serde(default, rename = "podCIDR", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Cidr>")]
    pub pod_cidr: Vec<IpNet>,
    /// The networks of Services, at most one of each family.
    #[serde(default, rename = "serviceCIDR", skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<Cidr>")]
    pub service_cidr: Vec<IpNet>,
    /// How pods of different nodes reach each other.
    #[serde(default)]
    pub cni: Cni,
    /// Where Services of type `LoadBalancer` get their addresses from.
    #[serde(default)]
    pub load_balancer: LoadBalancer,
}

/// An IP family.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// How pods of different nodes reach each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cni {
    /// The ground routes each node's pod network to the node. The fastest.
    #[default]
    Bridge,
    /// An overlay (VXLAN) that flannel keeps: works wherever nodes reach each other.
    Flannel,
    /// None: you install your own, and nodes are not Ready before.
    None,
}

/// Where Services of type `LoadBalancer` get their addresses from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoadBalancer {
    /// The upper part of the network between the nodes, where this machine is on it.
    #[default]
    NodeNetwork,
    /// Nowhere, or from something that you install.
    None,
}

impl Network {
    fn default_families() -> Vec<IpFamily> {
        vec![IpFamily::V4]
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            ip_families: Self::default_families(),
            node_cidr: Vec::new(),
            pod_cidr: Vec::new(),
            service_cidr: Vec::new(),
            cni: Cni::default(),
            load_balancer: LoadBalancer::default(),
        }
    }
}

impl IpFamily {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// The family of a network.
    #[must_use]
    pub const fn of(net: &IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// The prefix of each node's share of the pod network.
    #[must_use]
    pub const fn pod_share(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }
}

/// An IP network, for the JSON schema only.
struct Cidr;

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "An IP network: an address, a slash and the length of the prefix.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+/[0-9]{1,3}$",
            "examples": ["10.244.0.0/16"],
        })
    }
}
