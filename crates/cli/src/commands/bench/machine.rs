//! What a run costs the machine.

use bivouac_provider::Provider;
use bivouac_spec::{ClusterName, Problem};

use super::figures::NodeMemory;

/// Seconds for which the machine's processors were busy since it started, all of them added up.
pub fn busy_seconds() -> Result<f64, Problem> {
    let busy = bivouac_sys::memory::busy_time()
        .map_err(|error| Problem::from_error("cli.bench", &error))?;
    Ok(busy.as_secs_f64())
}

/// The memory of each node that runs on this machine.
pub async fn memory(
    provider: &dyn Provider,
    cluster: &ClusterName,
) -> Result<Vec<NodeMemory>, Problem> {
    let observed = provider.observe().await?;
    let nodes = observed
        .into_iter()
        .filter(|observed| observed.name == *cluster)
        .flat_map(|observed| observed.nodes);
    let mut memory = Vec::new();
    for (node, observed) in nodes {
        let Some(first) = observed.pid else { continue };
        let pss = bivouac_sys::memory::descendants(first).and_then(bivouac_sys::memory::pss_of_all);
        let pss = pss.map_err(|error| Problem::from_error("cli.bench", &error))?;
        memory.push(NodeMemory { node: node.to_string(), pss });
    }
    Ok(memory)
}
