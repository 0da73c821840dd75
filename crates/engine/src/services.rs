//! What runs in the nodes of a cluster, from what is recorded of it: no ground is asked.

use std::collections::BTreeMap;

use bivouac_spec::{NodeName, Problem};

use crate::{ClusterState, StateDirectory};

/// The services and tasks of each node, which have a log each.
///
/// # Errors
/// When the keys of the cluster cannot be read, or were made for another.
pub fn logged_units(
    state: &StateDirectory,
    known: &ClusterState,
) -> Result<BTreeMap<NodeName, Vec<String>>, Problem> {
    let cluster = &known.applied.cluster;
    let Some(keys) = state.read_keys(cluster.name())? else { return Ok(BTreeMap::new()) };
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let configs = stack.render(&known.render_request(), &keys)?;
    let units = configs.into_iter().map(|(node, config)| {
        let services = config.services.into_iter().map(|service| service.name);
        let tasks = config.tasks.into_iter().map(|task| task.name);
        (node, services.chain(tasks).collect())
    });
    Ok(units.collect())
}
