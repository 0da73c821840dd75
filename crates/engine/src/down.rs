//! `down`: removes a cluster, whole or in part, and everything of it.

use std::sync::Arc;

use bivouac_plan::{Action, plan_down};
use bivouac_provider::Provider;
use bivouac_spec::{ClusterName, Problem, Problems, SnapshotName};

use crate::access::remove_access;
use crate::events::Recording;
use crate::ground::refuse_other_ground;
use crate::kubeconfig::UserFile;
use crate::remote::remove_remote;
use crate::snapshot::Place;
use crate::{ClusterLock, Event, Reporter, Snapshots, StateDirectory};

/// What `down` needs.
pub struct DownRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// What is known.
    pub state: &'a StateDirectory,
    /// The user's kubeconfig file, for a cluster whose state does not say where its context is.
    pub kubeconfig: Option<UserFile>,
}

/// What a `down` came to.
#[derive(Debug)]
pub struct Downed {
    /// What was removed; empty when there was nothing.
    pub actions: Vec<Action>,
}

/// Removes a cluster. There may be nothing of it.
///
/// # Errors
/// When it was made on another ground (nothing is removed then), or something of it is left, after everything else was removed.
pub async fn down(request: &DownRequest<'_>, reporter: &Reporter) -> Result<Downed, Problems> {
    let cluster = request.cluster;
    let lock = request.state.lock(cluster, "down")?;
    let recording = Recording::begin(request.state, cluster, "down", reporter);
    let downed = down_locked(request, lock, recording.reporter()).await;
    recording.end(&downed);
    downed
}

async fn down_locked(
    request: &DownRequest<'_>,
    lock: ClusterLock,
    reporter: &Reporter,
) -> Result<Downed, Problems> {
    let cluster = request.cluster;
    // A state of another format still has its cluster removed: only the user's file must be named by hand then.
    let known = request.state.read(cluster).ok().flatten();
    refuse_other_ground(cluster, request.provider.as_ref(), known.as_ref()).await?;
    let observed = request.provider.observe().await?;
    let plan = plan_down(cluster, observed.iter().find(|observed| observed.name == *cluster));
    reporter
        .report(Event::Planned { actions: plan.actions.iter().map(Action::describe).collect() });
    // Asked even when nothing was observed: whatever the ground still has of the cluster goes.
    let mut problems: Vec<Problem> =
        request.provider.destroy_cluster(cluster).await.err().into_iter().collect();
    if problems.is_empty() {
        for node in plan.actions.iter().filter_map(Action::node) {
            reporter.report(Event::NodeRemoved { node: node.clone() });
        }
    }
    problems.extend(remove_access(cluster, known.as_ref(), request.kubeconfig.as_ref()).err());
    if let Some(path) = known.as_ref().and_then(|state| state.remote.clone()) {
        let owner = request.kubeconfig.as_ref().and_then(|file| file.owner);
        problems.extend(remove_remote(cluster, &UserFile { path, owner }).err());
    }
    if let Some(restoring) = known.as_ref().and_then(|state| state.restoring.as_ref())
        && let place @ Place::ForFork(_) = restoring.place(cluster)
    {
        problems.extend(Snapshots::of(request.state).remove(&restoring.cluster, &place).err());
    }
    tell_snapshots(request, reporter);
    // A cluster of which something is left stays known, so that the next `down` finds it.
    if problems.is_empty() {
        problems.extend(request.state.remove(cluster).err());
        problems.extend(lock.remove().err());
        request.state.remove_if_empty();
    }
    Problems::check(problems)?;
    Ok(Downed { actions: plan.actions })
}

/// Snapshots are kept: a cluster can be restored after it was removed.
fn tell_snapshots(request: &DownRequest<'_>, reporter: &Reporter) {
    let cluster = request.cluster;
    // What cannot be read cannot be told of; nothing else depends on it.
    let names = Snapshots::of(request.state).names(cluster).unwrap_or_default();
    let names: Vec<&str> = names.iter().map(SnapshotName::as_str).collect();
    if names.is_empty() {
        return;
    }
    let (noun, listed) =
        (if names.len() == 1 { "snapshot" } else { "snapshots" }, names.join(", "));
    let delete = format!("bivouac snapshot delete -c {cluster} {}", names.join(" "));
    let note = format!(
        "{noun} {listed} of cluster {cluster} can still be restored; `{delete}` removes what is kept of it"
    );
    reporter.report(Event::Noted { note });
}
