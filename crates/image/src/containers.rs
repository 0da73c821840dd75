//! Container image directories: image content that every node of a host shares, unpacked once.
//!
//! ```text
//! index.json           OCI index, one descriptor an image, named by org.opencontainers.image.ref.name
//! blobs/sha256/<hex>   manifests and configurations only
//! layers/<hex>/        by diff id, unpacked, in overlayfs form
//! ```
//!
//! Nodes see such a directory read-only; the agent registers its images with containerd. What has its final name is on
//! disk: neither an interruption nor a power cut leaves a layer that looks whole and is not.

use std::fs;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, ImageIndex, MediaType};

use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::files::{names, read_json, remove, write_atomic};
use crate::oci;
use crate::store::OwnLock;
use crate::stream::HashingReader;
use crate::unpack::{make_root, unpack};

static NEXT: AtomicU64 = AtomicU64::new(0);

const WRITING: &str = ".tmp/writing.lock";

/// A container image directory, open for changes.
#[derive(Debug)]
pub struct ContainerImages {
    folder: Utf8PathBuf,
    /// Shared among those who write; alone, one may sweep what others left behind.
    _writing: OwnLock,
}

impl ContainerImages {
    /// Opens the directory, creating it where it is missing, and removes what interrupted imports left.
    ///
    /// # Errors
    /// When it cannot be created or locked.
    pub fn open(folder: &Utf8Path) -> Result<Self, Error> {
        for name in ["blobs/sha256", "layers", ".tmp"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let path = folder.join(WRITING);
        if let Some(_alone) = OwnLock::try_exclusive(open_lock(&path)?).at("lock", &path)? {
            for name in names(&folder.join(".tmp"))? {
                if !name.ends_with(".lock") {
                    remove(&folder.join(".tmp").join(name))?;
                }
            }
        }
        let writing = OwnLock::share(open_lock(&path)?).at("lock", &path)?;
        let images = Self { folder: folder.to_owned(), _writing: writing };
        if !folder.join("index.json").exists() {
            images.change_index(|_| ())?;
        }
        Ok(images)
    }

    /// A path for intermediate content that nobody else uses.
    pub(crate) fn temporary(&self) -> Utf8PathBuf {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.folder.join(".tmp").join(format!("{}-{number}", std::process::id()))
    }

    /// Whether the layer is there, unpacked.
    pub(crate) fn has_layer(&self, diff_id: &Sha256) -> bool {
        self.layer(diff_id).exists()
    }

    fn layer(&self, diff_id: &Sha256) -> Utf8PathBuf {
        self.folder.join(layer_path(diff_id))
    }

    /// Unpacks a plain tar stream, which must have this digest; returns the stream's size in bytes.
    pub(crate) fn add_layer(&self, diff_id: &Sha256, tar: impl Read) -> Result<u64, Error> {
        let temporary = self.temporary();
        make_root(&temporary)?;
        let result = self.fill_layer(diff_id, tar, &temporary);
        if result.is_err() {
            // The first error counts.
            let _ = remove(&temporary);
        }
        result
    }

    fn fill_layer(
        &self,
        diff_id: &Sha256,
        tar: impl Read,
        temporary: &Utf8Path,
    ) -> Result<u64, Error> {
        let mut reader = HashingReader::new(tar);
        unpack(&diff_id.hex()[..12], &mut reader, temporary, None)?;
        let (found, size) = reader.finish().at("read", temporary)?;
        if found != *diff_id {
            return Err(Error::Checksum {
                what: "a layer".into(),
                expected: diff_id.hex(),
                found: found.hex(),
            });
        }
        // A layer is many files: all at once costs little more than the writing itself.
        let root = fs::File::open(temporary).at("open", temporary)?;
        rustix::fs::syncfs(&root).at("sync", temporary)?;
        let path = self.layer(diff_id);
        match fs::rename(temporary, &path) {
            Ok(()) => Ok(size),
            // Another import was quicker.
            Err(_) if path.exists() => remove(temporary).map(|()| size),
            Err(error) => Err(error).at("put in place", &path),
        }
    }

    /// Keeps a manifest or a configuration; one that is there and damaged is replaced.
    pub(crate) fn add_blob(&self, bytes: &[u8]) -> Result<Sha256, Error> {
        let digest = Sha256::of(bytes);
        let path = self.folder.join("blobs/sha256").join(digest.hex());
        if !fs::read(&path).is_ok_and(|known| known == bytes) {
            let temporary = self.temporary();
            let mut file = fs::File::create(&temporary).at("create", &temporary)?;
            file.write_all(bytes).at("write", &temporary)?;
            file.sync_data().at("sync", &temporary)?;
            fs::rename(&temporary, &path).at("put in place", &path)?;
        }
        Ok(digest)
    }

    /// Names an image whose blobs and layers are there, taking the name from whatever had it.
    pub(crate) fn name_image(&self, name: &str, manifest: &Descriptor) -> Result<(), Error> {
        let mut manifest = manifest.clone();
        manifest.set_annotations(Some([(oci::REF_NAME.to_owned(), name.to_owned())].into()));
        self.change_index(|manifests| {
            manifests.retain(|known| ref_name(known) != Some(name));
            manifests.push(manifest);
            manifests.sort_by(|one, other| ref_name(one).cmp(&ref_name(other)));
        })
    }

    fn change_index(&self, change: impl FnOnce(&mut Vec<Descriptor>)) -> Result<(), Error> {
        let path = self.folder.join(".tmp/index.lock");
        let _lock = OwnLock::exclusive(open_lock(&path)?).at("lock", &path)?;
        let path = self.folder.join("index.json");
        let mut index = if path.exists() { read_json(&path)? } else { empty_index() };
        let mut manifests = index.manifests().clone();
        change(&mut manifests);
        index.set_manifests(manifests);
        write_atomic(&path, &oci::canonical(&index))
    }

    /// Ends writing and removes what only writers need.
    pub(crate) fn seal(self) -> Result<(), Error> {
        remove(&self.folder.join(".tmp"))
    }
}

/// Where an unpacked layer lies in a container image directory.
pub(crate) fn layer_path(diff_id: &Sha256) -> Utf8PathBuf {
    Utf8Path::new("layers").join(diff_id.hex())
}

/// An image of a container image directory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ContainerImage {
    /// Full name.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Sha256,
}

/// The images of a container image directory, by name; none where there is no such directory.
///
/// # Errors
/// When the index cannot be read.
pub fn list_containers(folder: &Utf8Path) -> Result<Vec<ContainerImage>, Error> {
    let path = folder.join("index.json");
    let index: ImageIndex = match read_json(&path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(Vec::new());
        }
        result => result?,
    };
    let damaged = |why| Error::Damaged { what: path.clone(), why };
    let image = |descriptor: &Descriptor| {
        let name = ref_name(descriptor).unwrap_or_default().to_owned();
        Ok(ContainerImage { name, digest: oci::sha256(descriptor).map_err(damaged)? })
    };
    index.manifests().iter().map(image).collect()
}

pub(crate) fn ref_name(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations().as_ref()?.get(oci::REF_NAME).map(String::as_str)
}

pub(crate) fn empty_index() -> ImageIndex {
    let mut index = ImageIndex::default();
    index.set_schema_version(2);
    index.set_media_type(Some(MediaType::ImageIndex));
    index
}

/// Keeps all who write out of the directory; none while somebody does.
pub(crate) fn lock_alone(folder: &Utf8Path) -> Result<Option<OwnLock>, Error> {
    let path = folder.join(".tmp");
    fs::create_dir_all(&path).at("create", &path)?;
    let path = folder.join(WRITING);
    OwnLock::try_exclusive(open_lock(&path)?).at("lock", &path)
}

fn open_lock(path: &Utf8Path) -> Result<fs::File, Error> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .at("open", path)
}
