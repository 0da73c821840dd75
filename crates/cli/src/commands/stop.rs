//! `bivouac stop`, `start` and `restart`

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use bivouac_engine::StopRequest;
use bivouac_spec::{ClusterName, NodeName, Problem, Problems};
use serde::Serialize;

use super::up::{bring_up, tell};
use crate::args::{Global, Restart, Start, Stop};
use crate::grounds::Existing;
use crate::selection::{choose, open_state};
use crate::{output, progress};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stopped {
    cluster: ClusterName,
    nodes: Vec<NodeName>,
    seconds: f64,
}

pub async fn run(global: &Global, asked: &Stop) -> Result<ExitCode, Problems> {
    let names = if asked.all {
        open_state(global).clusters()?
    } else {
        vec![choose(global, asked.name.as_ref()).await?.name().clone()]
    };
    let (mut stopped, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for name in names {
        let started = Instant::now();
        let nodes = match choose(global, Some(&name)).await {
            Ok(existing) => stop(global, &existing, &asked.nodes).await,
            Err(problem) => Err(problem.into()),
        };
        let seconds = started.elapsed().as_secs_f64();
        match nodes {
            Ok(nodes) => stopped.push(Stopped { cluster: name, nodes, seconds }),
            Err(found) => problems.extend(found.as_slice().iter().cloned()),
        }
    }
    output::write(asked.output, &stopped, || stopped.iter().map(sentence).collect())?;
    Problems::check(problems)?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(stopped: &Stopped) -> String {
    let Stopped { cluster, nodes, seconds } = stopped;
    match &nodes[..] {
        [] => format!("cluster {cluster}: nothing ran\n"),
        [node] => format!("cluster {cluster}: {node} is stopped, {seconds:.1} s\n"),
        nodes => format!("cluster {cluster}: {} nodes are stopped, {seconds:.1} s\n", nodes.len()),
    }
}

async fn stop(
    global: &Global,
    existing: &Existing,
    nodes: &[NodeName],
) -> Result<Vec<NodeName>, Problems> {
    let request = StopRequest {
        cluster: existing.name(),
        nodes: &nodes.iter().cloned().collect(),
        provider: existing.ground.provider.clone(),
        state: &open_state(global),
    };
    let reporter = progress::reporter(global);
    bivouac_engine::stop(&request, &reporter).await
}

pub async fn start(global: &Global, asked: &Start) -> Result<ExitCode, Problems> {
    if asked.all {
        return start_all(global, asked).await;
    }
    let existing = choose(global, asked.name.as_ref()).await?;
    let cluster = &existing.known()?.applied.cluster;
    let only = nodes_of(&existing, &asked.nodes).await?;
    tell(&bring_up(global, cluster, "start", only, &asked.follow).await?, asked.output)
}

pub async fn restart(global: &Global, asked: &Restart) -> Result<ExitCode, Problems> {
    let existing = choose(global, asked.name.as_ref()).await?;
    let cluster = &existing.known()?.applied.cluster;
    let only = nodes_of(&existing, &asked.nodes).await?;
    stop(global, &existing, &asked.nodes).await?;
    tell(&bring_up(global, cluster, "start", only, &asked.follow).await?, asked.output)
}

/// Every cluster that is recorded, one after another. One that does not start does not keep the others from it.
async fn start_all(global: &Global, asked: &Start) -> Result<ExitCode, Problems> {
    let state = open_state(global);
    let mut problems: Vec<Problem> = Vec::new();
    for name in state.clusters()? {
        let known = match state.read(&name) {
            Ok(Some(known)) => known,
            Ok(None) => continue,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let cluster = &known.applied.cluster;
        match bring_up(global, cluster, "start", BTreeSet::new(), &asked.follow).await {
            Ok(shown) => drop(tell(&shown, asked.output)?),
            Err(found) => problems.extend(found.as_slice().iter().cloned()),
        }
    }
    Problems::check(problems)?;
    Ok(ExitCode::SUCCESS)
}

async fn nodes_of(existing: &Existing, asked: &[NodeName]) -> Result<BTreeSet<NodeName>, Problem> {
    for node in asked {
        existing.node(node).await?;
    }
    Ok(asked.iter().cloned().collect())
}
