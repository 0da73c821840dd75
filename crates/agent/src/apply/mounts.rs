//! Mounts of the config.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bivouac_spec::node::Mount;
use bivouac_sys::mount::{mount_fstab, mounts};
use camino::Utf8Path;

use super::{Applied, Error};
use crate::options::Places;

/// Mounts it where it is not mounted already.
pub(super) fn ensure_mount(
    mount: &Mount,
    places: &Places,
    applied: &mut Applied,
) -> Result<(), Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Mount {
        kind: mount.kind.clone(),
        target: mount.target.clone(),
        source,
    };
    let target = places.inside(&mount.target);
    let source = Utf8Path::new(&mount.source);
    let is_bind = mount.kind == "bind" || mount.options.iter().any(|o| o == "bind" || o == "rbind");
    if is_bind && fs::metadata(source).is_ok_and(|metadata| !metadata.is_dir()) {
        if !target.exists() {
            target
                .parent()
                .map_or(Ok(()), |parent: &Utf8Path| fs::create_dir_all(parent))
                .and_then(|()| fs::write(&target, ""))
                .map_err(|error| failed(error.into()))?;
        }
    } else {
        fs::create_dir_all(&target).map_err(|error| failed(error.into()))?;
    }
    let is_so = if is_bind { is_same(source, &target) } else { is_mounted(&mount.kind, &target) };
    if !is_so {
        mount_fstab(source, &target, &mount.kind, &mount.options)
            .map_err(|error| failed(error.into()))?;
        applied.changes.push(format!("mount {}", mount.target));
    }
    Ok(())
}

fn is_same(source: &Utf8Path, target: &Utf8Path) -> bool {
    let identity =
        |path| fs::metadata(path).map(|metadata: fs::Metadata| (metadata.dev(), metadata.ino()));
    let same = matches!((identity(source), identity(target)), (Ok(a), Ok(b)) if a == b);
    // A path bound on itself is the same before too: only the table tells.
    same && (source != target || table_has(target, |_| true))
}

fn is_mounted(kind: &str, target: &Utf8Path) -> bool {
    table_has(target, |present| present == kind)
}

/// Whether the mount on top at this path is of such a kind.
fn table_has(target: &Utf8Path, fits: impl Fn(&str) -> bool) -> bool {
    let table = mounts().unwrap_or_default();
    table.iter().rev().find(|mount| mount.target == *target).is_some_and(|mount| fits(&mount.kind))
}
