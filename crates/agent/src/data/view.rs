//! A folder in which the node's own files are seen and nothing of what is mounted among them: volumes in memory, root file systems of
//! containers, folders of images that other nodes use too.

use std::collections::BTreeSet;
use std::fs;

use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use bivouac_sys::mount::{
    Attributes, Filesystem, Propagation, bind, mount, mounts, set_propagation,
};
use bivouac_sys::namespace::{Namespace, unshare};
use camino::{Utf8Path, Utf8PathBuf};

/// The view, which only this process and its children have. It is gone with them.
#[derive(Debug)]
pub(super) struct View {
    /// Where it is: `/var` is below it under its own name.
    pub(super) root: Utf8PathBuf,
    /// The paths in it that were asked for, relative to its root.
    pub(super) paths: Vec<Utf8PathBuf>,
    /// Where something is mounted in the node, relative to its root: these folders must not be removed.
    pub(super) mounted: BTreeSet<Utf8PathBuf>,
    /// Those of them whose files are the node's own.
    pub(super) own: BTreeSet<Utf8PathBuf>,
}

impl View {
    /// Opens a view of these paths, which are absolute. The calling thread leaves the mount namespace of the node.
    pub(super) fn open(root: Utf8PathBuf, paths: &[Utf8PathBuf]) -> Result<Self, Problem> {
        if let Some(path) = paths.iter().find(|path| !path.is_absolute() || !path.is_dir()) {
            let text = format!("`{path}` is no absolute path of a folder");
            return Err(Problem::usage("agent.data.path", text));
        }
        let failed = |error: &dyn std::error::Error| {
            Problem::failed("agent.data.view", "the data of the node cannot be looked at alone")
                .because(error)
        };
        let mut view = Self {
            root,
            paths: paths.iter().map(|path| relative(path).to_owned()).collect(),
            mounted: BTreeSet::new(),
            own: BTreeSet::new(),
        };
        view.look(paths).map_err(|error| failed(&error))?;
        fs::create_dir_all(&view.root).map_err(|error| failed(&error))?;
        view.make().map_err(|error| failed(&error))?;
        Ok(view)
    }

    /// What is mounted below the paths.
    fn look(&mut self, paths: &[Utf8PathBuf]) -> bivouac_sys::Result<()> {
        for mount in mounts()? {
            let Ok(target) = Utf8PathBuf::from_path_buf(mount.target) else { continue };
            if !paths.iter().any(|path| target.starts_with(path)) {
                continue;
            }
            if paths::REAL_DIRECTORIES.contains(&target.as_str()) || paths.contains(&target) {
                self.own.insert(relative(&target).to_owned());
            }
            self.mounted.insert(relative(&target).to_owned());
        }
        Ok(())
    }

    fn make(&self) -> bivouac_sys::Result<()> {
        unshare(&[Namespace::Mount])?;
        set_propagation("/", Propagation::Private, true)?;
        mount(&Filesystem::Tmpfs { size: None, mode: 0o700 }, &self.root, Attributes::default())?;
        // A folder before those below it: sets of paths are in that order.
        let all: BTreeSet<&Utf8PathBuf> = self.paths.iter().chain(&self.own).collect();
        for path in all {
            let target = self.root.join(path);
            // Below a path that was bound before, it is there.
            let _ = fs::create_dir_all(&target);
            bind(Utf8Path::new("/").join(path), &target)?;
        }
        Ok(())
    }
}

/// A path without its first `/`.
pub(super) fn relative(path: &Utf8Path) -> &Utf8Path {
    path.strip_prefix("/").unwrap_or(path)
}
