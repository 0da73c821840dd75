//! Cases about how nodes come and go.

use std::sync::Arc;
use std::time::Duration;

use bivouac_spec::facts::ObservedState;
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::node::{File, paths};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, NodeName, ObservedCluster, ObservedNode};
use camino::Utf8PathBuf;

use super::commands::{content, text};
use super::{Ground, Skip, Stop, check, refused};
use crate::{Node, NodeRequest, Provider};

/// How long a node may take to stop by itself.
pub(super) const GRACE: Duration = Duration::from_secs(20);

/// The network and the first node.
pub(super) async fn first(provider: &dyn Provider, ground: &Ground) -> Result<Arc<dyn Node>, Stop> {
    let request = ground.nodes.first().ok_or(Stop::Skip(Skip::OneNode))?;
    provider.ensure_network(&ground.network).await?;
    Ok(provider.ensure_node(request).await?)
}

fn two(ground: &Ground) -> Result<[&NodeRequest; 2], Stop> {
    match &ground.nodes[..] {
        [one, other, ..] => Ok([one, other]),
        _ => Err(Stop::Skip(Skip::OneNode)),
    }
}

async fn cluster(
    provider: &dyn Provider,
    ground: &Ground,
) -> Result<Option<ObservedCluster>, Stop> {
    let observed = provider.observe().await?;
    Ok(observed.into_iter().find(|cluster| cluster.name == ground.network.cluster))
}

async fn node(
    provider: &dyn Provider,
    ground: &Ground,
    name: &NodeName,
) -> Result<Option<ObservedNode>, Stop> {
    Ok(cluster(provider, ground).await?.and_then(|mut cluster| cluster.nodes.remove(name)))
}

pub(super) async fn survey(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let survey = provider.survey().await?;
    let facts = &survey.facts;
    check(facts.cpus > 0 && facts.memory.0 > 0 && !facts.kernel.is_empty(), format!("{facts:?}"))?;
    check(!survey.needs.is_empty(), "no need was tried")?;
    check(survey.unmet().is_empty(), format!("the ground is unfit: {:?}", survey.unmet()))?;
    check(cluster(provider, ground).await?.is_none(), "the survey left something behind")
}

pub(super) async fn absent(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let name = &ground.network.cluster;
    for request in &ground.nodes {
        provider.stop_node(name, &request.node, GRACE).await?;
        provider.destroy_node(name, &request.node).await?;
        let problem = refused(provider.open_node(name, &request.node).await, "an absent node")?;
        check(problem.class == Class::Usage, format!("an absent node is {:?}", problem.class))?;
        // Nor without its network.
        refused(provider.ensure_node(request).await, "a node without network")?;
    }
    provider.destroy_cluster(name).await?;
    check(cluster(provider, ground).await?.is_none(), "an absent cluster is observed")
}

pub(super) async fn ensure(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let made = first(provider, ground).await?;
    let request = &ground.nodes[0];
    let address = request.addresses.nodes.get(&request.node).map(NodeAddresses::primary);
    check(Some(made.address()) == address, format!("its address is {}", made.address()))?;
    check(*made.name() == request.node, format!("its name is {}", made.name()))?;
    let Some(observed) = node(provider, ground, &request.node).await? else {
        return Err(Stop::Fail("it is not observed".to_owned()));
    };
    check(observed.state == ObservedState::Running, format!("it is {:?}", observed.state))?;
    check(observed.address == address, format!("its observed address is {:?}", observed.address))?;
    let recorded = observed.record.as_ref();
    check(recorded == Some(&request.record()), format!("its record is {recorded:?}"))?;
    let found = cluster(provider, ground).await?.map(|cluster| cluster.networks);
    let mut found = found.unwrap_or_default();
    let networks = ground.network.addresses.node_networks.iter().map(|own| own.network);
    let mut wanted: Vec<_> = networks.collect();
    found.sort();
    wanted.sort();
    check(found == wanted, format!("the networks are {found:?}, not {wanted:?}"))?;
    let opened = provider.open_node(&request.cluster, &request.node).await?;
    check(opened.address() == made.address(), "it is opened at another address")
}

pub(super) async fn again(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    first(provider, ground).await?;
    let name = &ground.nodes[0].node;
    let before = node(provider, ground, name).await?;
    first(provider, ground).await?;
    let after = node(provider, ground, name).await?;
    check(before == after, format!("it was {before:?} and is {after:?}"))?;
    match before.and_then(|node| node.pid) {
        Some(_) => Ok(()),
        None => Err(Stop::Skip(Skip::NoPids)),
    }
}

pub(super) async fn restart(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let made = first(provider, ground).await?;
    let kept = Utf8PathBuf::from(paths::STATE).join("kept");
    made.put(&kept, 0o600, content("kept")).await?;
    let mut request = ground.nodes[0].clone();
    for _ in 0..2 {
        provider.stop_node(&request.cluster, &request.node, GRACE).await?;
    }
    let state = node(provider, ground, &request.node).await?.map(|node| node.state);
    check(state == Some(ObservedState::Stopped), format!("a stopped node is {state:?}"))?;
    provider.open_node(&request.cluster, &request.node).await?;
    request.config.files.push(File::public("/etc/conformance", "new"));
    let made = provider.ensure_node(&request).await?;
    let observed = node(provider, ground, &request.node).await?;
    let state = observed.as_ref().map(|node| node.state);
    check(state == Some(ObservedState::Running), format!("a restarted node is {state:?}"))?;
    let config = observed.and_then(|node| node.record).map(|record| record.config);
    check(config == Some(request.config.digest()), "it has the old config")?;
    let read = text(made.get(&kept).await?).await?;
    check(read == "kept", format!("its data is `{read}`"))
}

/// What a node that runs on takes: a config, limits, other neighbours.
pub(super) async fn update(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let made = first(provider, ground).await?;
    let mut request = ground.nodes[0].clone();
    let before = node(provider, ground, &request.node).await?;
    request.config.files.push(File::public("/etc/conformance", "new"));
    request.resources.memory = Some(Bytes(512 << 20));
    request.addresses.nodes.retain(|name, _| *name == request.node);
    let mut network = ground.network.clone();
    network.addresses = request.addresses.clone();
    provider.ensure_network(&network).await?;
    provider.ensure_node(&request).await?;
    let after = node(provider, ground, &request.node).await?;
    let record = after.as_ref().and_then(|node| node.record.clone());
    check(record == Some(request.record()), format!("its record is {record:?}"))?;
    let read = text(made.get("/etc/conformance".into()).await?).await?;
    check(read == "new", format!("a file of its new config is `{read}`"))?;
    let facts = provider.survey().await?.facts;
    let aspects = ground.nodes[0].record().differences(&request.record());
    let remade = aspects.iter().any(|aspect| facts.remakes_for.contains(aspect));
    match (before.and_then(|node| node.pid), after.and_then(|node| node.pid)) {
        (Some(before), Some(after)) => {
            let text = format!("remade: {remade}, but its processes are {before} and {after}");
            check((before != after) == remade, text)
        }
        _ => Err(Stop::Skip(Skip::NoPids)),
    }
}

pub(super) async fn parallel(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let [one, other] = two(ground)?;
    provider.ensure_network(&ground.network).await?;
    let (one, other) = futures::join!(provider.ensure_node(one), provider.ensure_node(other));
    let (one, other) = (one?, other?);
    check(one.address() != other.address(), "both have one address")?;
    let observed = cluster(provider, ground).await?.map_or(0, |cluster| cluster.nodes.len());
    check(observed == 2, format!("{observed} nodes are observed"))
}

pub(super) async fn destroy_one(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    let [one, other] = two(ground)?;
    first(provider, ground).await?;
    provider.ensure_node(other).await?;
    for _ in 0..2 {
        provider.destroy_node(&one.cluster, &one.node).await?;
    }
    check(node(provider, ground, &one.node).await?.is_none(), "the removed node is observed")?;
    let state = node(provider, ground, &other.node).await?.map(|node| node.state);
    check(state == Some(ObservedState::Running), format!("the other node is {state:?}"))?;
    // It comes back as a new one.
    let made = provider.ensure_node(one).await?;
    let kept = Utf8PathBuf::from(paths::STATE).join("kept");
    refused(made.get(&kept).await, "a file of the removed node").map(drop)
}

pub(super) async fn destroy_all(provider: &dyn Provider, ground: &Ground) -> Result<(), Stop> {
    first(provider, ground).await?;
    for request in &ground.nodes[1..] {
        provider.ensure_node(request).await?;
        provider.stop_node(&request.cluster, &request.node, GRACE).await?;
    }
    for _ in 0..2 {
        provider.destroy_cluster(&ground.network.cluster).await?;
        let left = cluster(provider, ground).await?;
        check(left.is_none(), format!("something is left: {left:?}"))?;
    }
    Ok(())
}
