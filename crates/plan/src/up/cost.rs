//! What it costs to make a node anew around its data.

use bivouac_spec::NodeName;
use bivouac_spec::cluster::{Role, Stack};
use bivouac_spec::facts::ObservedState;

use super::{UpRequest, keepers_of};

/// What stops while the node does.
pub(super) fn of_remaking(request: &UpRequest<'_>, node: &NodeName, role: Role) -> String {
    if role == Role::Balancer {
        return "the API is reached from the nodes only meanwhile".to_owned();
    }
    let work = match request.cluster.spec.stack {
        Stack::Kubernetes(_) => "pods",
        Stack::Incus(_) => "instances",
    };
    let answers = |other: &NodeName| {
        let found = request.observed.and_then(|observed| observed.nodes.get(other));
        other != node && found.is_some_and(|found| found.state == ObservedState::Running)
    };
    if role.keeps_state() && !keepers_of(request.cluster).iter().any(answers) {
        return format!("its {work} stop and the API does not answer meanwhile");
    }
    format!("its {work} stop meanwhile")
}
