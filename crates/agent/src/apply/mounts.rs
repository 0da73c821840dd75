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

/// Which of these mounts are there and are not as the config wants them, and a sentence for each.
pub(crate) fn leftovers(
    before: &[Mount],
    wanted: &[Mount],
    places: &Places,
) -> Vec<(Mount, String)> {
    let sentence = |mount: &Mount| {
        let target = &mount.target;
        let same = wanted.iter().find(|wanted| wanted.target == *target);
        match same {
            None => Some(format!("the mount at {target} stays until the node starts again")),
            // Another one is made on top of it.
            Some(wanted) if wanted.source != mount.source || wanted.kind != mount.kind => None,
            Some(wanted) if wanted.options != mount.options => {
                Some(format!("the mount at {target} keeps its options until the node starts again"))
            }
            Some(_) => None,
        }
    };
    let is_there = |mount: &&Mount| table_has(&places.inside(&mount.target), |_| true);
    let left = before.iter().filter_map(|mount| Some((mount, sentence(mount)?)));
    left.filter(|(mount, _)| is_there(mount)).map(|(mount, text)| (mount.clone(), text)).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::mount::{Propagation, set_propagation};
    use bivouac_sys::namespace::{Namespace, unshare};
    use camino::Utf8PathBuf;

    #[test]
    fn what_stays_of_a_config_before_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        std::thread::spawn(move || {
            unshare(&[Namespace::Mount]).unwrap();
            set_propagation("/", Propagation::Private, true).unwrap();
            let places = Places { root, ..Places::default() };
            let tmpfs = |target: &str, options: &[&str]| Mount {
                source: "tmpfs".to_owned(),
                target: target.into(),
                kind: "tmpfs".to_owned(),
                options: options.iter().map(|option| (*option).to_owned()).collect(),
            };
            let before = [tmpfs("/same", &[]), tmpfs("/other", &[]), tmpfs("/gone", &[])];
            let mut applied = Applied::default();
            for mount in &before {
                ensure_mount(mount, &places, &mut applied).unwrap();
            }
            let wanted = [tmpfs("/same", &[]), tmpfs("/other", &["size=1m"])];
            let sentences = || -> Vec<String> {
                leftovers(&before, &wanted, &places).into_iter().map(|(_, text)| text).collect()
            };
            assert_eq!(
                sentences(),
                [
                    "the mount at /other keeps its options until the node starts again",
                    "the mount at /gone stays until the node starts again"
                ]
            );
            bivouac_sys::mount::detach(places.inside(Utf8Path::new("/gone"))).unwrap();
            assert_eq!(sentences().len(), 1, "somebody unmounted it");
        })
        .join()
        .unwrap();
    }
}
