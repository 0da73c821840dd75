//! `stop`: stops a cluster, or nodes of it, and keeps all data. `up` and `start` go on with it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bivouac_plan::note_of_minority;
use bivouac_provider::Provider;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::name::nearest;
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, Problem, Problems};

use crate::events::Recording;
use crate::ground::refuse_other_ground;
use crate::{Event, Reporter, StateDirectory};

/// How long a node's services may take to end.
pub const STOP_GRACE: Duration = Duration::from_secs(20);

/// What `stop` needs.
pub struct StopRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// Only these nodes of it; all when empty.
    pub nodes: &'a BTreeSet<NodeName>,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// What is known.
    pub state: &'a StateDirectory,
}

/// Stops nodes, all at once. Gives those that ran.
///
/// # Errors
/// When there is no such cluster or node, it was made on another ground, or a node does not stop.
pub async fn stop(
    request: &StopRequest<'_>,
    reporter: &Reporter,
) -> Result<Vec<NodeName>, Problems> {
    let cluster = request.cluster;
    let _lock = request.state.lock(cluster, "stop")?;
    let recording = Recording::begin(request.state, cluster, "stop", reporter);
    let stopped = stop_locked(request, recording.reporter()).await;
    recording.end(&stopped);
    stopped
}

async fn stop_locked(
    request: &StopRequest<'_>,
    reporter: &Reporter,
) -> Result<Vec<NodeName>, Problems> {
    let cluster = request.cluster;
    let known = request.state.read(cluster)?;
    let provider = request.provider.as_ref();
    refuse_other_ground(cluster, provider, known.as_ref()).await?;
    let observed = provider.observe().await?;
    let Some(observed) = observed.into_iter().find(|observed| observed.name == *cluster) else {
        let message = format!("there is nothing of cluster `{cluster}` to stop");
        return Err(Problem::usage("engine.no_cluster", message)
            .help("see what there is with `bivouac list`")
            .into());
    };
    check_nodes(&observed, request.nodes)?;
    // Who stops all of it knows that nothing answers then.
    let applied = known.as_ref().map(|known| &known.applied).filter(|_| !request.nodes.is_empty());
    let note = applied.and_then(|applied| note_of_minority(applied, &observed, request.nodes));
    if let Some(note) = note {
        reporter.report(Event::Noted { note });
    }
    let runs = |(name, state): &(&NodeName, ObservedState)| {
        *state == ObservedState::Running
            && (request.nodes.is_empty() || request.nodes.contains(*name))
    };
    let nodes = observed.nodes.iter().map(|(name, node)| (name, node.state)).filter(runs);
    let stopping = nodes.map(|(name, _)| async move {
        provider.stop_node(cluster, name, STOP_GRACE).await?;
        reporter.report(Event::NodeStopped { node: name.clone() });
        Ok::<_, Problem>(name.clone())
    });
    let (mut stopped, mut problems) = (Vec::new(), Vec::new());
    for outcome in futures::future::join_all(stopping).await {
        match outcome {
            Ok(name) => stopped.push(name),
            Err(problem) => problems.push(problem),
        }
    }
    Problems::check(problems)?;
    Ok(stopped)
}

/// Refuses names that the cluster does not have.
pub(crate) fn check_nodes(
    observed: &ObservedCluster,
    nodes: &BTreeSet<NodeName>,
) -> Result<(), Problems> {
    let known: Vec<&str> = observed.nodes.keys().map(NodeName::as_str).collect();
    let unknown = nodes.iter().filter(|node| !observed.nodes.contains_key(*node));
    let problems = unknown.map(|node| {
        let message = format!("cluster `{}` has no node `{node}`", observed.name);
        let help = nearest(node.as_str(), known.iter().copied()).map_or_else(
            || format!("name one of: {}", known.join(", ")),
            |near| format!("name `{near}` if you mean that"),
        );
        Problem::usage("engine.unknown_node", message).help(help)
    });
    Problems::check(problems.collect())
}
