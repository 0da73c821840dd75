//! Images of system containers: the Debian base and a few files, as one plain archive that Incus imports and unpacks
//! without having to decompress anything.

use std::fs;
use std::io::BufWriter;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::bundle::Bundle;
use crate::debian::leave_out;
use crate::error::{At, Error};
use crate::layer::LayerBuilder;
use crate::oci;
use crate::stack::Instance;
use crate::stream::decompress;
use crate::unpack::{make_root, unpack};
use crate::upper::add_links;

/// Where the archives lie in a node.
pub const INSTANCE_IMAGES: &str = "usr/share/bivouac/instances";

/// Writes the archive into the folder `work`, and returns where it is. `base` is the blob of the Debian base.
pub(crate) fn write_instance(
    bundle: &Bundle,
    instance: &Instance,
    base: &Utf8Path,
    work: &Utf8Path,
) -> Result<Utf8PathBuf, Error> {
    let root = work.join("instance");
    make_root(&root)?;
    let file = fs::File::open(base).at("open", base)?;
    let (_, plain) = decompress(file).at("read", base)?;
    unpack("base", plain, &root, None)?;
    let archive = work.join(format!("{}.tar", instance.name));
    let builder = contents(bundle, instance, &root)?;
    let file = fs::File::create(&archive).at("create", &archive)?;
    builder.write(BufWriter::with_capacity(1 << 18, file), &mut |_| Ok(()))?;
    crate::files::remove(&root)?;
    Ok(archive)
}

fn contents(bundle: &Bundle, instance: &Instance, root: &Utf8Path) -> Result<LayerBuilder, Error> {
    let mut builder = LayerBuilder::new(bundle.lock().epoch);
    builder.tree("rootfs", root)?;
    leave_out(&mut builder, "rootfs/", &instance.remove);
    for (path, file) in &instance.files {
        let bytes = bundle.file(file).ok_or_else(|| missing(instance, file))?;
        builder.bytes(&format!("rootfs/{path}"), bytes.to_vec(), 0o755);
    }
    for (path, names) in &instance.links {
        add_links(&mut builder, &format!("rootfs/{path}"), names);
    }
    for (number, text) in instance.templates.values().enumerate() {
        builder.bytes(&format!("templates/{number}"), text.clone().into_bytes(), 0o644);
    }
    builder.bytes("metadata.yaml", metadata(bundle, instance), 0o644);
    Ok(builder)
}

/// JSON is YAML too.
fn metadata(bundle: &Bundle, instance: &Instance) -> Vec<u8> {
    let suite = &bundle.lock().debian.suite;
    let template = |(number, path): (usize, &String)| {
        let about = json!({"when": ["create", "copy", "rename"], "template": number.to_string()});
        (path.clone(), about)
    };
    let templates: serde_json::Map<_, _> =
        instance.templates.keys().enumerate().map(template).collect();
    oci::canonical(&json!({
        "architecture": kernel_architecture(oci::host_architecture()),
        "creation_date": bundle.lock().epoch,
        "properties": {
            "architecture": oci::host_architecture(),
            "description": instance.description,
            "os": instance.name,
            "release": suite,
        },
        "templates": templates,
    }))
}

/// The kernel's name of an architecture, which Incus wants, by Go's name.
fn kernel_architecture(name: &str) -> &str {
    match name {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

fn missing(instance: &Instance, file: &str) -> Error {
    Error::Lock(format!("instance {}: there is no file {file} in the bundle", instance.name))
}
