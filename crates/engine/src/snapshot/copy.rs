//! A cluster is made of copied data.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bivouac_plan::{UpRequest, plan_down, plan_up};
use bivouac_provider::{ImagePaths, ImageRequest, Node, NodeRequest};
use bivouac_spec::facts::Survey;
use bivouac_spec::{NodeConfig, NodeName, ObservedCluster, Problem, Problems};
use bivouac_stacks::{Change, Keys, Shared, Step};
use camino::Utf8PathBuf;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;

use super::agent::{Tally, fill};
use super::save::{all_of, count};
use super::store::incomplete;
use super::{Place, Snapshot, Snapshots};
use crate::follow::{Until, follow_until, up_interrupted};
use crate::images::bring_image;
use crate::ports::{Api, check_reachable};
use crate::prepare::report_plan;
use crate::steps::run_steps;
use crate::transfer::Transfer;
use crate::up::give_access;
use crate::wanted::Wanted;
use crate::{ClusterState, Event, PrepareRequest, Prepared, Reporter, UpOptions, Upped};

/// What the ground is like, and what it has of the cluster.
pub(super) struct Found {
    pub(super) survey: Survey,
    pub(super) observed: Option<ObservedCluster>,
}

/// Everything that is decided of a cluster that is made as `state` says, with keys that it had.
///
/// # Errors
/// What keeps it from being made.
pub(super) fn decide(
    request: &PrepareRequest<'_>,
    found: Found,
    keys: Keys,
    state: ClusterState,
) -> Result<Prepared, Problems> {
    let Found { survey, observed } = found;
    let (cluster, facts) = (request.cluster, &survey.facts);
    let render = state.render_request();
    let keys = request.stack.ensure_keys(Some(keys), &render, request.now)?;
    let configs = request.stack.render(&render, &keys)?;
    let access = request.stack.access(&render, &keys)?;
    let api = Api { node: access.node(), port: access.address().port() };
    check_reachable(cluster, api, facts)?;
    let wanted = Wanted::new(cluster, &state.applied.addresses, api, facts, configs);
    let mut plan = plan_up(&UpRequest {
        cluster,
        addresses: &state.applied.addresses,
        applied: None,
        observed: None,
        facts,
        records: &wanted.records(&state.image),
        image: &state.image,
        goes_back: false,
    });
    plan.check()?;
    let removed = plan_down(cluster.name(), observed.as_ref()).actions;
    plan.actions.splice(0..0, removed);
    Ok(Prepared { plan, survey, state, keys, wanted, observed, goes_back: false })
}

/// Has the node image on the ground: what can fail for long is done before anything is given up.
pub(super) async fn bring(
    request: &PrepareRequest<'_>,
    key: &str,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<ImagePaths, Problem> {
    let image = request.images.ensure(key, reporter, cancel).await?;
    let brought = ImageRequest { image: image.clone(), agent: options.agent.clone() };
    let ground = request.cluster.spec.provider.name();
    bring_image((ground, request.provider.as_ref()), &brought, reporter, cancel).await?;
    if cancel.is_cancelled() { Err(up_interrupted()) } else { Ok(image) }
}

/// A cluster that is being made. What it is made from is recorded.
pub(super) struct Copying<'a> {
    pub(super) request: &'a PrepareRequest<'a>,
    pub(super) options: &'a UpOptions,
    pub(super) snapshots: &'a Snapshots,
    pub(super) snapshot: &'a Snapshot,
    pub(super) place: &'a Place,
    pub(super) prepared: &'a Prepared,
    /// Where [`bring`] has it.
    pub(super) image: &'a ImagePaths,
    /// What one node takes from whichever has most of it.
    pub(super) shared: Option<&'a Shared>,
    /// What makes the data that of this cluster.
    pub(super) steps: &'a [Step],
    /// The nodes that join when the others are there.
    pub(super) joining: &'a BTreeSet<NodeName>,
    pub(super) reporter: &'a Reporter,
    pub(super) cancel: &'a CancellationToken,
}

/// Requests for nodes.
type Requests = BTreeMap<NodeName, NodeRequest>;

impl Copying<'_> {
    /// Makes it, from the first node to the user's access.
    pub(super) async fn make(&self) -> Result<Upped, Problems> {
        report_plan(self.prepared, self.reporter);
        let requests = self.furnish().await?;
        let all: Vec<&NodeRequest> = requests.values().collect();
        let bare: Vec<NodeRequest> = all.iter().map(|request| bare(request)).collect();
        let nodes = self.ensure(bare.iter()).await?;
        for node in &nodes {
            self.reporter.report(Event::NodeStarted { node: node.name().clone() });
        }
        self.fill(&nodes).await?;
        self.share(&nodes).await?;
        self.run_steps().await?;
        let joins = |request: &&&NodeRequest| self.joining.contains(&request.node);
        let (joining, first): (Vec<&NodeRequest>, Vec<_>) =
            all.iter().partition(|request| joins(request));
        self.ensure(first.into_iter()).await?;
        for request in joining {
            self.join(request).await?;
        }
        self.go_on()?;
        let within = self.options.timeout;
        follow_until(Until::Usable, &nodes, within, self.reporter, self.cancel).await?;
        give_access(self.request, self.options, self.prepared).await?;
        self.complete()?;
        Ok(Upped {
            description: self.request.stack.describe(),
            nodes: nodes.len(),
            actions: self.prepared.plan.actions.clone(),
        })
    }

    pub(super) fn go_on(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() { Err(up_interrupted()) } else { Ok(()) }
    }

    /// What is there goes; then the network.
    async fn furnish(&self) -> Result<Requests, Problems> {
        let Self { request, options, prepared, reporter, .. } = self;
        let (provider, cluster) = (request.provider.as_ref(), request.cluster.name());
        if let Some(observed) = &prepared.observed {
            provider.destroy_cluster(cluster).await?;
            for node in observed.nodes.keys() {
                reporter.report(Event::NodeRemoved { node: node.clone() });
            }
        }
        provider.ensure_network(&prepared.wanted.network).await?;
        self.go_on()?;
        Ok(prepared.wanted.requests(self.image, &options.agent))
    }

    /// Makes nodes what these say, all at once.
    async fn ensure<'r>(
        &self,
        requests: impl Iterator<Item = &'r NodeRequest>,
    ) -> Result<Vec<Arc<dyn Node>>, Problems> {
        self.go_on()?;
        let made = requests.map(|request| self.request.provider.ensure_node(request));
        all_of(futures::future::join_all(made).await)
    }

    /// Puts its data into each node.
    async fn fill(&self, nodes: &[Arc<dyn Node>]) -> Result<(), Problems> {
        self.go_on()?;
        let folders = self.request.stack.data();
        let transfer = Transfer::new(format!("data to {}", count(nodes.len())), self.reporter);
        let tally = Tally::new(&transfer, self.snapshot.size);
        let filled =
            nodes.iter().map(|node| self.fill_one(node.as_ref(), node.name(), &folders, &tally));
        let filled = self.until_cancelled(futures::future::join_all(filled).map(all_of)).await;
        transfer.ended(filled.is_ok());
        filled.map(drop)
    }

    /// Puts folders of the copy of one node into a node.
    pub(super) async fn fill_one(
        &self,
        node: &dyn Node,
        of: &NodeName,
        folders: &[Utf8PathBuf],
        tally: &Tally<'_>,
    ) -> Result<(), Problem> {
        let cluster = self.snapshot.cluster();
        let path = self.snapshots.data(cluster, self.place, of);
        let size = self.snapshot.nodes.get(of).copied();
        let unknown = || incomplete(format!("nothing is recorded of {path}"), cluster, self.place);
        let size = size.ok_or_else(unknown)?;
        fill(node, folders, (&path, size), tally).await.map_err(|problem| {
            if problem.code != "snapshot.damaged" {
                return problem;
            }
            Problem { help: incomplete(String::new(), cluster, self.place).help, ..problem }
        })
    }

    pub(super) async fn until_cancelled<T, E: From<Problem>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(up_interrupted().into()),
            done = work => done,
        }
    }

    /// Runs the steps of each node in their order, and of all nodes at once.
    async fn run_steps(&self) -> Result<(), Problems> {
        let (provider, cluster) = (self.request.provider.as_ref(), self.request.cluster.name());
        let running: BTreeSet<NodeName> = self.prepared.wanted.nodes.keys().cloned().collect();
        let mut steps: BTreeMap<&[NodeName], Vec<Step>> = BTreeMap::new();
        for step in self.steps {
            steps.entry(&step.nodes).or_default().push(step.clone());
        }
        let running = &running;
        let run = steps.values().map(|steps| async move {
            run_steps(provider, cluster, running, steps, self.reporter).await
        });
        all_of(futures::future::join_all(run).await).map(drop)
    }

    /// One node joins the others, and is one of them before the next does.
    async fn join(&self, request: &NodeRequest) -> Result<(), Problems> {
        let (provider, cluster) = (self.request.provider.as_ref(), self.request.cluster.name());
        let render = self.prepared.state.render_request();
        let steps = self.request.stack.steps(&render, &Change::Joins(&request.node))?;
        let joined = |node: &&NodeName| !self.joining.contains(*node);
        let running = self.prepared.wanted.nodes.keys().filter(joined).cloned().collect();
        run_steps(provider, cluster, &running, &steps, self.reporter).await?;
        let node = self.ensure(std::iter::once(request)).await?;
        let within = self.options.timeout;
        follow_until(Until::ServicesReady, &node, within, self.reporter, self.cancel).await
    }

    /// All of it is as it was asked for. What was saved for this only goes; then that is recorded.
    fn complete(&self) -> Result<(), Problem> {
        let (directory, cluster) = (self.request.state, self.request.cluster.name());
        if let Place::ForFork(_) = self.place {
            self.snapshots.remove(self.snapshot.cluster(), self.place)?;
        }
        // The way to the user's access may have been added.
        let mut state = directory.read(cluster)?.unwrap_or_else(|| self.prepared.state.clone());
        state.restoring = None;
        state.completed_image = Some(state.image.clone());
        state.applied.completed = Some(Box::new(state.applied.cluster.clone()));
        directory.write(&state)
    }
}

/// The same node with nothing that runs in it.
fn bare(request: &NodeRequest) -> NodeRequest {
    let config = NodeConfig::bare(request.cluster.clone(), request.node.clone());
    NodeRequest { config, ..request.clone() }
}
