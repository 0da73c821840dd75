//! Settings of the `incus` stack.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::{Bytes, Span};

/// Settings of the `incus` stack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Incus {
    /// Where each member keeps its instances.
    #[serde(default)]
    pub storage: IncusStorage,
    /// The network between instances of all members.
    #[serde(default)]
    pub network: InstanceNetwork,
    /// What keeps a member well.
    #[serde(default)]
    pub guard: Guard,
    /// Options of the server for the whole cluster, such as `images.auto_update_interval: "6"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Profiles. One called `default` adds to the built-in one, which has a root disk and a network interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<InstanceProfile>,
}

/// Where each member keeps its instances: the storage pool `default`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IncusStorage {
    /// How.
    #[serde(default)]
    pub driver: StorageDriver,
    /// The size of each member's pool, for `btrfs`; Incus chooses when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
}

/// How a storage pool keeps instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StorageDriver {
    /// Folders of the node's own file system. Works everywhere.
    #[default]
    Dir,
    /// A file with a btrfs file system, where the kernel has that and nodes get loop devices. Launches and copies share what is the same.
    Btrfs,
    /// A file with a ZFS pool. The node image has no tools for it: refused.
    Zfs,
}

impl StorageDriver {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Btrfs => "btrfs",
            Self::Zfs => "zfs",
        }
    }
}

/// The network between instances of all members, a VXLAN. Its addresses are `network.podCIDR`, a /24 for the instances of each member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceNetwork {
    /// The VXLAN's number.
    #[serde(default = "InstanceNetwork::default_vni")]
    #[schemars(range(min = 1, max = 16_777_215))]
    pub vni: u32,
    /// The largest packet of an instance, in bytes: that of the network between the nodes less 50.
    #[serde(default = "InstanceNetwork::default_mtu")]
    #[schemars(range(min = 1280, max = 65_450))]
    pub mtu: u32,
}

impl InstanceNetwork {
    const fn default_vni() -> u32 {
        7331
    }

    const fn default_mtu() -> u32 {
        1450
    }
}

impl Default for InstanceNetwork {
    fn default() -> Self {
        Self { vni: Self::default_vni(), mtu: Self::default_mtu() }
    }
}

/// What keeps a member well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Guard {
    /// When memory runs out.
    #[serde(default)]
    pub memory: MemoryGuard,
    /// Whether the member takes part in the cluster.
    #[serde(default)]
    pub health: HealthGuard,
}

/// When a member has too little memory, the instance on it that has run longest is stopped, unless it has `user.oomSkip: "true"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MemoryGuard {
    /// The memory that must be available, in whole MiB.
    #[serde(default = "MemoryGuard::default_minimum")]
    pub minimum: Bytes,
    /// How often it is looked at; `0s` for never.
    #[serde(default = "MemoryGuard::default_interval")]
    pub interval: Span,
    /// How long the instance may take to stop by itself.
    #[serde(default = "MemoryGuard::default_grace")]
    pub grace: Span,
}

impl MemoryGuard {
    const fn default_minimum() -> Bytes {
        Bytes(64 << 20)
    }

    const fn default_interval() -> Span {
        Span::seconds(5)
    }

    const fn default_grace() -> Span {
        Span::seconds(10)
    }
}

impl Default for MemoryGuard {
    fn default() -> Self {
        Self {
            minimum: Self::default_minimum(),
            interval: Self::default_interval(),
            grace: Self::default_grace(),
        }
    }
}

/// A member that does not get the cluster's own list of members has its daemon started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthGuard {
    /// How often the list is asked for; `0s` for never.
    #[serde(default = "HealthGuard::default_interval")]
    pub interval: Span,
    /// How long an answer may take.
    #[serde(default = "HealthGuard::default_timeout")]
    pub timeout: Span,
    /// How many answers in a row may be missing.
    #[serde(default = "HealthGuard::default_failures")]
    #[schemars(range(min = 1, max = 1000))]
    pub failures: u32,
    /// For how long the lower half of the members, which cannot have a quorum by themselves, is left alone; `0s` for ever.
    #[serde(default = "HealthGuard::default_lenience")]
    pub lenience: Span,
}

impl HealthGuard {
    const fn default_interval() -> Span {
        Span::seconds(10)
    }

    const fn default_timeout() -> Span {
        Span::seconds(3)
    }

    const fn default_failures() -> u32 {
        3
    }

    const fn default_lenience() -> Span {
        Span::seconds(300)
    }
}

impl Default for HealthGuard {
    fn default() -> Self {
        Self {
            interval: Self::default_interval(),
            timeout: Self::default_timeout(),
            failures: Self::default_failures(),
            lenience: Self::default_lenience(),
        }
    }
}

/// Options and devices that instances are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InstanceProfile {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Options, such as `limits.memory: 256MiB`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub config: BTreeMap<String, String>,
    /// Devices by name, such as `root: {type: disk, path: /, pool: default, size: 8GiB}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, BTreeMap<String, String>>,
}

impl Incus {
    /// The port of the API.
    pub const API_PORT: u16 = 8443;

    /// The profile that every instance has unless another is named, and the storage pool.
    pub const DEFAULT: &str = "default";
}
