//! `up`: makes a cluster, or makes it whole again, and waits until it is usable.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bivouac_plan::Action;
use bivouac_provider::Node;
use bivouac_spec::facts::Applied;
use bivouac_spec::{NodeName, Problem, Problems};
use bivouac_stacks::{Access, Change, IncusAccess};
use camino::Utf8PathBuf;
use tokio_util::sync::CancellationToken;

use crate::access::{merge_access, reachable_kubeconfig, remember_access};
use crate::events::Recording;
use crate::follow::{Until, follow_until};
use crate::ground::refuse_other_ground;
use crate::images::ImageChoice;
use crate::kubeconfig::UserFile;
use crate::make::Making;
use crate::prepare::prepare_and_record;
use crate::remote::merge_remote;
use crate::steps::run_steps;
use crate::upgrade::take_back;
use crate::{ClusterState, PrepareRequest, Prepared, Reporter};

/// How an `up` is done.
pub struct UpOptions {
    /// The static binary that becomes the nodes' agent.
    pub agent: Utf8PathBuf,
    /// The kubeconfig file that the access is merged into.
    pub kubeconfig: Option<UserFile>,
    /// The configuration of the `incus` client that the access is entered into.
    pub remotes: Option<UserFile>,
    /// The name of the verb, for those who wait for it to end.
    pub verb: &'static str,
    /// Only these nodes; all when empty.
    pub only: BTreeSet<NodeName>,
    /// How long the nodes may take to be usable, once they are started.
    pub timeout: Duration,
}

/// What an `up` came to.
#[derive(Debug)]
pub struct Upped {
    /// What was done; empty when the cluster already was as asked.
    pub actions: Vec<Action>,
    /// The cluster and its version in a few words, from the stack.
    pub description: String,
    /// How many nodes it has.
    pub nodes: usize,
}

/// Makes a cluster what its file says. Run again after any failure, it goes on where it was.
///
/// # Errors
/// Everything of [`prepare`](crate::prepare()); a change that cannot be applied (nothing is changed then); a node that cannot be
/// made; a cluster that is not usable in time.
pub async fn up(
    request: &PrepareRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let cluster = request.cluster.name();
    let lock = match request.state.lock(cluster, options.verb) {
        Ok(lock) => lock,
        Err(problem) => {
            // Whoever may not write the state lacks more than that: all of it at once.
            Problems::check(request.provider.survey().await?.unmet())?;
            return Err(problem.into());
        }
    };
    let recording = Recording::begin(request.state, cluster, options.verb, reporter);
    let upped = up_locked(request, options, recording.reporter(), cancel).await;
    if upped.is_err() {
        forget_what_never_was(request).await;
    }
    recording.end(&upped);
    if upped.is_err() && !request.state.knows(cluster) {
        // Nothing of it stays. The refusal is what is told.
        let _ = lock.remove();
        request.state.remove_if_empty();
    }
    upped
}

/// Takes back what was recorded, when nothing came of it on the ground and the user's kubeconfig knows nothing of it: a record alone
/// would look like a cluster whose nodes are lost.
async fn forget_what_never_was(request: &PrepareRequest<'_>) {
    let cluster = request.cluster.name();
    let Ok(Some(recorded)) = request.state.read(cluster) else { return };
    // One that is being restored has been: its data is in a snapshot.
    if recorded.restoring.is_some() {
        return;
    }
    // What this ground says tells nothing of a cluster that was made on another.
    let settings = &recorded.applied.cluster.spec.provider;
    let provider = request.provider.as_ref();
    if *settings != request.cluster.spec.provider
        || refuse_other_ground(cluster, provider, Some(&recorded)).await.is_err()
    {
        return;
    }
    let Ok(observed) = provider.observe().await else { return };
    if recorded.kubeconfig.is_none()
        && recorded.remote.is_none()
        && observed.iter().all(|other| other.name != *cluster)
    {
        // What cannot be removed is found by `down`.
        let _ = request.state.remove(cluster);
    }
}

async fn up_locked(
    request: &PrepareRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let prepared = prepare_and_record(request, &options.only, reporter).await?;
    // Where nothing was to be made, there is nothing of this run to be taken back.
    let is_taken_back = request.node_image == ImageChoice::Current && !prepared.plan.is_empty();
    let upped = carry_out(request, options, prepared, reporter, cancel).await;
    match upped {
        Err(problems) if is_taken_back => {
            Err(take_back(request, options, reporter, cancel, problems).await)
        }
        upped => upped,
    }
}

/// Does what was decided, and waits until all of it is usable.
pub(crate) async fn carry_out(
    request: &PrepareRequest<'_>,
    options: &UpOptions,
    mut prepared: Prepared,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    if !prepared.plan.is_empty() || !prepared.state.applied.returned.is_empty() {
        Making { request, options, prepared: &prepared, reporter, cancel }.make().await?;
    }
    let is_asked = |node: &NodeName| options.only.is_empty() || options.only.contains(node);
    let nodes = open_nodes(request, prepared.wanted.nodes.keys().filter(|node| is_asked(node)));
    let nodes = nodes.await?;
    follow_until(Until::Usable, &nodes, options.timeout, reporter, cancel).await?;
    if options.only.is_empty() {
        complete(request, &mut prepared, reporter).await?;
    }
    give_access(request, options, &prepared).await?;
    Ok(Upped {
        description: request.stack.describe(),
        nodes: nodes.len(),
        actions: prepared.plan.actions,
    })
}

/// Enters the access where the user's client for it looks.
pub(crate) async fn give_access(
    request: &PrepareRequest<'_>,
    options: &UpOptions,
    prepared: &Prepared,
) -> Result<(), Problem> {
    let access = request.stack.access(&prepared.state.render_request(), &prepared.keys)?;
    match (&access, &options.kubeconfig, &options.remotes) {
        (Access::Kubernetes(_), Some(file), _) => {
            give_kubeconfig(request, file, prepared, &access).await
        }
        (Access::Incus(incus), _, Some(file)) => give_remote(request, file, prepared, incus).await,
        _ => Ok(()),
    }
}

async fn give_remote(
    request: &PrepareRequest<'_>,
    file: &UserFile,
    prepared: &Prepared,
    access: &IncusAccess,
) -> Result<(), Problem> {
    let node = request.provider.open_node(&access.cluster, &access.node).await?;
    let at = node.forward(access.address.port()).await?;
    let state = ClusterState { remote: Some(file.path.clone()), ..prepared.state.clone() };
    if state != prepared.state {
        request.state.write(&state)?;
    }
    merge_remote(file, access, at)
}

async fn give_kubeconfig(
    request: &PrepareRequest<'_>,
    file: &UserFile,
    prepared: &Prepared,
    access: &Access,
) -> Result<(), Problem> {
    let kubeconfig = reachable_kubeconfig(request.provider.as_ref(), access).await?;
    let Some(kubeconfig) = kubeconfig else { return Ok(()) };
    // Before the file is changed: `down` must find what an `up` that was killed here has put into it.
    let state = remember_access(request.state, file, &prepared.state);
    if state != prepared.state {
        request.state.write(&state)?;
    }
    merge_access(file, &kubeconfig)
}

async fn open_nodes(
    request: &PrepareRequest<'_>,
    nodes: impl Iterator<Item = &NodeName>,
) -> Result<Vec<Arc<dyn Node>>, Problem> {
    let cluster = request.cluster.name();
    let nodes = nodes.map(|node| request.provider.open_node(cluster, node));
    futures::future::try_join_all(nodes).await
}

/// All of the cluster is as it was asked for: what is left to be done once is done, and that is recorded.
async fn complete(
    request: &PrepareRequest<'_>,
    prepared: &mut Prepared,
    reporter: &Reporter,
) -> Result<(), Problems> {
    let applied = &prepared.state.applied;
    let changed = applied.completed.as_deref().filter(|before| **before != applied.cluster);
    let has_image = prepared.state.completed_image.as_ref() == Some(&prepared.state.image);
    let is_same = applied.completed.is_some() && changed.is_none() && has_image;
    if is_same && !prepared.state.remaking {
        return Ok(());
    }
    let render = prepared.state.render_request();
    let nodes: BTreeSet<NodeName> = prepared.wanted.nodes.keys().cloned().collect();
    let mut steps = Vec::new();
    if prepared.state.remaking && applied.completed.is_some() {
        // What an earlier run has left: nodes that it took out of work.
        let all: Vec<&NodeName> = nodes.iter().collect();
        steps.extend(request.stack.steps(&render, &Change::Remade(&all))?);
    }
    if let Some(before) = changed {
        steps.extend(request.stack.steps(&render, &Change::Changed(before))?);
    }
    run_steps(request.provider.as_ref(), request.cluster.name(), &nodes, &steps, reporter).await?;
    prepared.state.remaking = false;
    prepared.state.completed_image = Some(prepared.state.image.clone());
    let applied = &mut prepared.state.applied;
    applied.completed = Some(Box::new(applied.cluster.clone()));
    applied.returned.clear();
    // Who was let go was recorded at that moment.
    applied.members = Applied::new(applied.cluster.clone(), applied.addresses.clone()).members;
    request.state.write(&prepared.state)?;
    Ok(())
}
