//! Where members keep instances.

use bivouac_spec::cluster::{Incus, StorageDriver};
use bivouac_spec::node::Task;
use bivouac_spec::{Class, Facts, Problem};

use super::units::task;

/// A task: a file can be used like a disk.
const LOOPS: &str = "loop-devices";
const SCRIPT: &str = include_str!("scripts/loops.sh");

/// Whether nodes of this ground can have it.
pub(super) fn check(settings: &Incus, facts: &Facts) -> Result<(), Problem> {
    let name = settings.storage.driver.name();
    let problem = match settings.storage.driver {
        StorageDriver::Zfs => {
            // Debian has them beside its free packages only.
            let message = format!("the node image has no tools for `{name}`");
            Problem::usage("stack.incus.no_storage_tools", message).help(
                "write `storage: {driver: btrfs}` or `storage: {driver: dir}` below `stack.incus`",
            )
        }
        StorageDriver::Btrfs if !facts.file_systems.contains(name) => {
            let message = format!(
                "members cannot have `{name}` here: the kernel has no such file system, or nodes get no loop devices"
            );
            Problem::new(Class::Unfit, "stack.incus.no_file_system", message)
                .help("write `storage: {driver: dir}` below `stack.incus`, or use a provider whose nodes have it")
        }
        StorageDriver::Btrfs | StorageDriver::Dir => return Ok(()),
    };
    Err(problem)
}

pub(super) fn tasks(settings: &Incus) -> Option<Task> {
    match settings.storage.driver {
        StorageDriver::Dir => None,
        StorageDriver::Btrfs | StorageDriver::Zfs => Some(task(LOOPS, &[], SCRIPT, &[], &[])),
    }
}
