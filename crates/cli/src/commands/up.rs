//! `bivouac up`

use std::process::ExitCode;
use std::time::{Duration, Instant};

use bivouac_engine::{PrepareRequest, UpOptions};
use bivouac_plan::Action;
use bivouac_spec::{ClusterName, Problems};
use serde::Serialize;

use crate::args::{self, Global};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{cluster_asked_for, open_state};
use crate::{home, output, progress, signals};

/// What `up` came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Result<'a> {
    cluster: &'a ClusterName,
    changed: bool,
    actions: &'a [Action],
    nodes: usize,
    description: &'a str,
    seconds: f64,
}

pub async fn run(global: &Global, up: &args::Up) -> std::result::Result<ExitCode, Problems> {
    if up.dry_run {
        return super::plan::show(global, &up.source, up.output).await;
    }
    let started = Instant::now();
    let cluster = cluster_asked_for(global, &up.source)?;
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let state = open_state(global);
    let request = PrepareRequest {
        cluster: &cluster,
        provider: open_ground(global, &cluster.spec.provider).provider,
        grounds: &open_grounds(global, &state),
        stack: stack.as_ref(),
        images: &StoreImages::open(global),
        state: &state,
    };
    let kubeconfig = || home::kubeconfig_file(up.kubeconfig.as_ref());
    let options = UpOptions {
        agent: home::own_binary()?,
        kubeconfig: if up.no_kubeconfig { None } else { kubeconfig() },
        timeout: Duration::from_secs(up.timeout),
    };
    let reporter = progress::reporter(global);
    let upped = bivouac_engine::up(&request, &options, &reporter, &signals::cancellation()).await?;
    drop(reporter);
    let changed = !upped.actions.is_empty();
    let result = Result {
        cluster: cluster.name(),
        changed,
        actions: &upped.actions,
        nodes: upped.nodes,
        description: &upped.description,
        seconds: started.elapsed().as_secs_f64(),
    };
    output::write(up.output, &result, || {
        let (name, seconds) = (cluster.name(), result.seconds);
        let nodes =
            if upped.nodes == 1 { "1 node".to_owned() } else { format!("{} nodes", upped.nodes) };
        let description = format!("{nodes}, {}", upped.description);
        if changed {
            format!("cluster {name} is usable: {description}, {seconds:.1} s\n")
        } else {
            format!("cluster {name} is usable and nothing changed: {description}, {seconds:.2} s\n")
        }
    })?;
    Ok(ExitCode::SUCCESS)
}
