//! The grounds that nodes run on, a module and a feature each.
//!
//! - [`linux`]: this machine's kernel, each node a set of namespaces
//! - [`docker`]: containers of a Docker engine, made by bivouac or by `docker compose`

#[cfg(feature = "docker")]
pub mod docker;
mod hosts;
#[cfg(feature = "linux")]
pub mod linux;
mod memory;
mod occupied;
#[cfg(test)]
mod samples;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use bivouac_provider::Provider;
use bivouac_spec::{Problem, cluster};
use camino::Utf8PathBuf;

/// What grounds need to know, whichever is opened.
#[derive(Debug, Clone)]
pub struct OpenRequest {
    /// The folder with what bivouac knows. Each ground has its own in it.
    pub state: Utf8PathBuf,
    /// What the environment says of container engines.
    pub docker: docker::EngineEnvironment,
}

/// Every ground that clusters can be on, with its default settings.
#[must_use]
pub fn all() -> Vec<cluster::Provider> {
    vec![
        cluster::Provider::default(),
        cluster::Provider::Docker(cluster::DockerProvider::default()),
        cluster::Provider::Compose(cluster::DockerProvider::default()),
    ]
}

/// Opens the ground that a cluster file names. Touches nothing: what is wrong with the ground is told by the first call.
#[must_use]
pub fn open(provider: &cluster::Provider, request: &OpenRequest) -> Arc<dyn Provider> {
    match provider {
        cluster::Provider::Linux(_) => {
            Arc::new(linux::open(linux::LinuxRequest { state: request.state.join("linux") }))
        }
        cluster::Provider::Docker(settings) => {
            Arc::new(docker::open(docker_request(provider.name(), settings, request)))
        }
        // The same containers under another label: a cluster is changed and removed by the provider that made it.
        cluster::Provider::Compose(settings) => {
            Arc::new(docker::compose::open(docker::compose::ComposeRequest {
                docker: docker_request(provider.name(), settings, request),
                projects: request.state.join("compose"),
            }))
        }
    }
}

fn docker_request(
    name: &'static str,
    settings: &cluster::DockerProvider,
    request: &OpenRequest,
) -> docker::DockerRequest {
    docker::DockerRequest {
        name,
        context: settings.context.clone(),
        environment: request.docker.clone(),
    }
}

/// So an agent refuses a config that is of another version than itself.
const UNREADABLE: &str = "agent.config.malformed";

/// Whether this says that a ground is not there at all, so that no cluster can be on it either.
#[must_use]
pub fn is_absent(problem: &Problem) -> bool {
    matches!(problem.code.as_str(), "provider.docker.no_engine" | "provider.docker.no_permission")
}

/// Runs the hidden command of a ground, if these are the arguments of one: processes that make or enter namespaces. Must be
/// called before any thread exists.
#[must_use]
pub fn dispatch(arguments: &[OsString]) -> Option<ExitCode> {
    linux::dispatch(arguments.iter().cloned())
}
