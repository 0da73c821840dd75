//! `snapshot delete`.

use bivouac_spec::{ClusterName, Problem, Problems, SnapshotName};

use super::{Place, Snapshots};
use crate::StateDirectory;

/// What `snapshot delete` needs.
pub struct DeleteRequest<'a> {
    /// Whose snapshots. The cluster may be gone.
    pub cluster: &'a ClusterName,
    /// Which.
    pub names: &'a [SnapshotName],
    /// Where they are.
    pub state: &'a StateDirectory,
}

/// Deletes snapshots: all, or none where one of the names is unknown.
///
/// # Errors
/// When a name is unknown, a cluster is being made from it, or it cannot be removed.
pub fn delete_snapshots(request: &DeleteRequest<'_>) -> Result<(), Problems> {
    let (cluster, state) = (request.cluster, request.state);
    let lock = state.lock(cluster, "snapshot delete")?;
    let deleted = delete_locked(request);
    if !state.knows(cluster) {
        // The cluster is gone: so is what it was locked by.
        let _ = lock.remove();
        state.remove_if_empty();
    }
    deleted
}

fn delete_locked(request: &DeleteRequest<'_>) -> Result<(), Problems> {
    let (cluster, snapshots) = (request.cluster, Snapshots::of(request.state));
    snapshots.sweep(cluster)?;
    let mut problems = Vec::new();
    for name in request.names {
        let place = Place::Named(name.clone());
        if snapshots.has(cluster, &place) {
            problems.extend(in_use(request, name)?);
        } else {
            problems.extend(snapshots.read(cluster, name).err());
        }
    }
    Problems::check(problems)?;
    for name in request.names {
        snapshots.remove(cluster, &Place::Named(name.clone()))?;
    }
    Ok(())
}

/// A cluster that is being made from it would never be finished without it.
fn in_use(request: &DeleteRequest<'_>, name: &SnapshotName) -> Result<Option<Problem>, Problem> {
    for other in request.state.clusters()? {
        // What cannot be read is told by every command about that cluster.
        let Ok(Some(known)) = request.state.read(&other) else { continue };
        let Some(restoring) = known.restoring else { continue };
        if restoring.cluster == *request.cluster && restoring.snapshot.as_ref() == Some(name) {
            let message = format!("cluster `{other}` is being made from snapshot `{name}`");
            let command = restoring.command(&other);
            return Ok(Some(Problem::usage("snapshot.in_use", message).help(format!(
                "finish that with `{command}`, or remove the cluster with `bivouac down {other}`"
            ))));
        }
    }
    Ok(None)
}
