//! `bivouac list`

use std::process::ExitCode;

use bivouac_engine::cluster_status;
use bivouac_spec::Problems;

use crate::args::{self, Global};
use crate::output;
use crate::selection::existing_clusters;

pub async fn run(global: &Global, arguments: &args::List) -> Result<ExitCode, Problems> {
    let existing = existing_clusters(global).await?;
    let asked = existing.iter().map(|cluster| {
        cluster_status(
            cluster.provider.as_ref(),
            cluster.provider_name,
            &cluster.observed,
            cluster.state.as_ref(),
        )
    });
    let statuses = futures::future::join_all(asked).await;
    output::write(arguments.output, &statuses, || {
        if statuses.is_empty() {
            return "there is no cluster; make one with `bivouac up`\n".to_owned();
        }
        let mut rows = vec![["CLUSTER", "PROVIDER", "STATE", "NODES"].map(str::to_owned).to_vec()];
        for status in &statuses {
            let usable = status.nodes.values().filter(|node| node.word() == "usable").count();
            rows.push(vec![
                status.name.to_string(),
                status.provider.clone(),
                (if status.usable { "usable" } else { "not usable" }).to_owned(),
                format!("{usable}/{}", status.nodes.len()),
            ]);
        }
        output::table(&rows)
    })?;
    Ok(ExitCode::SUCCESS)
}
