//! `up`: makes a cluster, or makes it whole again, and waits until it is usable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bivouac_plan::Action;
use bivouac_provider::{ImageRequest, NetworkRequest, Node, NodeRequest};
use bivouac_spec::{Class, NodeName, Problem, Problems};
use bivouac_stacks::Access;
use camino::Utf8PathBuf;
use tokio_util::sync::CancellationToken;

use crate::access::{merge_access, reachable_kubeconfig, remember_access};
use crate::follow::{follow_until_usable, up_interrupted};
use crate::ground::refuse_other_ground;
use crate::images::bring_image;
use crate::kubeconfig::UserFile;
use crate::ports::{Api, addresses_of_ground, published_ports};
use crate::prepare::prepare_and_record;
use crate::{Event, PrepareRequest, Prepared, Reporter};

/// How an `up` is done.
pub struct UpOptions {
    /// The static binary that becomes the nodes' agent.
    pub agent: Utf8PathBuf,
    /// The kubeconfig file that the access is merged into.
    pub kubeconfig: Option<UserFile>,
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
    let lock = match request.state.lock(cluster, "up") {
        Ok(lock) => lock,
        Err(problem) => {
            // Whoever may not write the state lacks more than that: all of it at once.
            Problems::check(request.provider.survey().await?.unmet())?;
            return Err(problem.into());
        }
    };
    reporter.report(Event::Started { verb: "up".to_owned(), cluster: cluster.clone() });
    let upped = up_locked(request, options, reporter, cancel).await;
    if upped.is_err() {
        forget_what_never_was(request).await;
    }
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
    // What this ground says tells nothing of a cluster that was made on another.
    let settings = &recorded.applied.cluster.spec.provider;
    let provider = request.provider.as_ref();
    if *settings != request.cluster.spec.provider
        || refuse_other_ground(cluster, provider, Some(&recorded)).await.is_err()
    {
        return;
    }
    let Ok(observed) = provider.observe().await else { return };
    if recorded.kubeconfig.is_none() && observed.iter().all(|other| other.name != *cluster) {
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
    let prepared = prepare_and_record(request, reporter).await?;

    let nodes = if prepared.plan.is_empty() {
        open_all(request, &prepared).await?
    } else {
        make(&Making { request, options, prepared: &prepared, reporter }, cancel).await?
    };
    follow_until_usable(&nodes, options.timeout, reporter, cancel).await?;
    if let Some(file) = &options.kubeconfig {
        let access = request.stack.access(&prepared.state.render_request(), &prepared.keys)?;
        let kubeconfig = reachable_kubeconfig(request.provider.as_ref(), &access).await?;
        // Before the file is changed: `down` must find what an `up` that was killed here has put into it.
        let state = remember_access(request.state, file, &prepared.state);
        if state != prepared.state {
            request.state.write(&state)?;
        }
        merge_access(file, &kubeconfig)?;
    }
    Ok(Upped {
        description: request.stack.describe(),
        nodes: nodes.len(),
        actions: prepared.plan.actions,
    })
}

async fn open_all(
    request: &PrepareRequest<'_>,
    prepared: &Prepared,
) -> Result<Vec<Arc<dyn Node>>, Problem> {
    let cluster = request.cluster.name();
    let nodes = prepared.configs.keys().map(|node| request.provider.open_node(cluster, node));
    futures::future::try_join_all(nodes).await
}

/// What nodes are made of.
struct Making<'a> {
    request: &'a PrepareRequest<'a>,
    options: &'a UpOptions,
    prepared: &'a Prepared,
    reporter: &'a Reporter,
}

/// Carries out the plan: image, network, then every node at the same moment.
async fn make(
    making: &Making<'_>,
    cancel: &CancellationToken,
) -> Result<Vec<Arc<dyn Node>>, Problems> {
    let Making { request, options, prepared, reporter } = making;
    let (cluster, provider) = (request.cluster, request.provider.as_ref());
    let image = request.images.ensure(&prepared.state.image, reporter, cancel).await?;
    let go_on = || if cancel.is_cancelled() { Err(up_interrupted()) } else { Ok(()) };
    go_on()?;
    let brought = ImageRequest { image: image.clone(), agent: options.agent.clone() };
    let ground = cluster.spec.provider.name();
    bring_image((ground, provider), &brought, reporter, cancel).await?;
    let Access::Kubernetes(access) =
        request.stack.access(&prepared.state.render_request(), &prepared.keys)?;
    let api = Api { node: &access.node, port: access.address.port() };
    let network = NetworkRequest {
        cluster: cluster.name().clone(),
        addresses: addresses_of_ground(cluster, &prepared.addresses),
        ports: published_ports(cluster, api, prepared.survey.facts.reaches_nodes),
    };
    provider.ensure_network(&network).await?;
    go_on()?;
    let resources: BTreeMap<NodeName, _> =
        cluster.nodes().into_iter().map(|node| (node.name, node.resources)).collect();
    let requests = prepared.configs.iter().map(|(node, config)| NodeRequest {
        cluster: network.cluster.clone(),
        node: node.clone(),
        addresses: network.addresses.clone(),
        ports: network.ports.iter().filter(|port| port.node == *node).cloned().collect(),
        resources: resources.get(node).copied().unwrap_or_default(),
        image: image.clone(),
        agent: options.agent.clone(),
        config: config.clone(),
    });
    make_nodes(making, requests.collect()).await
}

async fn make_nodes(
    making: &Making<'_>,
    requests: Vec<NodeRequest>,
) -> Result<Vec<Arc<dyn Node>>, Problems> {
    let made = requests.iter().map(|node| async move {
        let made = making.request.provider.ensure_node(node).await?;
        making.reporter.report(Event::NodeStarted { node: node.node.clone() });
        Ok(made)
    });
    let (mut nodes, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for outcome in futures::future::join_all(made).await {
        match outcome {
            Ok(node) => nodes.push(node),
            Err(problem) => problems.push(problem),
        }
    }
    if nodes.is_empty() && !problems.is_empty() && making.prepared.is_new {
        // Else what was begun would look like a cluster whose nodes are lost. What it began with is what is told; what cannot be
        // removed is found by `down`.
        let _ = making.request.provider.destroy_cluster(making.request.cluster.name()).await;
    }
    if !nodes.is_empty()
        && let Some(first) = problems.first_mut()
    {
        first.class = Class::Partial;
    }
    Problems::check(problems)?;
    Ok(nodes)
}
