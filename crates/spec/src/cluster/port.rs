//! Ports that are published on the host.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::NodeName;

/// A port of a node that is reached at the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Port {
    /// The port on the host.
    #[schemars(range(min = 1, max = 65535))]
    pub host_port: u16,
    /// The port of the node: 6443 is the API, 30000 to 32767 are those of Services of type NodePort.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// The node; the first control plane when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The address of the host. Only the host itself reaches 127.0.0.1, the default; everybody reaches 0.0.0.0.
    #[serde(default = "Port::default_host_ip", rename = "hostIP")]
    #[schemars(with = "HostIp")]
    pub host_ip: IpAddr,
    /// The protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

/// A protocol of a [`Port`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

impl Port {
    const fn default_host_ip() -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

impl Protocol {
    /// The word for it in lower case: `tcp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// An IP address, for the JSON schema only.
struct HostIp;

impl JsonSchema for HostIp {
    fn schema_name() -> Cow<'static, str> {
        "HostIp".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "An IP address of the host.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+$",
            "examples": ["127.0.0.1"],
        })
    }
}
