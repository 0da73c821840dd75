//! `bivouac up`, and what every command that brings nodes up shares with it.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use bivouac_engine::kubeconfig::UserFile;
use bivouac_engine::{ClusterState, ImageChoice, PrepareRequest, UpOptions, Upped};
use bivouac_plan::Action;
use bivouac_spec::{Cluster, ClusterName, NodeName, Problems};
use bivouac_stacks::{Drain, Given};
use serde::Serialize;

use crate::args::{self, Follow, Format, Global};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{cluster_asked_for, open_state};
use crate::{home, output, progress, signals, sources};

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

impl Shown {
    /// What a command came to that was called at this moment.
    pub fn of(cluster: ClusterName, upped: Upped, started: Instant) -> Self {
        Self {
            cluster,
            changed: !upped.actions.is_empty(),
            actions: upped.actions,
            nodes: upped.nodes,
            description: upped.description,
            seconds: started.elapsed().as_secs_f64(),
        }
    }
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
    let node_image = ImageChoice::Own;
    bring_up_with(global, BringUp { cluster, verb, only, follow, drain: None, node_image }).await
}

/// What a command brings up.
pub struct BringUp<'a> {
    /// What is asked for.
    pub cluster: &'a Cluster,
    /// The verb.
    pub verb: &'static str,
    /// Only these nodes; all when empty.
    pub only: BTreeSet<NodeName>,
    /// How it is waited for.
    pub follow: &'a Follow,
    /// How nodes are left by their work, in place of what the cluster says.
    pub drain: Option<Drain>,
    /// Which node image a cluster that exists gets.
    pub node_image: ImageChoice,
}

/// The same.
pub async fn bring_up_with(global: &Global, asked: BringUp<'_>) -> Result<Shown, Problems> {
    let BringUp { cluster, verb, only, follow, drain, node_image } = asked;
    let started = Instant::now();
    // What was asked for is only new with this verb.
    let found = if verb == "up" { sources::found(cluster)? } else { sources::readable(cluster) };
    let given = Given { found, drain };
    let stack = bivouac_stacks::open_with(&cluster.spec.stack, given)?;
    let state = open_state(global);
    let request = PrepareRequest {
        cluster,
        provider: open_ground(global, &cluster.spec.provider).provider,
        grounds: &open_grounds(global, &state),
        stack: stack.as_ref(),
        images: &StoreImages::of(global, &cluster.spec.stack),
        state: &state,
        node_image,
        now: SystemTime::now(),
    };
    let options = UpOptions {
        agent: home::own_binary()?,
        remotes: home::incus_file().filter(|_| !follow.no_kubeconfig),
        kubeconfig: kubeconfig(verb, follow, state.read(cluster.name()).ok().flatten().as_ref()),
        verb,
        only,
        timeout: follow.timeout.duration(),
    };
    let reporter = progress::reporter(global);
    let upped = bivouac_engine::up(&request, &options, &reporter, &signals::cancellation()).await?;
    drop(reporter);
    Ok(Shown::of(cluster.name().clone(), upped, started))
}

/// The file that the access is merged into: for a cluster that is there, the one that it was merged into.
pub fn kubeconfig(verb: &str, follow: &Follow, known: Option<&ClusterState>) -> Option<UserFile> {
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
