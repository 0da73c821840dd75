//! `bivouac down`

use std::process::ExitCode;
use std::time::Instant;

use bivouac_engine::{DownRequest, down};
use bivouac_plan::{Action, plan_down};
use bivouac_spec::cluster::Provider;
use bivouac_spec::{Class, ClusterName, Problem, Problems};
use serde::Serialize;

use crate::args::{self, Global};
use crate::grounds::{Existing, existing_clusters, open_ground};
use crate::selection::{choose, open_state, read_cluster};
use crate::{home, output, progress};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    cluster: ClusterName,
    actions: Vec<Action>,
    seconds: f64,
}

pub async fn run(global: &Global, arguments: &args::Down) -> Result<ExitCode, Problems> {
    let found = existing_clusters(global, &open_state(global)).await?;
    let (existing, silent) = (found.clusters, found.silent);
    let names: Vec<ClusterName> = match (&arguments.file, &arguments.name) {
        _ if arguments.all => {
            // A cluster that only the ground knows may be somebody else's, with another state folder.
            let ours = existing
                .iter()
                .filter(|cluster| cluster.state.is_some() || cluster.unreadable.is_some());
            ours.map(|cluster| cluster.name().clone()).collect()
        }
        (Some(file), _) => vec![read_cluster(file, None)?.name().clone()],
        (None, Some(name)) => vec![name.clone()],
        (None, None) => match &existing[..] {
            [only] => vec![only.name().clone()],
            [] => vec![ClusterName::default()],
            // Says which there are, unless one is called `default`.
            _ => vec![choose(global, None).await?.name().clone()],
        },
    };
    let reporter = progress::reporter(global);
    let (mut removed, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for name in names {
        let started = Instant::now();
        let found = existing.iter().find(|cluster| *cluster.name() == name);
        let actions = match found.and_then(Existing::silenced) {
            Some(problem) => Err(problem.into()),
            None if arguments.dry_run => {
                Ok(plan_down(&name, found.map(|cluster| &cluster.observed)).actions)
            }
            None => remove(global, &name, found, &reporter).await,
        };
        match actions {
            Ok(actions) => removed.push(Removed {
                cluster: name,
                actions,
                seconds: started.elapsed().as_secs_f64(),
            }),
            Err(found) => problems.extend(found.as_slice().iter().cloned()),
        }
        if found.is_none() {
            // It may be where nobody answers.
            problems.extend(silent.iter().cloned());
        }
    }
    output::write(arguments.output, &removed, || {
        removed.iter().map(|one| sentence(one, arguments.dry_run)).collect()
    })?;
    if !removed.is_empty()
        && let Some(first) = problems.first_mut()
    {
        first.class = Class::Partial;
    }
    Problems::check(problems)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(
    global: &Global,
    name: &ClusterName,
    found: Option<&Existing>,
    reporter: &bivouac_engine::Reporter,
) -> Result<Vec<Action>, Problems> {
    let provider = found
        .map_or_else(|| open_ground(global, &Provider::default()).provider, Existing::provider);
    let state = open_state(global);
    let kubeconfig = home::kubeconfig_file(None);
    let request = DownRequest { cluster: name, provider, state: &state, kubeconfig };
    Ok(down(&request, reporter).await?.actions)
}

fn sentence(removed: &Removed, dry_run: bool) -> String {
    let Removed { cluster, actions, seconds } = removed;
    if dry_run {
        let lines: Vec<String> =
            actions.iter().map(|action| format!("{}\n", action.describe())).collect();
        return format!(
            "{}{} to remove cluster {cluster}\n",
            lines.concat(),
            super::plan::count(actions)
        );
    }
    if actions.is_empty() {
        return format!("there is nothing of cluster {cluster}\n");
    }
    format!("cluster {cluster} is removed, {seconds:.2} s\n")
}
