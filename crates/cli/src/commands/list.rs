//! `bivouac list`

use std::process::ExitCode;

use bivouac_engine::{ClusterStatus, NodeWord, cluster_status, unknown_status};
use bivouac_spec::Problems;

use crate::args::{self, Global};
use crate::grounds::{Existing, existing_clusters};
use crate::selection::open_state;
use crate::{output, report};

pub async fn run(global: &Global, arguments: &args::List) -> Result<ExitCode, Problems> {
    let found = existing_clusters(global, &open_state(global)).await?;
    let statuses = futures::future::join_all(found.clusters.iter().map(status)).await;
    output::write(arguments.output, &statuses, || text(&statuses))?;
    let unknown = statuses.iter().filter(|status| !status.ground_answers);
    let problems = unknown.flat_map(|status| &status.problems).chain(&found.silent);
    for problem in problems {
        report::warning(problem, global.color);
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(cluster: &Existing) -> ClusterStatus {
    let provider = cluster.ground.settings.name();
    match cluster.silenced() {
        Some(why) => unknown_status(cluster.name(), provider, why),
        None => {
            let (ground, state) = (cluster.ground.provider.as_ref(), cluster.state.as_ref());
            cluster_status(ground, provider, &cluster.observed, state).await
        }
    }
}

fn text(statuses: &[ClusterStatus]) -> String {
    if statuses.is_empty() {
        return "there is no cluster; make one with `bivouac up`\n".to_owned();
    }
    let mut rows = vec![["CLUSTER", "PROVIDER", "STATE", "NODES"].map(str::to_owned).to_vec()];
    for status in statuses {
        let usable = status.nodes.values().filter(|node| node.word() == NodeWord::Usable).count();
        let (state, nodes) = match (status.ground_answers, status.usable) {
            (false, _) => ("unknown", "-".to_owned()),
            (true, true) => ("usable", format!("{usable}/{}", status.nodes.len())),
            (true, false) => ("not usable", format!("{usable}/{}", status.nodes.len())),
        };
        rows.push(vec![status.name.to_string(), status.provider.clone(), state.to_owned(), nodes]);
    }
    output::table(&rows)
}
