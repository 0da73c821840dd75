//! A cluster that is being founded.

use std::collections::BTreeSet;

use bivouac_spec::{NodeName, Problem};

use super::{UpRequest, keepers_of, role_of_keepers};

/// Those who found a cluster know each other as the whole of it, and begin as soon as they are made. With others among them, what was begun
/// and what is to come would be two clusters behind one name.
pub(super) fn other_founders(request: &UpRequest<'_>) -> Option<Problem> {
    let (applied, observed) = request.applied.zip(request.observed)?;
    let before: BTreeSet<NodeName> = keepers_of(&applied.cluster);
    let was_begun = before.iter().any(|name| observed.nodes.contains_key(name));
    if applied.completed.is_some() || !was_begun || before == keepers_of(request.cluster) {
        return None;
    }
    let (cluster, role) = (request.cluster.name(), role_of_keepers(request.cluster));
    let message = format!(
        "the {role} of cluster `{cluster}` cannot change: it was never usable, and they found it together"
    );
    let help = format!(
        "Finish it first: run `bivouac up` with the file as it was before the change. Or run `bivouac down {cluster}`, and then `bivouac up` again."
    );
    Some(Problem::usage("plan.never_usable", message).help(help))
}
