//! What the images of a container image directory are made of: whether it is all there, and what no image needs.
//!
//! Not here: filling such a directory, see `containers`.

use std::collections::BTreeSet;

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::ImageManifest;

use crate::containers::{ContainerImage, list_containers, lock_alone};
use crate::digest::Sha256;
use crate::error::Error;
use crate::files::{names, read_json};
use crate::oci::{self, ConfigSummary};
use crate::store::OwnLock;
use crate::usage;
use crate::verify::check_file;

/// Names, below the directory, of what an image is made of.
type Parts = BTreeSet<String>;

/// Pieces of a directory that no image is made of; as long as this lives, nobody adds any.
#[derive(Debug)]
pub(crate) struct Unreached {
    pub(crate) names: Vec<String>,
    _alone: OwnLock,
}

/// Finds the layers and blobs that no image of the index is made of. None while a node has the directory mounted, for its
/// containers may run on what has lost its name since, while somebody writes, or when an image is damaged.
pub(crate) fn open_unreached(folder: &Utf8Path) -> Result<Option<Unreached>, Error> {
    if !folder.join("index.json").exists() || usage::is_mounted(folder) {
        return Ok(None);
    }
    let Some(alone) = lock_alone(folder)? else { return Ok(None) };
    let mut reached = Parts::new();
    for image in list_containers(folder)? {
        match check(folder, &image) {
            Ok(parts) => reached.extend(parts),
            Err(Error::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    let mut unreached = Vec::new();
    for kind in ["blobs/sha256", "layers"] {
        let found = names(&folder.join(kind))?.into_iter().map(|name| format!("{kind}/{name}"));
        unreached.extend(found.filter(|name| !reached.contains(name)));
    }
    Ok(Some(Unreached { names: unreached, _alone: alone }))
}

/// Checks that the image's manifest and configuration are as their digests say and that its layers are there; returns
/// what it is made of.
pub(crate) fn check(folder: &Utf8Path, image: &ContainerImage) -> Result<Parts, Error> {
    let mut parts = Parts::new();
    let mut blob = |digest: &Sha256| -> Result<Utf8PathBuf, Error> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let path = folder.join(&name);
        check_file(&path, digest)?;
        parts.insert(name);
        Ok(path)
    };
    let path = blob(&image.digest)?;
    let manifest: ImageManifest = read_json(&path)?;
    let digest = oci::sha256(manifest.config());
    let path = blob(&digest.map_err(|why| Error::Damaged { what: path.clone(), why })?)?;
    let config: ConfigSummary = read_json(&path)?;
    for diff_id in &config.rootfs.diff_ids {
        let name = format!("layers/{}", diff_id.hex());
        let path = folder.join(&name);
        if !path.is_dir() {
            return Err(Error::Damaged { what: path, why: "this layer is missing".into() });
        }
        parts.insert(name);
    }
    Ok(parts)
}
