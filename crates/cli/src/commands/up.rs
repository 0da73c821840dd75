//! `bivouac up`, and what every command that brings nodes up shares with it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bivouac_engine::kubeconfig::UserFile;
use bivouac_engine::{ClusterState, PrepareRequest, UpOptions};
use bivouac_plan::Action;
use bivouac_spec::{Cluster, ClusterName, NodeName, Problems};
use serde::Serialize;

use crate::args::{self, Follow, Format, Global};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{cluster_asked_for, open_state};
use crate::{home, output, progress, signals};

/// What a command that brings nodes up came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    cluster: ClusterName,
    changed: bool,
    actions: Vec<Action>,
    nodes: usize,
    description: String,
    seconds: f64,
}

pub async fn run(global: &Global, up: &args::Up) -> Result<ExitCode, Problems> {
    if up.dry_run {
        return super::plan::show(global, &up.source, up.output).await;
    }
    let cluster = cluster_asked_for(global, &up.source)?;
    let shown = bring_up(global, &cluster, "up", BTreeSet::new(), &up.follow).await?;
    tell(&shown, up.output)
}

/// Makes a cluster what it is asked to be, or only these nodes of it, for the verb of this name.
pub async fn bring_up(
    global: &Global,
    cluster: &Cluster,
    verb: &'static str,
    only: BTreeSet<NodeName>,
    follow: &Follow,
) -> Result<Shown, Problems> {
    let started = Instant::now();
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let state = open_state(global);
    let request = PrepareRequest {
        cluster,
        provider: open_ground(global, &cluster.spec.provider).provider,
        grounds: &open_grounds(global, &state),
        stack: stack.as_ref(),
        images: &StoreImages::of(global, &cluster.spec.stack),
        state: &state,
    };
    let options = UpOptions {
        agent: home::own_binary()?,
        remotes: home::incus_file().filter(|_| !follow.no_kubeconfig),
        kubeconfig: kubeconfig(verb, follow, state.read(cluster.name()).ok().flatten().as_ref()),
        verb,
        only,
        timeout: Duration::from_secs(follow.timeout),
    };
    let reporter = progress::reporter(global);
    let upped = bivouac_engine::up(&request, &options, &reporter, &signals::cancellation()).await?;
    drop(reporter);
    Ok(Shown {
        cluster: cluster.name().clone(),
        changed: !upped.actions.is_empty(),
        actions: upped.actions,
        nodes: upped.nodes,
        description: upped.description,
        seconds: started.elapsed().as_secs_f64(),
    })
}

/// The file that the access is merged into: for a cluster that is there, the one that it was merged into.
fn kubeconfig(verb: &str, follow: &Follow, known: Option<&ClusterState>) -> Option<UserFile> {
    if follow.no_kubeconfig {
        return None;
    }
    let recorded = known.filter(|_| verb != "up" && follow.kubeconfig.is_none());
    match recorded {
        Some(known) => home::kubeconfig_file(Some(known.kubeconfig.as_ref()?)),
        None => home::kubeconfig_file(follow.kubeconfig.as_ref()),
    }
}

/// Writes what a command came to.
pub fn tell(shown: &Shown, format: Format) -> Result<ExitCode, Problems> {
    output::write(format, shown, || {
        let Shown { cluster: name, seconds, .. } = shown;
        let nodes =
            if shown.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", shown.nodes) };
        let description = format!("{nodes}, {}", shown.description);
        if shown.changed {
            format!("cluster {name} is usable: {description}, {seconds:.1} s\n")
        } else {
            format!("cluster {name} is usable and nothing changed: {description}, {seconds:.2} s\n")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
