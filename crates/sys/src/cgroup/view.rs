//! The cgroup file systems inside a node.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{Hierarchy, Version};
use crate::Result;
use crate::error::Context;
use crate::mount::{Attributes, Filesystem, mount};

/// Mounts what `/sys/fs/cgroup` is to be at `target`, an existing directory, seen from the caller's cgroup namespace: on
/// v2 one mount, on v1 a tmpfs with one mount a hierarchy and links for controllers that share one. The caller is in a
/// cgroup namespace of its own; `hierarchy` may have been detected outside of it, since only its controllers count.
pub fn mount_view(hierarchy: &Hierarchy, target: impl AsRef<Path>) -> Result<()> {
    let target = target.as_ref();
    if hierarchy.version() == Version::V2 {
        return mount(&Filesystem::Cgroup2, target, Attributes::INERT);
    }
    mount(&Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o755 }, target, Attributes::INERT)?;
    for mounted in hierarchy.mounted() {
        let controllers = mounted.controllers.join(",");
        let name = controllers.strip_prefix("name=").unwrap_or(&controllers).to_owned();
        let folder = target.join(&name);
        fs::create_dir_all(&folder).at("mkdir", folder.display())?;
        mount(&Filesystem::Cgroup1 { controllers }, &folder, Attributes::INERT)?;
        if let [_, _, ..] = mounted.controllers.as_slice() {
            for controller in &mounted.controllers {
                let link = target.join(controller);
                match symlink(&name, &link) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                    other => other.at("symlink", link.display())?,
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cgroup::{Cgroup, files};
    use crate::namespace::{Namespace, unshare};
    use crate::testing::isolated;

    #[test]
    fn a_node_sees_its_own_group_as_the_root() {
        let hierarchy = Hierarchy::detect().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().to_owned();
        isolated(move || {
            unshare(&[Namespace::Cgroup]).unwrap();
            mount_view(&hierarchy, &target).unwrap();
            if hierarchy.version() == Version::V2 {
                // A group with processes has no place for groups below it: what is seen is who is in it.
                let mut pids = BTreeSet::new();
                files::read_pids(&target, &mut pids).unwrap();
                assert!(pids.contains(&std::process::id()), "{pids:?}");
                return;
            }
            let marker =
                Cgroup::ensure(&hierarchy, format!("bivouac-view-{}", std::process::id())).unwrap();
            let name = marker.folders().next().unwrap().file_name().unwrap().to_owned();
            assert!(target.join("pids").join(name).join("cgroup.procs").exists());
            marker.remove(std::time::Duration::from_secs(120)).unwrap();
        });
    }
}
