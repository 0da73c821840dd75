//! The node image of a stack: layers (Debian and what the lock says of the stack), an OCI layout, and the root file system
//! that all nodes of a host share.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::MediaType;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::bundle::Bundle;
use crate::containers::empty_index;
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::Unit;
use crate::files::{read_json, write_atomic, write_json};
use crate::layer::Layer;
use crate::oci;
use crate::stack::Stack;
use crate::store::{Context, Kind, Out, Store};
use crate::stream::{HashingReader, decompress};
use crate::unpack::{Record, make_root, unpack};
use crate::upper::{Parts, Upper, upper_layers};

/// The name that the image has in its own OCI layout.
const NAME: &str = "bivouac.dev/node";

/// A file whose size and time are looked at before every use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Quick {
    pub(crate) path: String,
    pub(crate) size: u64,
}

/// `manifest.json` of a node image in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeManifest {
    /// Key of the recipe.
    pub key: String,
    /// What it is for.
    #[serde(default)]
    pub stack: Stack,
    /// Digest of the OCI manifest.
    pub digest: Sha256,
    /// When it was made here.
    pub created: jiff::Timestamp,
    /// `amd64`.
    pub architecture: String,
    /// Time of every file, in seconds since 1970.
    pub epoch: u64,
    /// Versions by program or Debian package.
    pub versions: BTreeMap<String, String>,
    /// Full names of the container images in it.
    pub container_images: Vec<String>,
    /// Bytes of the files in the root file system.
    pub size: u64,
    /// Layers, the lowest first.
    pub layers: Vec<Layer>,
    /// Key of the Debian base.
    pub base: String,
    /// Key of the layer of Debian packages above the base.
    #[serde(default)]
    pub packages: Option<String>,
    /// Keys of the programs.
    pub programs: Vec<String>,
    /// All blobs of the OCI layout.
    pub blobs: Vec<Sha256>,
    pub(crate) quick: Vec<Quick>,
}

/// A node image in the store, ready for use.
#[derive(Clone, Debug)]
pub struct NodeImage {
    /// Its folder in the store.
    pub folder: Utf8PathBuf,
    /// What it is.
    pub manifest: NodeManifest,
}

impl NodeImage {
    /// The image of this key, as it is in the store.
    ///
    /// # Errors
    /// When it is not there or its manifest cannot be read.
    pub fn open(store: &Store, key: &str) -> Result<Self, Error> {
        let folder = store.piece(Kind::Image, key);
        let manifest = read_json(&folder.join("manifest.json"))?;
        Ok(Self { folder, manifest })
    }

    /// The key, by which `prune` knows it.
    pub fn key(&self) -> &str {
        &self.manifest.key
    }

    /// The unpacked root file system, to be shared read-only.
    pub fn rootfs(&self) -> Utf8PathBuf {
        self.folder.join("rootfs")
    }

    /// The OCI layout.
    pub fn oci_layout(&self) -> Utf8PathBuf {
        self.folder.join("oci")
    }
}

/// Fills the piece.
pub(crate) fn assemble(
    store: &Store,
    bundle: &Bundle,
    parts: &Parts,
    out: &Out<'_>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let Upper { layers: upper, container_images } = upper_layers(store, bundle, parts, out)?;
    let debian: Vec<Layer> = parts.debian().map(|debian| debian.layer.clone()).collect();
    let mut work = Work { context, done: 0, total: 0 };
    // Everything is written twice: into layers, and out of them.
    work.total = 2 * upper.iter().map(|(_, builder)| builder.content_size()).sum::<u64>()
        + debian.iter().map(|layer| layer.plain_size).sum::<u64>();
    let mut layers = debian;
    for (name, builder) in &upper {
        let path = out.work.join(format!("{}.tar.zst", name.replace(' ', "-")));
        let before = work.done;
        let layer = builder.write_compressed(&path, &mut |bytes| work.reach(before + bytes))?;
        work.reach(before + builder.content_size())?;
        store.adopt_blob(&path, &layer.digest)?;
        layers.push(layer);
    }
    let debian = parts.debian().count();
    let (record, mut quick) =
        unpack_layers(store, &layers, debian, &out.out.join("rootfs"), &mut work)?;
    quick.sort_by(|one, other| one.path.cmp(&other.path));
    write_json(&out.out.join("files.json"), &record)?;
    let mut steps = vec!["Debian"];
    steps.extend(parts.packages.as_ref().map(|_| "packages"));
    steps.extend(upper.iter().map(|(name, _)| *name));
    let key = bundle.image_key(parts.stack)?;
    let versions = parts.versions(bundle)?;
    let about = About { key: &key, epoch: bundle.lock().epoch, versions: &versions };
    let documents = describe(&about, &layers, &steps);
    let blobs = write_layout(store, &documents, &layers, &out.out.join("oci"))?;
    let programs = bundle.programs(parts.stack)?.iter();
    let manifest = NodeManifest {
        digest: Sha256::of(&documents.manifest),
        created: jiff::Timestamp::now(),
        architecture: oci::host_architecture().into(),
        epoch: bundle.lock().epoch,
        container_images,
        size: record.values().map(|(size, _)| size).sum(),
        base: parts.base.key.clone(),
        packages: parts.packages.as_ref().map(|layer| layer.key.clone()),
        programs: programs.map(|program| bundle.program_key(program)).collect(),
        stack: parts.stack,
        key,
        versions,
        layers,
        blobs,
        quick,
    };
    write_json(&out.out.join("manifest.json"), &manifest)
}

struct Work<'a> {
    context: &'a Context<'a>,
    done: u64,
    total: u64,
}

impl Work<'_> {
    fn reach(&mut self, done: u64) -> Result<(), Error> {
        self.context.cancel.check()?;
        self.done = done.min(self.total);
        self.context.reporter().progress(self.done, Some(self.total), Unit::Bytes);
        Ok(())
    }
}

/// Unpacks the blobs themselves, so that the root file system is what the image says, digest by digest. Of the lowest
/// `debian` layers, only programs and libraries are looked at before every use.
fn unpack_layers(
    store: &Store,
    layers: &[Layer],
    debian: usize,
    rootfs: &Utf8Path,
    work: &mut Work<'_>,
) -> Result<(Record, Vec<Quick>), Error> {
    make_root(rootfs)?;
    let mut record = Record::new();
    let mut quick = BTreeMap::new();
    for (number, layer) in layers.iter().enumerate() {
        let blob = store.blob(&layer.digest);
        let file = fs::File::open(&blob).at("open", &blob)?;
        let (_, plain) = decompress(file).at("read", &blob)?;
        let mut reader = HashingReader::new(plain);
        let mut unpacked = Record::new();
        unpack(&layer.digest.hex()[..12], &mut reader, rootfs, Some(&mut unpacked))?;
        let (found, _) = reader.finish().at("read", &blob)?;
        if found != layer.diff_id {
            return Err(Error::Damaged { what: blob, why: "its content has changed".into() });
        }
        work.reach(work.done + layer.plain_size)?;
        for (path, (size, _)) in &unpacked {
            let program = path.starts_with("usr/bin/") || path.starts_with("usr/sbin/");
            if number >= debian || program || path.contains(".so.") {
                quick.insert(path.clone(), *size);
            }
        }
        record.extend(unpacked);
    }
    // A higher layer may have put something else there, or nothing.
    let is_file = |path: &String| {
        fs::symlink_metadata(rootfs.join(path)).is_ok_and(|metadata| metadata.is_file())
    };
    record.retain(|path, _| is_file(path));
    quick.retain(|path, _| is_file(path));
    let quick = quick.into_iter().map(|(path, size)| Quick { path, size }).collect();
    Ok((record, quick))
}

struct Documents {
    config: Vec<u8>,
    manifest: Vec<u8>,
    index: Vec<u8>,
}

/// What labels of the image say.
struct About<'a> {
    key: &'a str,
    epoch: u64,
    versions: &'a BTreeMap<String, String>,
}

fn describe(about: &About<'_>, layers: &[Layer], steps: &[&str]) -> Documents {
    let versions = about.versions.iter();
    let mut labels: BTreeMap<String, String> = versions
        .map(|(name, version)| (format!("dev.bivouac.version.{name}"), version.clone()))
        .collect();
    labels.insert("dev.bivouac.key".into(), about.key.to_owned());
    labels.insert("org.opencontainers.image.title".into(), "bivouac node".into());
    let created = created(about.epoch);
    let history: Vec<_> =
        steps.iter().map(|step| json!({"created": created, "created_by": step})).collect();
    let config = oci::canonical(&json!({
        "architecture": oci::host_architecture(),
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": ["/usr/local/bin/bivouac", "agent", "run"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Labels": labels,
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>(),
        },
        "history": history,
    }));
    let descriptors = layers
        .iter()
        .map(|layer| oci::descriptor(MediaType::ImageLayerZstd, layer.size, &layer.digest));
    let manifest = oci::canonical(&oci::manifest(
        oci::describe(MediaType::ImageConfig, &config),
        descriptors.collect(),
    ));
    let mut descriptor = oci::describe(MediaType::ImageManifest, &manifest);
    descriptor.set_platform(Some(oci::host_platform()));
    let name = format!("{NAME}:{}", about.key);
    descriptor.set_annotations(Some([(oci::REF_NAME.to_owned(), name)].into()));
    let mut index = empty_index();
    index.set_manifests(vec![descriptor]);
    Documents { config, manifest, index: oci::canonical(&index) }
}

/// A time as images write it.
pub(crate) fn created(epoch: u64) -> String {
    let seconds = i64::try_from(epoch).unwrap_or(0);
    jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string()
}

/// The layout's blobs are the store's, linked.
fn write_layout(
    store: &Store,
    documents: &Documents,
    layers: &[Layer],
    layout: &Utf8Path,
) -> Result<Vec<Sha256>, Error> {
    let folder = layout.join("blobs/sha256");
    fs::create_dir_all(&folder).at("create", &folder)?;
    let mut blobs: Vec<Sha256> = layers.iter().map(|layer| layer.digest).collect();
    for document in [&documents.config, &documents.manifest] {
        let digest = Sha256::of(document);
        write_blob(store, &digest, document)?;
        blobs.push(digest);
    }
    for digest in &blobs {
        let link = folder.join(digest.hex());
        fs::hard_link(store.blob(digest), &link).at("link", &link)?;
    }
    write_atomic(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    write_atomic(&layout.join("index.json"), &documents.index)?;
    Ok(blobs)
}

fn write_blob(store: &Store, digest: &Sha256, bytes: &[u8]) -> Result<(), Error> {
    let temporary =
        store.root().join("tmp").join(format!("{}-{}", digest.hex(), std::process::id()));
    let mut file = fs::File::create(&temporary).at("create", &temporary)?;
    file.write_all(bytes).at("write", &temporary)?;
    store.adopt_blob(&temporary, digest).map(drop)
}
