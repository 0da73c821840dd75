//! What node images there are, and removing those that nobody wants, with what of loaded images has lost its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;

use camino::Utf8Path;

use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::files::{names, remove};
use crate::loaded::open_unreached;
use crate::node::NodeImage;
use crate::stack::Stack;
use crate::store::{Kind, Store};
use crate::usage;
use crate::verify::remove_piece;

/// A node image as `list` shows it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NodeImageInfo {
    /// Key, by which `prune` keeps it.
    pub key: String,
    /// What it is for.
    pub stack: Stack,
    /// Digest of the OCI manifest.
    pub digest: Sha256,
    /// When it was made here.
    pub created: jiff::Timestamp,
    /// Versions by program or Debian package.
    pub versions: BTreeMap<String, String>,
    /// Bytes of the files in its root file system.
    pub size: u64,
    /// Whether a node runs on it.
    pub in_use: bool,
}

/// What `prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pruned {
    /// Paths of removed pieces, below the store.
    pub removed: Vec<String>,
    /// Bytes that are free again.
    pub bytes: u64,
    /// Whether a build was running, so that what builds share was left alone.
    pub build_running: bool,
}

/// All node images, the newest first. An image whose manifest cannot be read is left out: a build makes it again.
///
/// # Errors
/// When the store cannot be read.
pub fn list(store: &Store) -> Result<Vec<NodeImageInfo>, Error> {
    let mounts = usage::mounts();
    let mut images = Vec::new();
    for key in store.keys(Kind::Image)? {
        let Ok(image) = NodeImage::open(store, &key) else { continue };
        let rootfs = image.rootfs();
        let in_use = mounts.iter().any(|table| usage::names(table, rootfs.as_str()));
        let manifest = image.manifest;
        images.push(NodeImageInfo {
            key,
            stack: manifest.stack,
            digest: manifest.digest,
            created: manifest.created,
            versions: manifest.versions,
            size: manifest.size,
            in_use,
        });
    }
    images.sort_by(|one, other| other.created.cmp(&one.created).then(one.key.cmp(&other.key)));
    Ok(images)
}

/// Removes node images that are neither kept nor in use, then programs, bases and blobs that no remaining image is
/// made of, and what interrupted builds left. While a build runs, only images are removed.
///
/// Of the container images that users loaded, layers and blobs go that no name leads to any more, unless a running node has
/// them mounted or some are being loaded. With `keep_loaded` all stay: nodes that are not there now have links to them.
///
/// # Errors
/// When something cannot be removed.
pub fn prune(store: &Store, keep: &[&str], keep_loaded: bool) -> Result<Pruned, Error> {
    let mut pruning = Pruning { store, pruned: Pruned::default() };
    let mut used = Used::default();
    for key in store.keys(Kind::Image)? {
        let wanted = keep.contains(&key.as_str());
        if !wanted && pruning.piece(Kind::Image, &key)? {
            continue;
        }
        if let Ok(image) = NodeImage::open(store, &key) {
            let debian = std::iter::once(image.manifest.base).chain(image.manifest.packages);
            used.pieces.extend(debian.map(|key| (Kind::Base, key)));
            let programs = image.manifest.programs.into_iter();
            used.pieces.extend(programs.map(|key| (Kind::Program, key)));
            used.blobs.extend(image.manifest.blobs.iter().map(Sha256::hex));
        }
    }
    if !keep_loaded {
        pruning.loaded()?;
    }
    // Builds hold it among themselves while they make what is not part of an image yet.
    let Some(_lock) = store.try_lock("building")? else {
        pruning.pruned.build_running = true;
        return Ok(pruning.pruned);
    };
    for kind in [Kind::Program, Kind::Base] {
        for key in store.keys(kind)? {
            if !used.pieces.contains(&(kind, key.clone())) {
                pruning.piece(kind, &key)?;
            }
        }
    }
    for name in names(&store.root().join("blobs/sha256"))? {
        if !used.blobs.contains(&name) {
            pruning.path(&format!("blobs/sha256/{name}"))?;
        }
    }
    for name in names(&store.root().join("tmp"))? {
        let busy_image = name
            .strip_prefix("damaged-")
            .and_then(|rest| rest.split('.').next())
            .is_some_and(|key| usage::in_use(&store.piece(Kind::Image, key).join("rootfs")));
        if !busy_image {
            pruning.path(&format!("tmp/{name}"))?;
        }
    }
    Ok(pruning.pruned)
}

#[derive(Default)]
struct Used {
    pieces: BTreeSet<(Kind, String)>,
    blobs: BTreeSet<String>,
}

struct Pruning<'a> {
    store: &'a Store,
    pruned: Pruned,
}

impl Pruning<'_> {
    fn piece(&mut self, kind: Kind, key: &str) -> Result<bool, Error> {
        let size = size_of(&self.store.piece(kind, key))?;
        let removed = remove_piece(self.store, kind, key)?;
        if removed {
            self.pruned.removed.push(format!("{}/{key}", kind.folder()));
            self.pruned.bytes += size;
        }
        Ok(removed)
    }

    fn loaded(&mut self) -> Result<(), Error> {
        let folder = self.store.containers();
        let Some(unreached) = open_unreached(&folder)? else { return Ok(()) };
        for name in &unreached.names {
            let path = folder.join(name);
            self.pruned.bytes += size_of(&path)?;
            // Renamed first: a layer that is half removed must not look whole.
            let away = folder.join(".tmp").join(format!("removed-{}", name.replace('/', "-")));
            remove(&away)?;
            fs::rename(&path, &away).at("move away", &path)?;
            remove(&away)?;
            self.pruned.removed.push(format!("containers/{name}"));
        }
        Ok(())
    }

    fn path(&mut self, name: &str) -> Result<(), Error> {
        let path = self.store.root().join(name);
        self.pruned.bytes += size_of(&path)?;
        remove(&path)?;
        self.pruned.removed.push(name.to_owned());
        Ok(())
    }
}

/// Bytes on disk that go with a path: of a file with several names, only the last one frees anything.
fn size_of(path: &Utf8Path) -> Result<u64, Error> {
    let metadata = fs::symlink_metadata(path).at("examine", path)?;
    if metadata.is_dir() {
        return names(path)?.iter().map(|name| size_of(&path.join(name))).sum();
    }
    Ok(if metadata.nlink() > 1 { 0 } else { metadata.blocks() * 512 })
}
