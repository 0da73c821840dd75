//! Stopping and removing. What is absent is success.

use std::time::Duration;

use bivouac_spec::{ClusterName, NodeName, Problem};
use bollard::query_parameters::{
    RemoveContainerOptions, RemoveVolumeOptions, StopContainerOptions,
};

use super::engine::Engine;
use super::observe::{Found, find, node_of};
use super::problem::{OrProblem as _, absent_is_success, join, status};

/// How much longer than its grace a container may take to be gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of this provider.
pub(super) struct Removal<'a> {
    pub(super) engine: &'a Engine,
    pub(super) provider: &'a str,
    pub(super) cluster: &'a ClusterName,
}

impl Removal<'_> {
    /// Stops a node; its restart policy leaves it so.
    pub(super) async fn stop(&self, node: &NodeName, grace: Duration) -> Result<(), Problem> {
        let found = find(self.engine, self.provider, Some(self.cluster)).await?;
        let docker = self.engine.docker.clone().with_timeout(grace + PATIENCE);
        for id in containers(&found, Some(node)) {
            let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptions { t: Some(seconds), signal: None };
            absent_is_success(docker.stop_container(&id, Some(options)).await).or_problem(
                "stop",
                format_args!("node {node} of cluster {} cannot be stopped", self.cluster),
            )?;
        }
        Ok(())
    }

    /// Removes a node and its data.
    pub(super) async fn node(&self, node: &NodeName) -> Result<(), Problem> {
        let found = find(self.engine, self.provider, Some(self.cluster)).await?;
        self.parts(&found, Some(node)).await
    }

    /// Removes everything.
    pub(super) async fn all(&self) -> Result<(), Problem> {
        let found = find(self.engine, self.provider, Some(self.cluster)).await?;
        let nodes = self.parts(&found, None).await;
        // Last: the engine keeps a network while anything is on it.
        let networks = found.networks.iter().filter_map(|network| network.id.as_deref());
        let removals = networks.map(async |id| {
            let removed = self.engine.docker.remove_network(id).await;
            absent_is_success(removed).map(drop).or_problem(
                "network",
                format_args!("the network of cluster {} cannot be removed", self.cluster),
            )
        });
        let removed = futures::future::join_all(removals).await;
        join(removed.into_iter().chain([nodes]).filter_map(Result::err).collect())
    }

    /// Containers, all at the same time, and then their volumes.
    async fn parts(&self, found: &Found, node: Option<&NodeName>) -> Result<(), Problem> {
        let removals = containers(found, node).into_iter().map(|id| self.container(id));
        let mut results = futures::future::join_all(removals).await;
        let volumes = found.volumes.iter().filter(|volume| is_of(node, &volume.labels));
        let removals = volumes.map(|volume| self.volume(&volume.name));
        results.extend(futures::future::join_all(removals).await);
        join(results.into_iter().filter_map(Result::err).collect())
    }

    async fn container(&self, id: String) -> Result<(), Problem> {
        let options =
            RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        let removed = self.engine.docker.remove_container(&id, Some(options)).await;
        match absent_is_success(removed) {
            // Another command removes it: it is gone when its volume can be removed.
            Err(error) if status(&error) == Some(409) => Ok(()),
            other => other.map(drop).or_problem(
                "remove",
                format_args!("container {id} of cluster {} cannot be removed", self.cluster),
            ),
        }
    }

    async fn volume(&self, name: &str) -> Result<(), Problem> {
        let removed = self.engine.docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
        absent_is_success(removed).map(drop).or_problem(
            "remove",
            format_args!("volume {name} of cluster {} cannot be removed", self.cluster),
        )
    }
}

fn containers(found: &Found, node: Option<&NodeName>) -> Vec<String> {
    let own = found
        .containers
        .iter()
        .filter(|container| container.labels.as_ref().is_some_and(|labels| is_of(node, labels)));
    own.filter_map(|container| container.id.clone()).collect()
}

fn is_of(node: Option<&NodeName>, labels: &std::collections::HashMap<String, String>) -> bool {
    node.is_none_or(|node| node_of(labels).as_ref() == Some(node))
}
