//! Whether what is in the store is as it was made: a quick look before each use, and a full check by hashing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::cancel::Cancel;
use crate::containers::list_containers;
use crate::debian::{self, check_blob};
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::{Event, OnEvent, Unit};
use crate::files::{read_json, remove};
use crate::loaded;
use crate::node::NodeImage;
use crate::program;
use crate::store::{Kind, Store};
use crate::unpack::Record;
use crate::usage;

/// A piece that is not as it was made.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The piece's path in the store.
    pub piece: Utf8PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// Whether it was removed, to be made again by the next build. Not while a node runs on it or a build holds it.
    pub removed: bool,
}

/// Sizes and times of the programs in an image's root file system.
pub(crate) fn check_quickly(image: &NodeImage) -> Result<(), Error> {
    let rootfs = image.rootfs();
    let epoch = i64::try_from(image.manifest.epoch).unwrap_or(0);
    for file in &image.manifest.quick {
        let path = rootfs.join(&file.path);
        let as_made = fs::symlink_metadata(&path)
            .is_ok_and(|metadata| metadata.len() == file.size && metadata.mtime() == epoch);
        if !as_made {
            return Err(Error::Damaged { what: path, why: "it is not as it was made".into() });
        }
    }
    Ok(())
}

/// Hashes all of an image: its blobs and every file of its root file system.
pub(crate) fn check_image(store: &Store, key: &str) -> Result<(), Error> {
    let image = NodeImage::open(store, key)?;
    let record: Record = read_json(&image.folder.join("files.json"))?;
    let files: Vec<_> = record.into_iter().collect();
    let rootfs = image.rootfs();
    // Reading, not hashing, may be what takes long.
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    let chunk = files.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let checks: Vec<_> = files
            .chunks(chunk)
            .map(|files| {
                let rootfs = &rootfs;
                scope.spawn(move || {
                    files
                        .iter()
                        .try_for_each(|(path, (_, digest))| check_file(&rootfs.join(path), digest))
                })
            })
            .collect();
        checks
            .into_iter()
            .try_for_each(|check| check.join().expect("checking a file does not panic"))
    })?;
    for digest in &image.manifest.blobs {
        check_blob(store, digest)?;
        check_file(&image.oci_layout().join("blobs/sha256").join(digest.hex()), digest)?;
    }
    Ok(())
}

/// Checks a file's content.
pub(crate) fn check_file(path: &Utf8Path, expected: &Sha256) -> Result<(), Error> {
    let why = match Sha256::of_file(path) {
        Ok(found) if found == *expected => return Ok(()),
        Ok(_) => "its content has changed",
        Err(_) => "it cannot be read",
    };
    Err(Error::Damaged { what: path.to_owned(), why: why.into() })
}

/// Checks everything in the store by hashing, and removes what is damaged. Of the container images that users loaded, it
/// checks the documents and that every layer is there; loading such an image again mends it.
///
/// # Errors
/// When the store cannot be read, or [`Error::Cancelled`]. Damage is no error here, it is the answer.
pub fn verify(store: &Store, on_event: OnEvent<'_>, cancel: &Cancel) -> Result<Vec<Damage>, Error> {
    let mut pieces = Vec::new();
    for kind in [Kind::Program, Kind::Base, Kind::Image] {
        pieces.extend(store.keys(kind)?.into_iter().map(|key| (kind, key)));
    }
    let blobs = crate::files::names(&store.root().join("blobs/sha256"))?;
    let containers = store.containers();
    let mut damages = Vec::new();
    let loaded = match list_containers(&containers) {
        Err(Error::Damaged { what, why }) => {
            damages.push(Damage { piece: what, why, removed: false });
            Vec::new()
        }
        result => result?,
    };
    let total = (pieces.len() + blobs.len() + loaded.len()) as u64;
    let mut done = 0;
    let mut progress = || {
        done += 1;
        let step = "verify".to_owned();
        on_event(Event::Progress { step, done, total: Some(total), unit: Unit::Files });
        cancel.check()
    };
    // Blobs last: a piece that needs one is told as damaged before that is gone.
    for (kind, key) in pieces {
        let path = store.piece(kind, &key);
        let checked = match kind {
            Kind::Program => program::check(&path).map(drop),
            Kind::Base => debian::check(store, &path).map(drop),
            Kind::Image => check_image(store, &key),
        };
        if let Some(why) = why(checked)? {
            let removed = remove_piece(store, kind, &key)?;
            damages.push(Damage { piece: path, why, removed });
        }
        progress()?;
    }
    for name in blobs {
        let path = store.root().join("blobs/sha256").join(&name);
        let checked = match name.parse() {
            Ok(digest) => check_file(&path, &digest),
            Err(why) => Err(Error::Damaged { what: path.clone(), why }),
        };
        if let Some(why) = why(checked)? {
            remove(&path)?;
            damages.push(Damage { piece: path, why, removed: true });
        }
        progress()?;
    }
    for image in loaded {
        if let Err(error) = loaded::check(&containers, &image) {
            let Error::Damaged { what, why } = error else { return Err(error) };
            let why = format!("{why}; load the image {} again", image.name);
            damages.push(Damage { piece: what, why, removed: false });
        }
        progress()?;
    }
    Ok(damages)
}

fn why(checked: Result<(), Error>) -> Result<Option<String>, Error> {
    match checked {
        Ok(()) => Ok(None),
        Err(error @ Error::Damaged { .. }) => Ok(Some(error.to_string())),
        Err(Error::Io { source, path, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Ok(Some(format!("{path} is missing")))
        }
        Err(error) => Err(error),
    }
}

/// Removes a piece unless somebody works on it or a node runs on it.
pub(crate) fn remove_piece(store: &Store, kind: Kind, key: &str) -> Result<bool, Error> {
    let path = store.piece(kind, key);
    if kind == Kind::Image && usage::in_use(&path.join("rootfs")) {
        return Ok(false);
    }
    let Some(_lock) = store.try_lock(&format!("{}-{key}", kind.folder()))? else {
        return Ok(false);
    };
    // Renamed first: what is half removed must not look whole.
    let away = store.root().join("tmp").join(format!("removed-{}-{key}", kind.folder()));
    remove(&away)?;
    fs::rename(&path, &away).at("move away", &path)?;
    remove(&away)?;
    Ok(true)
}
