//! The container images that every node carries, put together from artifacts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use crate::bundle::Bundle;
use crate::containers::{ContainerImages, layer_path};
use crate::digest::{HashingWriter, Sha256};
use crate::error::{At, Error};
use crate::layer::LayerBuilder;
use crate::libraries::DebianFiles;
use crate::lock::{Image, mode_of};
use crate::node::created;
use crate::oci;
use crate::program::Made;
use crate::upper::add_links;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One layer of a container image: digest and bytes of the plain tar.
type Layer = (Sha256, u64);

/// All container images of the lock.
#[derive(Default)]
pub(crate) struct Baked {
    /// The container image directory.
    pub(crate) folder: Utf8PathBuf,
    /// Full names of the images.
    pub(crate) names: Vec<String>,
    /// Paths of artifacts in the directory, by program and artifact.
    pub(crate) artifacts: BTreeMap<(String, String), Utf8PathBuf>,
}

/// Makes a container image directory with all images of the lock. `base` is the blob of the Debian base.
pub(crate) fn bake_images(
    bundle: &Bundle,
    programs: &BTreeMap<String, Made>,
    base: &Utf8Path,
    work: &Utf8Path,
) -> Result<Baked, Error> {
    let lock = bundle.lock();
    let folder = work.join("images");
    let images = ContainerImages::open(&folder)?;
    let debian = match lock.images.iter().any(|image| !image.debian.is_empty()) {
        true => Some(DebianFiles::unpack(base, &work.join("debian"))?),
        false => None,
    };
    let mut baker = Baker { bundle, programs, debian, images, work, artifacts: BTreeMap::new() };
    let mut layers: BTreeMap<&str, Layer> = BTreeMap::new();
    for image in lock.images.iter().filter(|image| image.has_layer()) {
        layers.insert(&image.name, baker.bake_layer(image)?);
    }
    let mut names = Vec::new();
    for image in &lock.images {
        let chain = lock.chain(image).map_err(Error::Lock)?;
        let layers: Vec<Layer> =
            chain.iter().filter_map(|image| layers.get(image.name.as_str()).copied()).collect();
        let tag = image.tag.as_deref().unwrap_or("{version}");
        let tag = bundle.program(&image.program).map_or_else(|| tag.into(), |p| p.expand(tag));
        let name = crate::normalize(&format!("{}:{tag}", image.name))?;
        baker.images.name_image(&name, &describe(bundle, &chain, &layers, &baker.images)?)?;
        names.push(name);
    }
    baker.images.seal()?;
    names.sort_unstable();
    Ok(Baked { folder, names, artifacts: baker.artifacts })
}

struct Baker<'a> {
    bundle: &'a Bundle,
    programs: &'a BTreeMap<String, Made>,
    /// Where an image takes something from it.
    debian: Option<DebianFiles>,
    images: ContainerImages,
    work: &'a Utf8Path,
    artifacts: BTreeMap<(String, String), Utf8PathBuf>,
}

impl Baker<'_> {
    fn bake_layer(&mut self, image: &Image) -> Result<Layer, Error> {
        let builder = self.gather(image)?;
        let path = self.work.join("image.tar");
        let file = BufWriter::with_capacity(1 << 18, fs::File::create(&path).at("create", &path)?);
        let mut writer = HashingWriter::new(file);
        builder.write(&mut writer, &mut |_| Ok(()))?;
        writer.flush().at("write", &path)?;
        let (diff_id, size) = (writer.hasher.finish(), writer.size);
        let file = fs::File::open(&path).at("open", &path)?;
        if !self.images.has_layer(&diff_id) {
            self.images.add_layer(&diff_id, file)?;
        }
        for (path, artifact) in &image.files {
            let key = (image.program.clone(), artifact.clone());
            let place = layer_path(&diff_id).join(relative(path));
            self.artifacts.entry(key).or_insert(place);
        }
        Ok((diff_id, size))
    }

    fn gather(&self, image: &Image) -> Result<LayerBuilder, Error> {
        let program = &self.programs[&image.program];
        let mut builder = LayerBuilder::new(self.bundle.lock().epoch);
        for (path, mode) in &image.directories {
            builder.folder_with_mode(relative(path), mode_of(mode).map_err(Error::Lock)?);
        }
        for (path, artifact) in &image.files {
            builder.file(relative(path), &program.artifact(artifact), 0o755)?;
        }
        if let Some(debian) = &self.debian {
            for program in &image.debian {
                for (path, bytes) in debian.with_libraries(program)? {
                    builder.bytes(&path, bytes, 0o755);
                }
            }
        }
        for (path, text) in &image.contents {
            builder.bytes(relative(path), text.clone().into_bytes(), 0o644);
        }
        for (path, names) in &image.links {
            add_links(&mut builder, relative(path), names);
        }
        Ok(builder)
    }
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn describe(
    bundle: &Bundle,
    chain: &[&Image],
    layers: &[Layer],
    images: &ContainerImages,
) -> Result<Descriptor, Error> {
    // What an image does not say, it has from the one below.
    let image = chain[chain.len() - 1];
    let env = chain.iter().rev().map(|image| &image.env).find(|env| !env.is_empty());
    let default = vec![PATH.to_owned()];
    let ports: BTreeMap<&String, serde_json::Value> =
        image.ports.iter().map(|port| (port, json!({}))).collect();
    let created = created(bundle.lock().epoch);
    let config = oci::canonical(&json!({
        "architecture": oci::host_architecture(),
        "os": "linux",
        "created": created,
        "config": {
            "Entrypoint": image.entrypoint,
            "Env": env.unwrap_or(&default),
            "ExposedPorts": ports,
            "User": image.user.clone().unwrap_or_default(),
            "WorkingDir": "/",
        },
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|(diff_id, _)| *diff_id).collect::<Vec<_>>(),
        },
        "history": chain
            .iter()
            .filter(|image| image.has_layer())
            .map(|image| json!({"created": created, "created_by": image.name}))
            .collect::<Vec<_>>(),
    }));
    let descriptors =
        layers.iter().map(|(digest, size)| oci::descriptor(MediaType::ImageLayer, *size, digest));
    let manifest = oci::canonical(&oci::manifest(
        oci::describe(MediaType::ImageConfig, &config),
        descriptors.collect(),
    ));
    images.add_blob(&config)?;
    images.add_blob(&manifest)?;
    let mut descriptor = oci::describe(MediaType::ImageManifest, &manifest);
    descriptor.set_platform(Some(oci::host_platform()));
    Ok(descriptor)
}
