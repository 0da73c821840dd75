//! All decisions of an `up`, before anything is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use bivouac_plan::{Action, Plan, UpRequest, assign_addresses, joined, lives_on, plan_up};
use bivouac_provider::Provider;
use bivouac_spec::facts::{Applied, Outcome, Survey};
use bivouac_spec::{Addresses, Cluster, NodeName, ObservedCluster, Problem, Problems};
use bivouac_stacks::{Keys, RenderRequest, Stack};
use ipnet::IpNet;

use crate::ground::{other_ground, refuse_elsewhere};
use crate::images::{ImageChoice, former_image, image_of, is_remade};
use crate::ports::{Api, check_reachable};
use crate::state::AddressLock;
use crate::trouble::{is_near, timestamp};
use crate::upgrade::refusals;
use crate::wanted::Wanted;
use crate::{ClusterState, Event, Ground, NodeImages, Reporter, StateDirectory};

/// A cluster as it is wanted, and all that decides how it would be made.
pub struct PrepareRequest<'a> {
    /// What is asked for.
    pub cluster: &'a Cluster,
    /// Where it runs.
    pub provider: Arc<dyn Provider>,
    /// The grounds that there are, which may have a cluster of the same name. The one where it runs may be among them.
    pub grounds: &'a [Ground],
    /// What runs on it.
    pub stack: &'a dyn Stack,
    /// What its nodes are made from.
    pub images: &'a dyn NodeImages,
    /// What is known.
    pub state: &'a StateDirectory,
    /// Which node image a cluster that exists gets.
    pub node_image: ImageChoice,
    /// The time by which certificates are near their end.
    pub now: SystemTime,
}

/// What is decided.
#[derive(Debug)]
pub struct Prepared {
    /// What would change.
    pub plan: Plan,
    /// The ground.
    pub survey: Survey,
    pub(crate) state: ClusterState,
    pub(crate) keys: Keys,
    pub(crate) wanted: Wanted,
    /// What is there.
    pub(crate) observed: Option<ObservedCluster>,
    /// Whether nodes get back the node image with which the cluster was usable last.
    pub(crate) goes_back: bool,
}

/// Decides what an `up` would do. Changes nothing.
///
/// # Errors
/// When the ground is unfit (everything unfit at once), another ground has a cluster of the name or is where it was made, the state
/// cannot be read, no addresses are free, or the API could not be reached.
pub async fn prepare(request: &PrepareRequest<'_>) -> Result<Prepared, Problems> {
    let cluster = request.cluster;
    let recorded = request.state.read(cluster.name())?;
    let keys = request.state.read_keys(cluster.name())?;
    let (survey, observed, elsewhere) = tokio::join!(
        request.provider.survey(),
        request.provider.observe(),
        refuse_elsewhere(cluster, request.grounds, recorded.as_ref()),
    );
    let (survey, observed) = (survey?, observed?);
    Problems::check(survey.unmet())?;
    elsewhere?;
    if let Some(restoring) = recorded.as_ref().and_then(|state| state.restoring.as_ref()) {
        return Err(restoring.refusal(cluster.name()).into());
    }
    // On a ground of another kind this is told by `refuse_elsewhere`.
    let here = recorded
        .as_ref()
        .filter(|state| state.applied.cluster.spec.provider == cluster.spec.provider);
    Problems::check(
        here.and_then(|state| other_ground(cluster.name(), state, &survey.facts))
            .into_iter()
            .collect(),
    )?;

    // What was recorded counts only while something of it exists: a first `up` that made nothing may be tried with another file.
    let own = observed.iter().find(|observed| observed.name == *cluster.name());
    let known = recorded.as_ref().filter(|_| own.is_some());
    let existing = known.map(|state| addresses_in_use(&state.applied));
    let occupied = occupied(request, &survey, &observed, existing.as_ref())?;
    let addresses = assign_addresses(cluster, &occupied, existing.as_ref())?;
    let facts = &survey.facts;
    let joined = joined(cluster, known.map(|state| &state.applied), own);
    let render = RenderRequest { cluster, addresses: &addresses, facts, joined: &joined };
    let before = keys;
    let keys = request.stack.ensure_keys(before.clone(), &render, request.now)?;
    let configs = request.stack.render(&render, &keys)?;
    let access = request.stack.access(&render, &keys)?;
    let api = Api { node: access.node(), port: access.address().port() };
    check_reachable(cluster, api, facts)?;
    let wanted = Wanted::new(cluster, &addresses, api, facts, configs);

    let current = request.images.current();
    let image = match known {
        Some(state) => image_of(request.node_image, state, cluster, current.clone())?,
        None => current.clone()?,
    };
    let former = known.and_then(former_image);
    let goes_back = former.as_ref() == Some(&image);
    let mut plan = plan_up(&UpRequest {
        cluster,
        addresses: &addresses,
        applied: known.map(|state| &state.applied),
        observed: own,
        facts,
        records: &wanted.records(&image),
        image: current.as_ref().unwrap_or(&image),
        goes_back,
    });
    if let Some((state, own)) = known.zip(own) {
        plan.refusals.extend(refusals(request.node_image, state, own, &image));
    }
    if plan.refusals.is_empty() {
        let before = before.as_ref().filter(|_| known.is_some());
        plan.notes.extend(renewal(request, before, &keys)?);
    } else {
        plan.actions.clear();
    }
    let founded = known.zip(own).filter(|(state, own)| lives_on(&state.applied, own));
    let mut applied = Applied { joined, ..Applied::new(cluster.clone(), addresses) };
    if let Some((state, _)) = founded {
        applied.returned = returned(&state.applied, cluster);
        applied.completed.clone_from(&state.applied.completed);
        for (name, member) in &state.applied.members {
            applied.members.entry(name.clone()).or_insert_with(|| member.clone());
        }
    }
    let state = match (known, &recorded) {
        (Some(known), _) => ClusterState {
            remaking: known.remaking
                || plan.actions.iter().any(is_remade)
                || !applied.returned.is_empty(),
            completed_image: former,
            applied,
            image,
            ..known.clone()
        },
        (None, recorded) => ClusterState {
            kubeconfig: recorded.as_ref().and_then(|state| state.kubeconfig.clone()),
            kubeconfig_made: recorded.as_ref().is_some_and(|state| state.kubeconfig_made),
            remote: recorded.as_ref().and_then(|state| state.remote.clone()),
            ..ClusterState::new(applied, facts.clone(), image)
        },
    };
    let observed = own.cloned();
    Ok(Prepared { plan, survey, state, keys, wanted, observed, goes_back })
}

/// The nodes that were to be removed, by this change of the cluster or one before that did not come to its end, and stay: what was begun may
/// have taken them out of work, or out of the cluster.
fn returned(applied: &Applied, cluster: &Cluster) -> BTreeSet<NodeName> {
    let names = |cluster: &Cluster| -> BTreeSet<NodeName> {
        cluster.nodes().into_iter().map(|node| node.name).collect()
    };
    let asked = names(&applied.cluster);
    let mut known = applied.completed.as_deref().map(names).unwrap_or_default();
    known.extend(applied.members.keys().cloned());
    let back = |name: &NodeName| {
        applied.returned.contains(name) || known.contains(name) && !asked.contains(name)
    };
    names(cluster).into_iter().filter(back).collect()
}

/// That certificates are made anew which were near their end, where it is so.
fn renewal(
    request: &PrepareRequest<'_>,
    before: Option<&Keys>,
    keys: &Keys,
) -> Result<Option<String>, Problem> {
    let Some(before) = before.filter(|before| *before != keys) else { return Ok(None) };
    let end = |keys| Ok::<_, Problem>(request.stack.expiry(keys)?.and_then(timestamp));
    let (was, is) = (end(before)?, end(keys)?);
    let Some((was, now)) = was.zip(timestamp(request.now)) else { return Ok(None) };
    let renewed = is_near(was, now) && is.is_some_and(|is| is > was);
    Ok(renewed.then(|| {
        format!(
            "certificates that end at {was:.0} are renewed, and services that hold them start again"
        )
    }))
}

/// The cluster's addresses, with those of nodes that nobody wants any more and that may still be there.
fn addresses_in_use(applied: &Applied) -> Addresses {
    let mut addresses = applied.addresses.clone();
    for (name, member) in &applied.members {
        addresses.nodes.entry(name.clone()).or_insert_with(|| member.addresses.clone());
    }
    addresses
}

/// Networks that the cluster must not use: what the ground says, and what stopped clusters will want back.
pub(crate) fn occupied(
    request: &PrepareRequest<'_>,
    survey: &Survey,
    observed: &[ObservedCluster],
    existing: Option<&Addresses>,
) -> Result<BTreeMap<IpNet, String>, Problem> {
    let mut occupied = survey.facts.occupied.clone();
    let own = observed.iter().find(|observed| observed.name == *request.cluster.name());
    let mut ours: Vec<IpNet> = own.iter().flat_map(|own| own.networks.clone()).collect();
    ours.extend(existing.iter().flat_map(|existing| existing.networks()));
    occupied.retain(|network, _| !ours.iter().any(|own| own.contains(network)));
    for name in request.state.clusters()? {
        if name == *request.cluster.name() {
            continue;
        }
        // What cannot be read is told by every command about that cluster; its running network is among the ground's.
        if let Ok(Some(other)) = request.state.read(&name) {
            let networks = other.applied.addresses.networks();
            occupied.extend(networks.map(|network| (network, format!("cluster {name}"))));
        }
    }
    Ok(occupied)
}

/// [`StateDirectory::lock_addresses`], where other tasks go on meanwhile.
pub(crate) async fn lock_addresses(state: &StateDirectory) -> Result<AddressLock, Problem> {
    let state = state.clone();
    let lock = tokio::task::spawn_blocking(move || state.lock_addresses()).await;
    lock.map_err(|error| Problem::from_error("engine.thread", &error))?
}

/// Decides, and records the decisions before anything is made of them.
pub(crate) async fn prepare_and_record(
    request: &PrepareRequest<'_>,
    only: &BTreeSet<NodeName>,
    reporter: &Reporter,
) -> Result<Prepared, Problems> {
    let cluster = request.cluster.name();
    let _lock = lock_addresses(request.state).await?;
    let known_keys = request.state.read_keys(cluster)?;
    let mut prepared = prepare(request).await?;
    prepared.plan.check()?;
    if !only.is_empty() {
        let is_asked = |node: Option<&NodeName>| node.is_none_or(|node| only.contains(node));
        prepared.plan.actions.retain(|action| is_asked(action.node()));
    }
    report_plan(&prepared, reporter);
    if known_keys.as_ref() != Some(&prepared.keys) {
        request.state.write_keys(cluster, &prepared.keys)?;
    }
    // What is asked for may be what is there, and yet not what was asked for before.
    if !prepared.plan.is_empty()
        || request.state.read(cluster)?.is_some_and(|known| known != prepared.state)
    {
        request.state.write(&prepared.state)?;
    }
    Ok(prepared)
}

pub(crate) fn report_plan(prepared: &Prepared, reporter: &Reporter) {
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
