//! The node sees a machine as large as it may use: a container engine limits it, and shows it all of the machine.

use bivouac_spec::cluster::Resources;
use bivouac_sys::machine::{self, View};
use bivouac_sys::mount::{Attributes, Filesystem, mount, mounts_below};

use super::sentence;
use crate::apply::Applied;

/// Where the files are made that are shown.
const STAGE: &str = "/run/.machine";

/// A pod in a user namespace of its own may mount `proc` and `sysfs` only where it sees whole ones.
const WHOLE: [(&str, Filesystem); 2] =
    [("/run/.kernel/proc", Filesystem::Proc), ("/run/.kernel/sys", Filesystem::Sysfs)];

/// Shows a machine of this size; false where that cannot be: then the node works, and believes that it has more than it has.
pub(super) fn ensure(resources: Resources, applied: &mut Applied) -> bool {
    let view = view(resources);
    let shown = keep_whole_ones().and_then(|()| machine::show(view, "/", STAGE));
    match &shown {
        Ok(()) => applied.changes.push(format!("shown limits: {resources}")),
        Err(error) => applied.warnings.push(format!(
            "the node sees all of the machine in place of its limits: {}",
            sentence(error)
        )),
    }
    shown.is_ok()
}

fn view(resources: Resources) -> View {
    View::within(resources.cpus.map(|cpus| cpus.0), resources.memory.map(|memory| memory.0))
}

fn keep_whole_ones() -> bivouac_sys::Result<()> {
    for (path, filesystem) in WHOLE {
        if !mounts_below(path)?.is_empty() {
            continue;
        }
        // Its failure shows when it is mounted over.
        let _ = std::fs::create_dir_all(path);
        mount(&filesystem, path, Attributes::INERT)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bivouac_spec::quantity::{Bytes, Cpus};
    use bivouac_sys::mount::{Propagation, set_propagation};
    use bivouac_sys::namespace::{Namespace, unshare};

    use super::*;

    #[test]
    fn limits_are_shown_and_shown_again_when_they_are_others() {
        std::thread::spawn(|| {
            unshare(&[Namespace::Mount]).unwrap();
            set_propagation("/", Propagation::Private, true).unwrap();
            // The machine's own stays as it is.
            mount(&Filesystem::Tmpfs { size: None, mode: 0o755 }, "/run", Attributes::default())
                .unwrap();
            let read = |path: &str| std::fs::read_to_string(path).unwrap();
            let total = |path: &str| read(path).lines().next().unwrap().to_owned();
            let whole = total("/proc/meminfo");
            for mebibytes in [300, 400] {
                let mut applied = Applied::default();
                let memory = Some(Bytes(mebibytes << 20));
                assert!(
                    ensure(Resources { cpus: Some(Cpus(700)), memory, disk: None }, &mut applied),
                    "{applied:?}"
                );
                assert_eq!(applied.changes.len(), 1);
                let shown = total("/proc/meminfo");
                assert!(shown.ends_with(&format!(" {} kB", mebibytes << 10)), "{shown}");
                // One of those that this process may run on.
                let online = read("/sys/devices/system/cpu/online");
                assert!(online.trim().parse::<u32>().is_ok(), "{online}");
                // Whole ones are beside them, once.
                assert_eq!(total("/run/.kernel/proc/meminfo"), whole);
                assert_eq!(mounts_below("/run/.kernel/proc").unwrap().len(), 1);
            }
            assert!(ensure(Resources::default(), &mut Applied::default()));
            assert_eq!(total("/proc/meminfo"), whole);
        })
        .join()
        .unwrap();
    }
}
