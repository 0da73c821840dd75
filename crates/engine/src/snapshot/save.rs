//! `snapshot save`: what a cluster is at this moment.

use std::sync::Arc;
use std::time::Instant;

use bivouac_provider::Provider;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{
    Class, ClusterName, NodeName, ObservedCluster, Problem, Problems, SnapshotName,
};
use camino::Utf8Path;
use tokio_util::sync::CancellationToken;

use super::agent::{Saving, Tally};
use super::{Place, Snapshot, Snapshots};
use crate::events::Recording;
use crate::follow::interrupted;
use crate::ground::refuse_other_ground;
use crate::transfer::Transfer;
use crate::{ClusterState, Event, Reporter, StateDirectory};

/// What `snapshot save` needs.
pub struct SaveRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// What the snapshot is to be called.
    pub name: &'a SnapshotName,
    /// Where the cluster runs.
    pub provider: Arc<dyn Provider>,
    /// What is known.
    pub state: &'a StateDirectory,
}

/// Saves a cluster, which runs and goes on running.
///
/// # Errors
/// When there is no such cluster, or not all of it runs, or the name is taken; when a node cannot be paused or copied, or the disk is
/// full. Nothing stays then.
pub async fn save(
    request: &SaveRequest<'_>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Snapshot, Problems> {
    let cluster = request.cluster;
    if !request.state.knows(cluster) {
        return Err(unknown_cluster(cluster).into());
    }
    let _lock = request.state.lock(cluster, "snapshot save")?;
    let recording = Recording::begin(request.state, cluster, "snapshot save", reporter);
    let saved = save_locked(request, recording.reporter(), cancel).await;
    recording.end(&saved);
    saved
}

async fn save_locked(
    request: &SaveRequest<'_>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Snapshot, Problems> {
    let (cluster, place) = (request.cluster, Place::Named(request.name.clone()));
    let snapshots = Snapshots::of(request.state);
    snapshots.sweep(cluster)?;
    if snapshots.has(cluster, &place) {
        let name = request.name;
        let message = format!("cluster `{cluster}` has a snapshot `{name}` already");
        return Err(Problem::usage("snapshot.name_taken", message)
            .help(format!("name another, or remove that one with `bivouac snapshot delete {name} -c {cluster}`"))
            .into());
    }
    let state = whole_cluster(cluster, request.provider.as_ref(), request.state).await?;
    let provider = request.provider.as_ref();
    let source = Source { state: &state, provider, fits: &|_| Ok(()), reporter, cancel };
    source.save(&snapshots, request.state, &place).await
}

pub(super) fn unknown_cluster(cluster: &ClusterName) -> Problem {
    let message = format!("the state folder knows nothing of cluster `{cluster}`");
    Problem::usage("engine.no_cluster", message).help("see what there is with `bivouac list`")
}

/// What is recorded of a cluster, all of which runs.
pub(super) async fn whole_cluster(
    cluster: &ClusterName,
    provider: &dyn Provider,
    directory: &StateDirectory,
) -> Result<ClusterState, Problems> {
    let known = directory.read(cluster)?.ok_or_else(|| unknown_cluster(cluster))?;
    if let Some(restoring) = &known.restoring {
        return Err(restoring.refusal(cluster).into());
    }
    refuse_other_ground(cluster, provider, Some(&known)).await?;
    let applied = &known.applied;
    let observed = provider.observe().await?;
    let observed = observed.into_iter().find(|observed| observed.name == *cluster);
    let down: Vec<String> =
        absent(&known, observed.as_ref()).map(|node| format!("`{node}`")).collect();
    if !down.is_empty() {
        let (nodes, is) = (down.join(", "), if down.len() == 1 { "does" } else { "do" });
        let message = format!(
            "cluster `{cluster}` cannot be saved: {nodes} {is} not run, and a part of it is nothing whole"
        );
        return Err(Problem::failed("snapshot.not_running", message)
            .help(format!("run `bivouac start {cluster}`, then the same command again"))
            .into());
    }
    if applied.completed.as_deref() != Some(&applied.cluster) {
        let message = format!("the last change of cluster `{cluster}` did not come to its end");
        return Err(Problem::failed("snapshot.unfinished", message)
            .help(format!("run `bivouac up {cluster}` to finish it, then the same command again"))
            .into());
    }
    Ok(known)
}

/// The nodes that do not run.
fn absent<'a>(
    state: &ClusterState,
    observed: Option<&'a ObservedCluster>,
) -> impl Iterator<Item = NodeName> + use<'a> {
    let nodes = state.applied.cluster.nodes().into_iter().map(|node| node.name);
    nodes.filter(move |name| {
        let node = observed.and_then(|observed| observed.nodes.get(name));
        node.is_none_or(|node| node.state != ObservedState::Running)
    })
}

/// A cluster that is saved. Its lock is held.
pub(super) struct Source<'a> {
    pub(super) state: &'a ClusterState,
    pub(super) provider: &'a dyn Provider,
    /// Refuses so many bytes, before anything is copied.
    pub(super) fits: &'a (dyn Fn(u64) -> Result<(), Problem> + Sync),
    pub(super) reporter: &'a Reporter,
    pub(super) cancel: &'a CancellationToken,
}

impl Source<'_> {
    /// Saves it in this place. Nothing stays there when that does not work.
    pub(super) async fn save(
        &self,
        snapshots: &Snapshots,
        directory: &StateDirectory,
        place: &Place,
    ) -> Result<Snapshot, Problems> {
        let cluster = self.state.applied.cluster.name();
        let keys = directory.read_keys(cluster)?.ok_or_else(|| {
            Problem::failed("snapshot.no_keys", format!("there are no keys of cluster `{cluster}`"))
                .help(format!("run `bivouac up {cluster}`, then the same command again"))
        })?;
        snapshots.begin(cluster, place)?;
        let saved = tokio::select! {
            biased;
            () = self.cancel.cancelled() => {
                Err(interrupted("stopped before all of the cluster was saved").into())
            }
            saved = self.data(snapshots, place) => saved,
        };
        let saved = saved.and_then(|snapshot| {
            snapshots.finish(&snapshot, &keys, place)?;
            Ok(snapshot)
        });
        match &saved {
            // Why it could not be saved is what is told; what cannot be removed is by the next.
            Err(_) => drop(snapshots.remove(cluster, place)),
            Ok(snapshot) => self.reporter.report(Event::Saved {
                snapshot: snapshot.name.clone(),
                size: snapshot.size,
                paused_for: snapshot.paused_for,
            }),
        }
        saved
    }

    /// The data of all nodes.
    async fn data(&self, snapshots: &Snapshots, place: &Place) -> Result<Snapshot, Problems> {
        // Where the user's files are means nothing later.
        let state = ClusterState {
            kubeconfig: None,
            kubeconfig_made: false,
            remote: None,
            ..self.state.clone()
        };
        let mut snapshot = Snapshot::new(place.name(), state);
        let cluster = snapshot.cluster().clone();
        let folders = bivouac_stacks::open(&snapshot.state.applied.cluster.spec.stack).data();
        let nodes = snapshot.state.applied.cluster.nodes().into_iter();
        let nodes = nodes.map(|node| async {
            let node = node;
            self.provider.open_node(&cluster, &node.name).await
        });
        let nodes = futures::future::try_join_all(nodes).await?;
        let saving = nodes.iter().map(|node| Saving::begin(Arc::clone(node), &folders));
        let mut saving = all_of(futures::future::join_all(saving).await)?;
        let expected = saving.iter().map(|node| node.bytes).fold(0, u64::saturating_add);
        refuse_full(&snapshots.path(&cluster, place), expected)?;
        (self.fits)(expected)?;
        let started = Instant::now();
        // When one cannot be, all go on.
        let paused = futures::future::join_all(saving.iter_mut().map(Saving::pause)).await;
        all_of(paused)?;
        let copied = futures::future::join_all(saving.iter_mut().map(Saving::copy)).await;
        let copied = all_of(copied)?;
        let whole = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        snapshot.paused_for =
            copied.iter().map(|(paused_for, _)| *paused_for).max().unwrap_or(whole).min(whole);
        let transfer =
            Transfer::new(format!("data of {cluster}, {}", count(nodes.len())), self.reporter);
        let total = copied.iter().map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        refuse_full(&snapshots.path(&cluster, place), total)?;
        let tally = Tally::new(&transfer, total);
        let sent = nodes.iter().zip(saving).map(|(node, saving)| {
            let path = snapshots.data(&cluster, place, node.name());
            let tally = &tally;
            async move { saving.send(&path, tally).await }
        });
        let sent = all_of(futures::future::join_all(sent).await);
        transfer.ended(sent.is_ok());
        let names = nodes.iter().map(|node| node.name().clone());
        snapshot.nodes = names.zip(sent?).collect();
        snapshot.size = snapshot.nodes.values().sum();
        Ok(snapshot)
    }
}

/// Refuses what the disk of this folder has no room for, before it is full.
fn refuse_full(folder: &Utf8Path, needed: u64) -> Result<(), Problem> {
    // Where it cannot be told, writing will.
    let Ok(stat) = rustix::fs::statvfs(folder.as_std_path()) else { return Ok(()) };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if needed <= free {
        return Ok(());
    }
    let (needed, free) = (Bytes(needed.div_ceil(1 << 20) << 20), Bytes(free >> 20 << 20));
    let message = format!("the snapshot needs {needed} of disk, and {free} are free at {folder}");
    Err(Problem::new(Class::Unfit, "snapshot.disk_full", message)
        .help("free some disk, for example with `bivouac snapshot delete` or `bivouac image prune`, or keep state elsewhere with `--state-dir`"))
}

pub(super) fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") }
}

/// What all gave, or everything that any of them complained of.
pub(super) fn all_of<T>(outcomes: Vec<Result<T, Problem>>) -> Result<Vec<T>, Problems> {
    let (mut values, mut problems) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok(value) => values.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    Problems::check(problems)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_has_no_room_for_is_refused() {
        refuse_full("/".into(), 0).unwrap();
        let refused = refuse_full("/".into(), u64::MAX >> 1).unwrap_err();
        assert_eq!(refused.code, "snapshot.disk_full");
        assert!(refused.message.contains("are free at /"), "{refused:?}");
    }
}
