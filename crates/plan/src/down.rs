//! What `down` would do.

use bivouac_spec::{ClusterName, ObservedCluster};

use crate::{Action, Plan};

/// What would remove everything that exists of a cluster on the ground. Empty when there is nothing.
#[must_use]
pub fn plan_down(cluster: &ClusterName, observed: Option<&ObservedCluster>) -> Plan {
    let mut plan = Plan::empty(cluster.clone());
    let Some(observed) = observed else { return plan };
    let reason = || format!("cluster {cluster} is taken down");
    let nodes = observed.nodes.keys().cloned();
    plan.actions.extend(nodes.map(|node| Action::DestroyNode { node, reason: reason() }));
    if !observed.networks.is_empty() {
        let networks = observed.networks.clone();
        plan.actions.push(Action::DestroyNetwork { networks, reason: reason() });
    }
    if !observed.remains.is_empty() {
        let (what, reason) = (observed.remains.clone(), "no node needs it".to_owned());
        plan.actions.push(Action::DestroyRemains { what, reason });
    }
    plan
}
