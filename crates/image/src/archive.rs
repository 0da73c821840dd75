//! Imports image archives into a container image directory: `docker save` archives, old and new, OCI archives and
//! OCI layout folders.

use std::io::{self, Read};

use camino::Utf8Path;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, MediaType, Os};
use serde::Deserialize;

use crate::containers::{ContainerImages, ref_name};
use crate::contents::Contents;
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::{OnEvent, Reporter, Unit};
use crate::oci::{self, ConfigSummary};
use crate::reference::normalize;
use crate::stream::{Compression, HashingReader, decompress};

/// containerd and Docker put the full name here.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// An image that is now in the directory.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Imported {
    /// Full name, `docker.io/library/nginx:1`.
    pub name: String,
    /// Digest of its manifest.
    pub digest: Sha256,
    /// Bytes of its manifest's layers.
    pub size: u64,
}

/// Imports every image of an archive, or of an OCI layout folder, that fits this machine.
///
/// # Errors
/// [`Error::NotAnArchive`], [`Error::Truncated`], [`Error::WrongArchitecture`], [`Error::UnsupportedMediaType`],
/// [`Error::UnsafeEntry`], [`Error::Checksum`] or [`Error::Io`]. Layers that were finished stay for the next attempt.
pub fn import_archive(
    folder: &Utf8Path,
    archive: &Utf8Path,
    on_event: OnEvent<'_>,
) -> Result<Vec<Imported>, Error> {
    let images = ContainerImages::open(folder)?;
    let contents = Contents::open(archive, || images.temporary())?;
    Import { images: &images, contents: &contents, on_event }.run()
}

/// Imports an archive that arrives as a stream. `what` names it in errors.
///
/// The stream is kept in a file first: an archive tells what its parts are at its end.
///
/// # Errors
/// As [`import_archive`].
pub fn import_stream(
    folder: &Utf8Path,
    what: &str,
    archive: impl Read,
    on_event: OnEvent<'_>,
) -> Result<Vec<Imported>, Error> {
    let images = ContainerImages::open(folder)?;
    let contents = Contents::receive(what, archive, &images.temporary(), on_event)?;
    Import { images: &images, contents: &contents, on_event }.run()
}

struct Import<'a> {
    images: &'a ContainerImages,
    contents: &'a Contents,
    on_event: OnEvent<'a>,
}

/// An entry of `manifest.json` in what `docker save` writes.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// A layer to unpack: its name in the archive, and its diff id.
struct LayerSource {
    path: String,
    diff_id: Sha256,
}

impl Import<'_> {
    fn run(&self) -> Result<Vec<Imported>, Error> {
        let docker: Option<Vec<DockerManifest>> = self.contents.json("manifest.json")?;
        let index: Option<ImageIndex> = self.contents.json("index.json")?;
        let mut imported = match (index, docker) {
            // The index keeps the digest that the image has elsewhere.
            (Some(index), docker) => self.index(&index, docker.as_deref())?,
            (None, Some(docker)) => {
                let mut imported = Vec::new();
                for manifest in &docker {
                    imported.extend(self.docker(manifest)?);
                }
                imported
            }
            (None, None) => {
                return Err(self
                    .contents
                    .no_archive("it has neither index.json nor manifest.json"));
            }
        };
        if imported.is_empty() {
            return Err(self.contents.no_archive("it holds no image"));
        }
        imported.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(imported)
    }

    fn index(
        &self,
        index: &ImageIndex,
        docker: Option<&[DockerManifest]>,
    ) -> Result<Vec<Imported>, Error> {
        let mut imported = Vec::new();
        let mut others = Vec::new();
        let mut first_name = None;
        for descriptor in index.manifests() {
            let names = self.names(descriptor, docker)?;
            first_name = first_name.or_else(|| names.first().cloned());
            if let Some(manifest) = self.choose(descriptor, &names, &mut others)? {
                imported.extend(self.manifest(&manifest, &names)?);
            }
        }
        match (imported.is_empty(), first_name) {
            (true, Some(image)) if !others.is_empty() => Err(wrong_architecture(image, &others)),
            _ => Ok(imported),
        }
    }

    /// The manifest for this machine: the descriptor's own, or one from the index that it names.
    fn choose(
        &self,
        descriptor: &Descriptor,
        names: &[String],
        others: &mut Vec<String>,
    ) -> Result<Option<Descriptor>, Error> {
        if is_index(descriptor.media_type()) {
            let nested: ImageIndex = self
                .contents
                .parse(&blob_path(&self.digest(descriptor)?), &self.verified(descriptor)?)?;
            let mut found = Vec::new();
            for manifest in nested.manifests() {
                if let Some(manifest) = self.choose(manifest, names, &mut found)? {
                    return Ok(Some(manifest));
                }
            }
            others.extend(found);
            return Ok(None);
        }
        if !is_manifest(descriptor.media_type()) {
            return Err(Error::UnsupportedMediaType {
                image: names.join(", "),
                media_type: descriptor.media_type().to_string(),
            });
        }
        if let Some(platform) = descriptor.platform() {
            let host = oci::host_platform();
            // Attestations say unknown/unknown.
            if *platform.os() == Os::Other("unknown".into())
                || *platform.architecture() == Arch::Other("unknown".into())
            {
                return Ok(None);
            }
            if platform.os() != host.os() || platform.architecture() != host.architecture() {
                others.push(format!("{}/{}", platform.os(), platform.architecture()));
                return Ok(None);
            }
        }
        Ok(Some(descriptor.clone()))
    }

    fn manifest(&self, descriptor: &Descriptor, names: &[String]) -> Result<Vec<Imported>, Error> {
        let bytes = self.verified(descriptor)?;
        let path = blob_path(&self.digest(descriptor)?);
        let manifest: ImageManifest = self.contents.parse(&path, &bytes)?;
        let config = self.verified(manifest.config())?;
        let summary = self.summary(&config, names)?;
        let mut layers = Vec::new();
        for (layer, diff_id) in manifest.layers().iter().zip(&summary.rootfs.diff_ids) {
            check_layer_type(layer.media_type(), names)?;
            layers.push(LayerSource { path: blob_path(&self.digest(layer)?), diff_id: *diff_id });
        }
        if layers.len() != manifest.layers().len() || layers.len() != summary.rootfs.diff_ids.len()
        {
            return Err(self.contents.no_archive("its manifest and configuration disagree"));
        }
        self.layers(&layers)?;
        let size = manifest.layers().iter().map(Descriptor::size).sum();
        self.images.add_blob(&config)?;
        self.images.add_blob(&bytes)?;
        let mut kept = Descriptor::new(
            descriptor.media_type().clone(),
            descriptor.size(),
            descriptor.digest().clone(),
        );
        kept.set_platform(Some(oci::host_platform()));
        self.name(&kept, size, names)
    }

    fn docker(&self, source: &DockerManifest) -> Result<Vec<Imported>, Error> {
        let names = match source.repo_tags.as_deref() {
            None | Some([]) => vec![self.name_by_file("latest")?],
            Some(tags) => tags.iter().map(|tag| normalize(tag)).collect::<Result<_, _>>()?,
        };
        let config = self.contents.small(&source.config)?;
        let summary = self.summary(&config, &names)?;
        if source.layers.len() != summary.rootfs.diff_ids.len() {
            return Err(self.contents.no_archive("its manifest and configuration disagree"));
        }
        let mut layers = Vec::new();
        let mut descriptors = Vec::new();
        for (path, diff_id) in source.layers.iter().zip(&summary.rootfs.diff_ids) {
            descriptors.push(self.describe_layer(path, diff_id)?);
            layers.push(LayerSource { path: path.clone(), diff_id: *diff_id });
        }
        self.layers(&layers)?;
        let size = descriptors.iter().map(Descriptor::size).sum();
        let manifest = oci::manifest(oci::describe(MediaType::ImageConfig, &config), descriptors);
        let bytes = oci::canonical(&manifest);
        self.images.add_blob(&config)?;
        self.images.add_blob(&bytes)?;
        let mut descriptor = oci::describe(MediaType::ImageManifest, &bytes);
        descriptor.set_platform(Some(oci::host_platform()));
        self.name(&descriptor, size, &names)
    }

    /// Layers of these archives are plain, but for those of some other tools, which are hashed as they are.
    fn describe_layer(&self, path: &str, diff_id: &Sha256) -> Result<Descriptor, Error> {
        let mut start = [0; 4];
        let mut reader = self.contents.open_part(path)?;
        let count = reader.read(&mut start).at("read", path)?;
        let media_type = match Compression::of(&start[..count]) {
            Compression::Plain => {
                let size = self.contents.size(path)?;
                return Ok(oci::descriptor(MediaType::ImageLayer, size, diff_id));
            }
            Compression::Gzip => MediaType::ImageLayerGzip,
            Compression::Zstd => MediaType::ImageLayerZstd,
        };
        let whole = HashingReader::new(self.contents.open_part(path)?);
        let (digest, size) = whole.finish().at("read", path)?;
        Ok(oci::descriptor(media_type, size, &digest))
    }

    fn layers(&self, layers: &[LayerSource]) -> Result<(), Error> {
        for layer in layers {
            let step = format!("layer/{}", &layer.diff_id.hex()[..12]);
            let reporter = Reporter { step: &step, on_event: self.on_event };
            let total = self.contents.size(&layer.path)?;
            if self.images.has_layer(&layer.diff_id) {
                reporter.reused(total);
                continue;
            }
            let since = std::time::Instant::now();
            reporter.started();
            let part = self.contents.open_part(&layer.path)?;
            let counted = Counted { inner: part, done: 0, total, reporter };
            let (_, plain) = decompress(counted).at("read", &layer.path)?;
            let size = self.images.add_layer(&layer.diff_id, plain)?;
            reporter.finished(size, since);
        }
        Ok(())
    }

    fn summary(&self, config: &[u8], names: &[String]) -> Result<ConfigSummary, Error> {
        let summary: ConfigSummary = self.contents.parse("the image's configuration", config)?;
        if summary.fits_host() {
            return Ok(summary);
        }
        Err(wrong_architecture(names.join(", "), &[summary.platform()]))
    }

    fn name(
        &self,
        descriptor: &Descriptor,
        size: u64,
        names: &[String],
    ) -> Result<Vec<Imported>, Error> {
        let digest = self.digest(descriptor)?;
        let mut imported = Vec::new();
        for name in names {
            self.images.name_image(name, descriptor)?;
            imported.push(Imported { name: name.clone(), digest, size });
        }
        Ok(imported)
    }

    /// The names of an index entry: as containerd writes them, as others do, or as the file is called.
    fn names(
        &self,
        descriptor: &Descriptor,
        docker: Option<&[DockerManifest]>,
    ) -> Result<Vec<String>, Error> {
        let annotations = descriptor.annotations().as_ref();
        if let Some(name) = annotations.and_then(|known| known.get(CONTAINERD_NAME)) {
            return Ok(vec![normalize(name)?]);
        }
        let name = ref_name(descriptor);
        if let Some(name) = name
            && name.contains([':', '/'])
        {
            return Ok(vec![normalize(name)?]);
        }
        let tags: Vec<&String> = docker
            .iter()
            .copied()
            .flatten()
            .flat_map(|entry| entry.repo_tags.iter().flatten())
            .collect();
        if !tags.is_empty() {
            return tags.into_iter().map(|tag| normalize(tag)).collect();
        }
        Ok(vec![self.name_by_file(name.unwrap_or("latest"))?])
    }

    fn name_by_file(&self, tag: &str) -> Result<String, Error> {
        normalize(&format!("{}:{tag}", self.contents.stem()))
    }

    fn digest(&self, descriptor: &Descriptor) -> Result<Sha256, Error> {
        oci::sha256(descriptor).map_err(|why| self.contents.no_archive(&why))
    }

    /// A manifest or a configuration, which must have its digest.
    fn verified(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let expected = self.digest(descriptor)?;
        let bytes = self.contents.small(&blob_path(&expected))?;
        let found = Sha256::of(&bytes);
        if found == expected {
            return Ok(bytes);
        }
        Err(Error::Checksum {
            what: format!("{} in {}", blob_path(&expected), self.contents.what()),
            expected: expected.hex(),
            found: found.hex(),
        })
    }
}

fn wrong_architecture(image: String, found: &[String]) -> Error {
    let wanted = format!("linux/{}", oci::host_architecture());
    Error::WrongArchitecture { image, found: found.join(", "), wanted }
}

fn blob_path(digest: &Sha256) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn is_index(media_type: &MediaType) -> bool {
    matches!(
        media_type.to_string().as_str(),
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn is_manifest(media_type: &MediaType) -> bool {
    matches!(
        media_type.to_string().as_str(),
        "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json"
    )
}

fn check_layer_type(media_type: &MediaType, names: &[String]) -> Result<(), Error> {
    let text = media_type.to_string();
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    let plain = text.strip_suffix("+gzip").or_else(|| text.strip_suffix("+zstd")).unwrap_or(&text);
    if known.contains(&plain) {
        return Ok(());
    }
    Err(Error::UnsupportedMediaType { image: names.join(", "), media_type: text })
}

/// Tells how much of a layer was read.
struct Counted<'a, R> {
    inner: R,
    done: u64,
    total: u64,
    reporter: Reporter<'a>,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.done += count as u64;
        if count > 0 {
            self.reporter.progress(self.done, Some(self.total), Unit::Bytes);
        }
        Ok(count)
    }
}
