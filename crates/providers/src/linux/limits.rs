//! What nodes may use of the machine, and what they see of it.

use bivouac_spec::Problem;
use bivouac_spec::cluster::Resources;
use bivouac_sys::cgroup::{Cgroup, Limits};
use bivouac_sys::machine::View;

use super::problem::OrProblem as _;
use crate::memory;

/// This provider, as codes of problems name it.
const PROVIDER: &str = "linux";

/// The limits of a node's control group.
pub(super) fn limits(resources: Resources) -> Limits {
    Limits {
        cpu_millis: resources.cpus.map(|cpus| u64::from(cpus.0)),
        memory: resources.memory.map(|memory| memory.0),
        pids: None,
    }
}

/// What a node with these limits sees of the machine: a part of a processor is one.
pub(super) fn view(resources: Resources) -> View {
    View::within(resources.cpus.map(|cpus| cpus.0), resources.memory.map(|memory| memory.0))
}

/// Refuses less memory than a node that runs cannot do without. `label` names the node.
pub(super) fn check(group: &Cgroup, label: &str, resources: Resources) -> Result<(), Problem> {
    memory::check(PROVIDER, label, resources.memory, in_use(group, label)?)
}

/// Limits a node that runs.
pub(super) fn set(group: &Cgroup, label: &str, resources: Resources) -> Result<(), Problem> {
    match (group.set_limits(limits(resources)), resources.memory) {
        (Err(error), Some(memory)) if error.is_busy() => {
            let used = in_use(group, label)?.unwrap_or_default();
            Err(memory::too_little(PROVIDER, label, memory, used).because(&error))
        }
        (other, _) => other.or_problem("limits", cannot(label)).map_err(|problem| {
            problem.help("look whether something in the node, such as a pod, has a higher limit")
        }),
    }
}

fn in_use(group: &Cgroup, label: &str) -> Result<Option<u64>, Problem> {
    group.memory_in_use().or_problem("limits", cannot(label))
}

fn cannot(label: &str) -> String {
    format!("the limits of node {label} cannot be changed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::quantity::{Bytes, Cpus};

    #[test]
    fn a_part_of_a_processor_is_seen_as_one() {
        for (millis, seen) in [(100, 1), (1000, 1), (1001, 2), (2000, 2)] {
            let resources =
                Resources { cpus: Some(Cpus(millis)), memory: Some(Bytes(1 << 30)), disk: None };
            let expected = View { cpus: Some(seen), memory: Some(1 << 30) };
            assert_eq!(view(resources), expected);
        }
        assert_eq!(view(Resources::default()), View::default());
    }
}
