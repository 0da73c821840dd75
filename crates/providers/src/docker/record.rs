//! What a node is made from, as its engine keeps it.
//!
//! ```text
//! container  dev.bivouac.record = {…}                               what it was made from
//! volume     dev.bivouac.record = {…}, dev.bivouac.container = ID   what it was made to be since, while it ran on
//! ```
//!
//! Labels cannot be changed and are told by the lists that are asked for anyway. So a container that is changed gets an empty volume
//! beside it, which takes the place of its label, and another for the next change: the one with the highest number counts, and those
//! of containers that are gone count for nothing.

use std::collections::HashMap;

use bivouac_provider::NodeRequest;
use bivouac_spec::{NodeRecord, Problem};
use bollard::models::{Volume, VolumeCreateRequest};
use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};

use super::engine::Engine;
use super::names;
use super::problem::{OrProblem as _, absent_is_success};

/// A record as a label.
pub(super) fn text(record: &NodeRecord) -> String {
    serde_json::to_string(record).expect("a record has string keys only")
}

/// A record that says of a node that it is being changed: it differs from every other one.
pub(super) fn unfinished(wanted: &NodeRecord) -> NodeRecord {
    NodeRecord { config: String::new(), ..wanted.clone() }
}

/// The record of a container with these labels.
pub(super) fn of(
    container: &str,
    labels: Option<&HashMap<String, String>>,
    volumes: &[Volume],
) -> Option<NodeRecord> {
    let is_about = |volume: &&Volume| {
        volume.labels.get(names::CONTAINER).is_some_and(|about| about == container)
    };
    let newest = volumes.iter().filter(is_about).max_by_key(|volume| number(&volume.name));
    let labels = newest.map_or(labels, |volume| Some(&volume.labels));
    serde_json::from_str(labels?.get(names::RECORD)?).ok()
}

/// Whether a volume holds a record, and no data of a node.
pub(super) fn is_record(volume: &Volume) -> bool {
    volume.labels.contains_key(names::RECORD)
}

fn number(name: &str) -> u32 {
    name.rsplit_once("record-").and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// The records of a node that is made.
pub(super) struct Records<'a> {
    pub(super) engine: &'a Engine,
    pub(super) provider: &'a str,
    pub(super) request: &'a NodeRequest,
}

impl Records<'_> {
    /// The record of the node's container with these labels.
    pub(super) async fn read(
        &self,
        container: &str,
        labels: Option<&HashMap<String, String>>,
    ) -> Result<Option<NodeRecord>, Problem> {
        Ok(of(container, labels, &self.list().await?))
    }

    /// Records what the container is now.
    pub(super) async fn write(&self, container: &str, record: &NodeRecord) -> Result<(), Problem> {
        let before = self.list().await?;
        let (cluster, node) = (&self.request.cluster, &self.request.node);
        let next = before.iter().map(|volume| number(&volume.name) + 1).max().unwrap_or(0);
        let mut labels = names::node_labels(self.provider, cluster, node);
        labels.insert(names::CONTAINER.to_owned(), container.to_owned());
        labels.insert(names::RECORD.to_owned(), text(record));
        let volume = VolumeCreateRequest {
            name: Some(names::record(cluster, node, next)),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        let made = self.engine.docker.create_volume(volume).await;
        made.or_problem("record", format_args!("the state of node {node} cannot be recorded"))?;
        self.remove(&before).await
    }

    /// Removes all records of the node but those that containers have themselves.
    pub(super) async fn clear(&self) -> Result<(), Problem> {
        self.remove(&self.list().await?).await
    }

    async fn remove(&self, volumes: &[Volume]) -> Result<(), Problem> {
        for volume in volumes {
            let options = None::<RemoveVolumeOptions>;
            let removed = self.engine.docker.remove_volume(&volume.name, options).await;
            absent_is_success(removed)
                .or_problem("record", format_args!("volume {} cannot be removed", volume.name))?;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Volume>, Problem> {
        let NodeRequest { cluster, node, .. } = self.request;
        let labels = [
            (names::PROVIDER, self.provider),
            (names::CLUSTER, cluster.as_str()),
            (names::NODE, node.as_str()),
            (names::CONTAINER, ""),
        ];
        let options = ListVolumesOptions { filters: Some(names::filter(labels)) };
        let found = self.engine.docker.list_volumes(Some(options)).await;
        let found =
            found.or_problem("volumes", "the volumes of the container engine cannot be listed")?;
        // Podman lists what has any of these labels.
        let is_own = |volume: &Volume| {
            names::is_of(&volume.labels, self.provider, cluster)
                && volume.labels.get(names::NODE).is_some_and(|it| it == node.as_str())
                && volume.labels.contains_key(names::CONTAINER)
        };
        let mut volumes = found.volumes.unwrap_or_default();
        volumes.retain(is_own);
        Ok(volumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;

    fn record(config: &str) -> NodeRecord {
        NodeRecord { config: config.to_owned(), ..samples::node().record() }
    }

    fn volume(container: &str, number: u32, config: &str) -> Volume {
        let request = samples::node();
        let labels = [
            (names::CONTAINER.to_owned(), container.to_owned()),
            (names::RECORD.to_owned(), text(&record(config))),
        ];
        Volume {
            name: names::record(&request.cluster, &request.node, number),
            labels: labels.into(),
            ..Volume::default()
        }
    }

    #[test]
    fn the_last_change_of_a_container_counts() {
        let labels = HashMap::from([(names::RECORD.to_owned(), text(&record("made")))]);
        let config = |volumes: &[Volume]| of("1", Some(&labels), volumes).unwrap().config;
        assert_eq!(config(&[]), "made");
        assert_eq!(config(&[volume("0", 7, "gone")]), "made");
        let volumes = [volume("1", 10, "last"), volume("1", 9, "first"), volume("0", 11, "gone")];
        assert_eq!(config(&volumes), "last");
        assert!(volumes.iter().all(is_record) && !is_record(&Volume::default()));
        assert_eq!(of("1", Some(&HashMap::new()), &[]), None);
    }

    #[test]
    fn a_node_that_is_being_changed_is_like_no_other() {
        let wanted = samples::node().record();
        assert_ne!(unfinished(&wanted), wanted);
        assert_eq!(text(&wanted).find(char::is_whitespace), None);
    }
}
