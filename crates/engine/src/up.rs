//! `up`: makes a cluster what its file says, and waits until it is usable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bivouac_pki::Kubeconfig;
use bivouac_plan::{Action, Plan, UpRequest as PlanRequest, assign_addresses, plan_up};
use bivouac_provider::{ImagePaths, NetworkRequest, Node, NodeRequest, Provider};
use bivouac_spec::facts::{Applied, Outcome, Survey};
use bivouac_spec::{
    Addresses, Class, Cluster, NodeConfig, NodeName, ObservedCluster, Problem, Problems,
};
use bivouac_stacks::{Access, Keys, RenderRequest, Stack};
use camino::Utf8PathBuf;
use ipnet::IpNet;
use tokio_util::sync::CancellationToken;

use crate::follow::interrupted;
use crate::kubeconfig::UserFile;
use crate::{ClusterState, Event, Reporter, StateDirectory, follow_until_usable};

/// Where node images come from.
#[async_trait]
pub trait NodeImages: Send + Sync {
    /// The key of the image that this bivouac makes nodes from. Needs no image to be there.
    ///
    /// # Errors
    /// When it cannot be told.
    fn current(&self) -> Result<String, Problem>;

    /// The image of this key, sound: opened, fetched or built.
    ///
    /// # Errors
    /// When it cannot be had.
    async fn ensure(
        &self,
        key: &str,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<ImagePaths, Problem>;
}

/// What `up` needs.
pub struct UpRequest<'a> {
    /// What is asked for.
    pub cluster: &'a Cluster,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// What runs on it.
    pub stack: &'a dyn Stack,
    /// What its nodes are made from.
    pub images: &'a dyn NodeImages,
    /// The static binary that becomes the nodes' agent.
    pub agent: Utf8PathBuf,
    /// What is known.
    pub state: &'a StateDirectory,
    /// The kubeconfig file that the access is merged into.
    pub kubeconfig: Option<UserFile>,
    /// How long the nodes may take to be usable, once they are started.
    pub timeout: Duration,
}

/// All decisions of an `up`, before anything is changed.
#[derive(Debug)]
pub struct Prepared {
    /// What would change.
    pub plan: Plan,
    /// The ground.
    pub survey: Survey,
    state: ClusterState,
    keys: Keys,
    addresses: Addresses,
    configs: BTreeMap<NodeName, NodeConfig>,
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

/// Decides what an `up` would do. Changes nothing.
///
/// # Errors
/// When the ground is unfit (everything unfit at once), or the state cannot be read, or no addresses are free.
pub async fn prepare(request: &UpRequest<'_>) -> Result<Prepared, Problems> {
    let cluster = request.cluster;
    let known = request.state.read(cluster.name())?;
    let keys = request.state.read_keys(cluster.name())?;
    let (survey, observed) = tokio::join!(request.provider.survey(), request.provider.observe());
    let (survey, observed) = (survey?, observed?);
    Problems::check(survey.unmet())?;

    // What was recorded counts only while something of it exists: a first `up` that made nothing may be tried with another file.
    let own = observed.iter().find(|observed| observed.name == *cluster.name());
    let known_state = known;
    let known = known_state.as_ref().filter(|_| own.is_some());
    let existing = known.map(|state| &state.applied.addresses);
    let occupied = occupied(request, &survey, &observed, existing)?;
    let addresses = assign_addresses(cluster, &occupied, existing)?;
    let render = RenderRequest { cluster, addresses: &addresses, facts: &survey.facts };
    let keys = request.stack.ensure_keys(keys, &render, SystemTime::now())?;
    let configs = request.stack.render(&render, &keys)?;

    let current = request.images.current()?;
    let image = known.map_or_else(|| current.clone(), |state| state.image.clone());
    let digests = configs.iter().map(|(name, config)| (name.clone(), config.digest())).collect();
    let plan = plan_up(&PlanRequest {
        cluster,
        addresses: &addresses,
        applied: known.map(|state| &state.applied),
        observed: own,
        facts: &survey.facts,
        configs: &digests,
        image: &current,
    });
    let applied = Applied { cluster: cluster.clone(), addresses: addresses.clone() };
    let state = match known_state {
        Some(state) => ClusterState { applied, image, ..state },
        None => ClusterState::new(applied, survey.facts.clone(), image),
    };
    Ok(Prepared { plan, survey, state, keys, addresses, configs })
}

/// Networks that the cluster must not use: what the ground says, and what stopped clusters will want back.
fn occupied(
    request: &UpRequest<'_>,
    survey: &Survey,
    observed: &[ObservedCluster],
    existing: Option<&Addresses>,
) -> Result<BTreeMap<IpNet, String>, Problem> {
    let mut occupied = survey.facts.occupied.clone();
    let own = observed.iter().find(|observed| observed.name == *request.cluster.name());
    let mut ours: Vec<IpNet> = own.and_then(|observed| observed.network).into_iter().collect();
    if let Some(existing) = existing {
        ours.push(existing.node_network);
        ours.extend(&existing.pod_networks);
    }
    occupied.retain(|network, _| !ours.iter().any(|own| own.contains(network)));
    for name in request.state.clusters()? {
        if name == *request.cluster.name() {
            continue;
        }
        // What cannot be read is told by every command about that cluster; its running network is among the ground's.
        if let Ok(Some(other)) = request.state.read(&name) {
            let addresses = other.applied.addresses;
            occupied.insert(addresses.node_network, format!("cluster {name}"));
            occupied.extend(
                addresses.pod_networks.into_iter().map(|pods| (pods, format!("cluster {name}"))),
            );
        }
    }
    Ok(occupied)
}

/// Makes a cluster what its file says. Run again after any failure, it goes on where it was.
///
/// # Errors
/// Everything of [`prepare`]; a change that cannot be applied (nothing is changed then); a node that cannot be made; a cluster
/// that is not usable in time.
pub async fn up(
    request: &UpRequest<'_>,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let cluster = request.cluster;
    let _lock = match request.state.lock(cluster.name(), "up") {
        Ok(lock) => lock,
        Err(problem) => {
            // Whoever may not write the state lacks more than that: all of it at once.
            Problems::check(request.provider.survey().await?.unmet())?;
            return Err(problem.into());
        }
    };
    reporter.report(Event::Started { verb: "up".to_owned(), cluster: cluster.name().clone() });
    let prepared = prepare_and_record(request, reporter).await?;

    let nodes = if prepared.plan.is_empty() {
        open_all(request, &prepared).await?
    } else {
        make(request, &prepared, reporter, cancel).await?
    };
    follow_until_usable(&nodes, request.timeout, reporter, cancel).await?;
    let access = request.stack.access(&prepared.state.render_request(), &prepared.keys)?;
    let kubeconfig = reachable_kubeconfig(request.provider.as_ref(), &access).await?;
    if let Some(file) = &request.kubeconfig {
        // Before the file is changed: `down` must find what an `up` that was killed here has put into it.
        let state = remember_access(request, file, &prepared.state);
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

/// Decides, and records the decisions before anything is made of them.
async fn prepare_and_record(
    request: &UpRequest<'_>,
    reporter: &Reporter,
) -> Result<Prepared, Problems> {
    let cluster = request.cluster.name();
    let state = request.state.clone();
    let lock = tokio::task::spawn_blocking(move || state.lock_addresses()).await;
    let _lock = lock.map_err(|error| Problem::from_error("engine.thread", &error))??;
    let known_keys = request.state.read_keys(cluster)?;
    let prepared = prepare(request).await?;
    prepared.plan.check()?;
    report_plan(&prepared, reporter);
    if known_keys.as_ref() != Some(&prepared.keys) {
        request.state.write_keys(cluster, &prepared.keys)?;
    }
    if !prepared.plan.is_empty() {
        request.state.write(&prepared.state)?;
    }
    Ok(prepared)
}

fn report_plan(prepared: &Prepared, reporter: &Reporter) {
    for need in &prepared.survey.needs {
        if let Outcome::Limited(problem) = &need.outcome {
            reporter.report(Event::Limited { problem: problem.clone() });
        }
    }
    for note in &prepared.plan.notes {
        reporter.report(Event::Noted { note: note.clone() });
    }
    let actions = prepared.plan.actions.iter().map(Action::describe).collect();
    reporter.report(Event::Planned { actions });
}

async fn open_all(
    request: &UpRequest<'_>,
    prepared: &Prepared,
) -> Result<Vec<Arc<dyn Node>>, Problem> {
    let cluster = request.cluster.name();
    let nodes = prepared.configs.keys().map(|node| request.provider.open_node(cluster, node));
    futures::future::try_join_all(nodes).await
}

/// Carries out the plan: image, network, then every node at the same moment.
async fn make(
    request: &UpRequest<'_>,
    prepared: &Prepared,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Vec<Arc<dyn Node>>, Problems> {
    let cluster = request.cluster.name();
    let image = request.images.ensure(&prepared.state.image, reporter, cancel).await?;
    if cancel.is_cancelled() {
        return Err(interrupted().into());
    }
    let addresses = &prepared.addresses;
    let network = NetworkRequest { cluster: cluster.clone(), addresses: addresses.clone() };
    request.provider.ensure_network(&network).await?;
    if cancel.is_cancelled() {
        return Err(interrupted().into());
    }
    let resources: BTreeMap<NodeName, _> =
        request.cluster.nodes().into_iter().map(|node| (node.name, node.resources)).collect();
    let made = prepared.configs.iter().map(|(node, config)| {
        let node_request = NodeRequest {
            cluster: cluster.clone(),
            node: node.clone(),
            addresses: addresses.clone(),
            resources: resources.get(node).copied().unwrap_or_default(),
            image: image.clone(),
            agent: request.agent.clone(),
            config: config.clone(),
        };
        async move {
            let made = request.provider.ensure_node(&node_request).await?;
            reporter.report(Event::NodeStarted { node: node_request.node });
            Ok(made)
        }
    });
    let (mut nodes, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for outcome in futures::future::join_all(made).await {
        match outcome {
            Ok(node) => nodes.push(node),
            Err(problem) => problems.push(problem),
        }
    }
    if !nodes.is_empty()
        && let Some(first) = problems.first_mut()
    {
        first.class = Class::Partial;
    }
    Problems::check(problems)?;
    Ok(nodes)
}

/// The kubeconfig of an access, with the address at which its API is reached from here.
///
/// # Errors
/// When the ground cannot reach it.
pub async fn reachable_kubeconfig(
    provider: &dyn Provider,
    access: &Access,
) -> Result<Kubeconfig, Problem> {
    let Access::Kubernetes(access) = access;
    let node = provider.open_node(&access.cluster, &access.node).await?;
    Ok(access.kubeconfig(node.forward(access.address.port()).await?))
}

/// The state with the place of the user's kubeconfig, so that `down` takes the access out of it again. A file that was made for
/// another cluster was made by bivouac all the same: the last of them removes it.
fn remember_access(request: &UpRequest<'_>, file: &UserFile, state: &ClusterState) -> ClusterState {
    let made_for_another = || {
        let others = request.state.clusters().unwrap_or_default();
        let mut states = others.iter().filter_map(|name| request.state.read(name).ok().flatten());
        states.any(|other| other.kubeconfig_made && other.kubeconfig.as_ref() == Some(&file.path))
    };
    ClusterState {
        kubeconfig: Some(file.path.clone()),
        kubeconfig_made: state.kubeconfig_made || !file.path.exists() || made_for_another(),
        ..state.clone()
    }
}

/// Merges the access into the user's kubeconfig.
fn merge_access(file: &UserFile, ours: &Kubeconfig) -> Result<(), Problem> {
    file.edit(|existing| {
        bivouac_pki::merge(existing, ours, true)
            .map_err(|error| Problem::from_error("kubeconfig.unmergeable", &error))
    })
}
