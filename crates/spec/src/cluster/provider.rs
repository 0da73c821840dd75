//! Where nodes run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where nodes run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Provider {
    /// This machine's kernel: each node is a set of namespaces. Needs no container engine.
    Linux(LinuxProvider),
    /// Containers of a Docker engine, here or elsewhere.
    Docker(DockerProvider),
    /// The same containers, made by `docker compose` from a project that bivouac writes.
    Compose(DockerProvider),
}

/// Settings of the `linux` provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinuxProvider {}

/// Settings of the `docker` and `compose` providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DockerProvider {
    /// The context of the `docker` command whose engine is used. The one of the environment (`DOCKER_HOST`, `DOCKER_CONTEXT`), or
    /// the current one, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl Default for Provider {
    fn default() -> Self {
        Self::Linux(LinuxProvider::default())
    }
}

impl Provider {
    /// The word for it in a cluster file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Linux(_) => "linux",
            Self::Docker(_) => "docker",
            Self::Compose(_) => "compose",
        }
    }
}
