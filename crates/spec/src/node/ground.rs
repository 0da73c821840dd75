//! What a ground leaves to be done from inside of a node.
//!
//! Some grounds hand over a finished room (the namespaces of `linux`), others a container that somebody else furnished. There the
//! provider puts this document next to the node config, and the agent does the rest before it applies the config: it makes control
//! groups and `/sys` writable, shares mounts with pods, and brings about what is said here. It knows nothing of what will run.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::cluster::Resources;

/// What a ground leaves to be done from inside of a node, each time the node starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ground {
    /// The content of `/etc/machine-id`, 32 hexadecimal digits.
    pub machine_id: String,
    /// The content of `/etc/hosts`. The file may be a mount, so it is written in place.
    pub hosts: String,
    /// Routes to the pods of the other nodes.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The node's address on which its own DNS server is offered, when `/etc/resolv.conf` names one on the loopback interface: pods
    /// cannot reach that. `/etc/resolv.conf` then names this address.
    #[serde(default)]
    pub resolver: Option<IpAddr>,
    /// The node's limits: what it is to see as all that its machine has.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub resources: Resources,
}

/// A route to the pods of another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The pods' network.
    pub to: IpNet,
    /// The address of the node that they are on.
    pub via: IpAddr,
}
