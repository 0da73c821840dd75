//! The container images that every node carries, put together from artifacts.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};

use camino::{Utf8Path, Utf8PathBuf};
use oci_spec::image::{Descriptor, MediaType};
use serde_json::json;

use crate::bundle::Bundle;
use crate::containers::ContainerImages;
use crate::digest::{HashingWriter, Sha256};
use crate::error::{At, Error};
use crate::layer::LayerBuilder;
use crate::lock::{Image, mode_of};
use crate::node::{add_links, created};
use crate::oci;
use crate::program::Made;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One layer of a container image: digest and bytes of the plain tar.
type Baked = (Sha256, u64);

/// Makes a container image directory with all images of the lock; returns it and the images' names.
pub(crate) fn bake_images(
    bundle: &Bundle,
    programs: &BTreeMap<String, Made>,
    work: &Utf8Path,
) -> Result<(Utf8PathBuf, Vec<String>), Error> {
    let folder = work.join("images");
    let images = ContainerImages::open(&folder)?;
    let mut layers: BTreeMap<&str, Baked> = BTreeMap::new();
    for image in &bundle.lock().images {
        let layer = bake_layer(bundle, image, &programs[&image.program], &images, work)?;
        layers.insert(&image.name, layer);
    }
    let mut names = Vec::new();
    for image in &bundle.lock().images {
        let chain = bundle.lock().chain(image).map_err(Error::Lock)?;
        let layers: Vec<Baked> = chain.iter().map(|image| layers[image.name.as_str()]).collect();
        let version = bundle.program(&image.program).map_or("latest", |program| &program.version);
        let name = crate::normalize(&format!("{}:{version}", image.name))?;
        images.name_image(&name, &describe(bundle, &chain, &layers, &images)?)?;
        names.push(name);
    }
    images.seal()?;
    names.sort_unstable();
    Ok((folder, names))
}

fn bake_layer(
    bundle: &Bundle,
    image: &Image,
    program: &Made,
    images: &ContainerImages,
    work: &Utf8Path,
) -> Result<Baked, Error> {
    let relative = |path: &str| path.trim_start_matches('/').to_owned();
    let mut builder = LayerBuilder::new(bundle.lock().epoch);
    for (path, mode) in &image.directories {
        builder.folder_with_mode(&relative(path), mode_of(mode).map_err(Error::Lock)?);
    }
    for (path, artifact) in &image.files {
        builder.file(&relative(path), &program.artifact(artifact), 0o755)?;
    }
    for (path, text) in &image.contents {
        builder.bytes(&relative(path), text.clone().into_bytes(), 0o644);
    }
    for (path, names) in &image.links {
        add_links(&mut builder, &relative(path), names);
    }
    let path = work.join("image.tar");
    let file = BufWriter::with_capacity(1 << 18, fs::File::create(&path).at("create", &path)?);
    let mut writer = HashingWriter::new(file);
    builder.write(&mut writer, &mut |_| Ok(()))?;
    writer.flush().at("write", &path)?;
    let (diff_id, size) = (writer.hasher.finish(), writer.size);
    let file = fs::File::open(&path).at("open", &path)?;
    if !images.has_layer(&diff_id) {
        images.add_layer(&diff_id, file)?;
    }
    Ok((diff_id, size))
}

fn describe(
    bundle: &Bundle,
    chain: &[&Image],
    layers: &[Baked],
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
