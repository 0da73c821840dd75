//! What all of the node uses, from the control group that it sees as the root.

use bivouac_spec::node::status::Usage;
use bivouac_sys::cgroup::Hierarchy;

use crate::clock::milliseconds;

/// As it is now; `None` where nothing can be told.
pub(super) fn now() -> Option<Usage> {
    let group = Hierarchy::detect().ok()?.root();
    Some(Usage {
        memory: group.memory_in_use().ok().flatten(),
        cpu: group.cpu_time().ok().flatten().map(milliseconds),
        tasks: group.tasks().ok().flatten(),
    })
}
