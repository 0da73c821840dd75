//! `snapshot restore`: a cluster is what it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bivouac_provider::Provider;
use bivouac_spec::facts::{Applied, ObservedState};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, ClusterName, Facts, Problem, Problems, SnapshotName};
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use super::copy::{Copying, Found, bring, decide};
use super::{Place, Snapshot, Snapshots, ports};
use crate::events::Recording;
use crate::ground::{other_ground, refuse_elsewhere};
use crate::images::ImageChoice;
use crate::prepare::{lock_addresses, occupied};
use crate::{
    ClusterState, Ground, NodeImages, PrepareRequest, Reporter, Restoring, StateDirectory,
    UpOptions, Upped,
};

/// What `snapshot restore` needs.
pub struct RestoreRequest<'a> {
    /// Which cluster. It may be gone.
    pub cluster: &'a ClusterName,
    /// Which of its snapshots.
    pub name: &'a SnapshotName,
    /// Where the cluster was when it was saved.
    pub provider: Arc<dyn Provider>,
    /// The grounds that there are, which may have a cluster of the same name.
    pub grounds: &'a [Ground],
    /// What nodes are made from.
    pub images: &'a dyn NodeImages,
    /// What is known.
    pub state: &'a StateDirectory,
}

/// Makes a cluster what it was when it was saved. What it is now is lost. Run again after any failure, it starts over.
///
/// # Errors
/// When there is no such snapshot, or it cannot be restored here: the cluster is untouched then. When a node cannot be made or does not
/// take its data; when the cluster is not usable in time.
pub async fn restore(
    request: &RestoreRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let (cluster, state) = (request.cluster, request.state);
    let lock = state.lock(cluster, options.verb)?;
    let recording = Recording::begin(state, cluster, options.verb, reporter);
    let restored = restore_locked(request, options, recording.reporter(), cancel).await;
    recording.end(&restored);
    if restored.is_err() && !state.knows(cluster) {
        // Nothing was there, and nothing was begun.
        let _ = lock.remove();
        state.remove_if_empty();
    }
    restored
}

async fn restore_locked(
    request: &RestoreRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let (name, place) = (request.cluster, Place::Named(request.name.clone()));
    let snapshots = Snapshots::of(request.state);
    let snapshot = snapshots.read(name, request.name)?;
    let keys = snapshots.keys(name, &place)?;
    snapshots.check(&snapshot, &place)?;
    let known = request.state.read(name)?;
    refuse_other_way(name, &snapshot, known.as_ref())?;
    let cluster = &snapshot.state.applied.cluster;
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let making = PrepareRequest {
        cluster,
        provider: Arc::clone(&request.provider),
        grounds: request.grounds,
        stack: stack.as_ref(),
        images: request.images,
        state: request.state,
        node_image: ImageChoice::Own,
        now: SystemTime::now(),
    };
    let (survey, observed, elsewhere) = tokio::join!(
        request.provider.survey(),
        request.provider.observe(),
        refuse_elsewhere(cluster, request.grounds, known.as_ref()),
    );
    let (survey, observed) = (survey?, observed?);
    Problems::check(survey.unmet())?;
    elsewhere?;
    let other = other_ground(name, known.as_ref().unwrap_or(&snapshot.state), &survey.facts);
    Problems::check(other.into_iter().collect())?;
    let data = format!("snapshot `{}`", snapshot.name);
    refuse_without_room(&data, snapshot.size, &survey.facts)?;
    let own = observed.iter().find(|observed| observed.name == *name).cloned();
    if !survey.facts.remote {
        let runs = own.iter().flat_map(|own| own.nodes.values());
        let runs = runs.into_iter().any(|node| node.state == ObservedState::Running);
        let known = known.as_ref().filter(|_| runs);
        let held = known.map_or(&[][..], |known| &known.applied.cluster.spec.ports);
        ports::refuse_taken(&cluster.spec.ports, held)?;
    }
    let image = bring(&making, &snapshot.state.image, options, reporter, cancel).await?;
    let free = lock_addresses(request.state).await?;
    let existing = known.as_ref().filter(|_| own.is_some()).map(|state| &state.applied.addresses);
    let occupied = occupied(&making, &survey, &observed, existing)?;
    refuse_occupied(&snapshot, &occupied)?;
    let state = restored(&snapshot, known.as_ref(), &survey.facts);
    let prepared = decide(&making, Found { survey, observed: own }, keys, state)?;
    // From here on nothing else is done with it before this has come to its end.
    request.state.write(&prepared.state)?;
    request.state.write_keys(name, &prepared.keys)?;
    drop(free);
    let copying = Copying {
        request: &making,
        options,
        snapshots: &snapshots,
        snapshot: &snapshot,
        place: &place,
        prepared: &prepared,
        image: &image,
        shared: None,
        steps: &[],
        joining: &BTreeSet::new(),
        reporter,
        cancel,
    };
    copying.make().await
}

/// The record of a cluster that is being restored.
fn restored(snapshot: &Snapshot, known: Option<&ClusterState>, facts: &Facts) -> ClusterState {
    let before = &snapshot.state;
    ClusterState {
        applied: Applied { completed: None, ..before.applied.clone() },
        facts: facts.clone(),
        kubeconfig: known.and_then(|known| known.kubeconfig.clone()),
        kubeconfig_made: known.is_some_and(|known| known.kubeconfig_made),
        remote: known.and_then(|known| known.remote.clone()),
        restoring: Some(Restoring {
            cluster: snapshot.cluster().clone(),
            snapshot: Some(snapshot.name.clone()),
        }),
        ..before.clone()
    }
}

/// Refuses to make another cluster of the one that has the name.
fn refuse_other_way(
    name: &ClusterName,
    snapshot: &Snapshot,
    known: Option<&ClusterState>,
) -> Result<(), Problem> {
    let Some(known) = known else { return Ok(()) };
    if let Some(restoring) = known.restoring.as_ref().filter(|it| it.cluster != *name) {
        return Err(restoring.refusal(name));
    }
    let (now, then) =
        (&known.applied.cluster.spec.provider, &snapshot.state.applied.cluster.spec.provider);
    if now == then {
        return Ok(());
    }
    let saved = &snapshot.name;
    let message = if now.name() == then.name() {
        format!(
            "snapshot `{saved}` was saved on another {} than that of cluster `{name}`",
            now.name()
        )
    } else {
        format!(
            "snapshot `{saved}` was saved on {}, and cluster `{name}` is on {} now",
            then.name(),
            now.name()
        )
    };
    Err(Problem::usage("snapshot.other_provider", message).help(format!(
        "remove the cluster with `bivouac down {name}` first, then restore the snapshot where it was saved"
    )))
}

/// Refuses what does not fit on the disk, beside what is there.
pub(super) fn refuse_without_room(what: &str, size: u64, facts: &Facts) -> Result<(), Problem> {
    if size <= facts.disk_free.0 {
        return Ok(());
    }
    let mebibytes = |bytes: u64| Bytes(bytes.div_ceil(1 << 20) << 20);
    let (needed, free) = (mebibytes(size), Bytes(facts.disk_free.0 >> 20 << 20));
    let message = format!("the data of {what} needs {needed} of free disk, the ground has {free}");
    Err(Problem::new(Class::Unfit, "snapshot.no_room", message)
        .help("free disk space where nodes live, for example with `bivouac image prune` or `bivouac snapshot delete`"))
}

/// A cluster keeps its networks for its whole life: somebody else may have taken those of one that is gone.
fn refuse_occupied(snapshot: &Snapshot, occupied: &BTreeMap<IpNet, String>) -> Result<(), Problem> {
    let overlap = |one: &IpNet, other: &IpNet| {
        other.prefix_len() > 0 && (one.contains(other) || other.contains(one))
    };
    for network in snapshot.state.applied.addresses.networks() {
        let Some((other, by)) = occupied.iter().find(|(other, _)| overlap(&network, other)) else {
            continue;
        };
        let (name, cluster) = (&snapshot.name, snapshot.cluster());
        let message = format!(
            "snapshot `{name}` has the network `{network}`, which overlaps `{other}`: {by}"
        );
        return Err(Problem::usage("snapshot.network_occupied", message).help(format!(
            "make another cluster of it with `bivouac fork NEW {cluster} --snapshot {name}`, which has networks of its own"
        )));
    }
    Ok(())
}
