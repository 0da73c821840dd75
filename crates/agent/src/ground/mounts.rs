//! What a container engine mounts read-only and a node must write to, and what a node's mounts spread to.

use std::path::Path;

use bivouac_sys::mount::{
    Mount, Propagation, make_writable, mounts, mounts_below, set_propagation,
};

use super::{Error, sentence};
use crate::apply::Applied;

/// Makes `/sys` and all control groups in it writable; also kernel parameters, where they are not, as far as that is permitted.
pub(super) fn ensure_writable(applied: &mut Applied) -> Result<(), Error> {
    let failed =
        |target: &Path, source| Error::ReadOnly { target: target.display().to_string(), source };
    let table = mounts_below("/sys").map_err(|error| failed(Path::new("/sys"), error))?;
    for mount in table.iter().filter(|mount| is_needed(mount) && is_read_only(mount)) {
        make_writable(mount).map_err(|error| failed(&mount.target, error))?;
        applied.changes.push(format!("writable {}", mount.target.display()));
    }
    let parameters = mounts_below("/proc/sys").unwrap_or_default();
    for mount in parameters
        .iter()
        .filter(|mount| mount.target == Path::new("/proc/sys") && is_read_only(mount))
    {
        match make_writable(mount) {
            Ok(()) => applied.changes.push("writable /proc/sys".to_owned()),
            Err(error) => applied.warnings.push(sentence(&error)),
        }
    }
    Ok(())
}

/// Whether nodes write there. Other mounts below `/sys`, such as those that hide something, stay as they are.
fn is_needed(mount: &Mount) -> bool {
    mount.target == Path::new("/sys") || mount.target.starts_with("/sys/fs/cgroup")
}

fn is_read_only(mount: &Mount) -> bool {
    let says = |options: &str| options.split(',').any(|option| option == "ro");
    says(&mount.options) || says(&mount.super_options)
}

/// Makes every mount shared: those that the kubelet makes must be seen in the pods that share them.
pub(super) fn ensure_shared(applied: &mut Applied) -> Result<(), Error> {
    let table = mounts().map_err(Error::Propagation)?;
    if table.iter().all(|mount| mount.shared) {
        return Ok(());
    }
    set_propagation("/", Propagation::Shared, true).map_err(Error::Propagation)?;
    applied.changes.push("shared mounts".to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::mount::{Attributes, remount};
    use bivouac_sys::namespace::{Namespace, unshare};

    #[test]
    fn control_groups_become_writable_and_mounts_shared_once() {
        std::thread::spawn(|| {
            unshare(&[Namespace::Mount]).unwrap();
            set_propagation("/", Propagation::Private, true).unwrap();
            let locked = Attributes { read_only: true, ..Attributes::INERT };
            let before: Vec<_> =
                mounts_below("/sys").unwrap().into_iter().filter(is_needed).collect();
            for mount in &before {
                remount(&mount.target, locked).unwrap();
            }
            let mut applied = Applied::default();
            ensure_writable(&mut applied).unwrap();
            ensure_shared(&mut applied).unwrap();
            assert_eq!(applied.changes.len(), before.len() + 1, "{applied:?}");
            assert!(!mounts_below("/sys").unwrap().iter().any(|m| is_needed(m) && is_read_only(m)));
            let mut again = Applied::default();
            ensure_writable(&mut again).unwrap();
            ensure_shared(&mut again).unwrap();
            assert_eq!(again, Applied::default());
        })
        .join()
        .unwrap();
    }
}
