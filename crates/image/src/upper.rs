//! What a node image has above its Debian layers: programs, container images, images of instances.

use std::collections::BTreeMap;

use camino::Utf8Path;

use crate::baked::{Baked, bake_images};
use crate::bundle::Bundle;
use crate::debian::DebianLayer;
use crate::error::Error;
use crate::instance::{INSTANCE_IMAGES, write_instance};
use crate::layer::LayerBuilder;
use crate::program::Made;
use crate::stack::{Recipe, Stack};
use crate::store::{Out, Store};

/// Where the container images of the bundle lie in a node.
pub const BAKED_IMAGES: &str = "usr/share/bivouac/images";

/// Regular files that nodes bind over or write: `bivouac` itself, and what is of each node.
const EMPTY_FILES: [(&str, u32); 5] = [
    ("etc/hostname", 0o644),
    ("etc/hosts", 0o644),
    ("etc/machine-id", 0o444),
    ("etc/resolv.conf", 0o644),
    ("usr/local/bin/bivouac", 0o755),
];

/// Folders of every node.
const FOLDERS: [&str; 5] = ["dev", "proc", "run", "sys", "var/lib/bivouac"];

/// Folders that go with the programs of the lock.
const PROGRAM_FOLDERS: [&str; 9] = [
    "etc/cni/net.d",
    "etc/containerd",
    "etc/kubernetes/manifests",
    "opt/cni/bin",
    "var/lib/containerd",
    "var/lib/etcd",
    "var/lib/kubelet",
    "var/log/containers",
    "var/log/pods",
];

/// What the image is put together from.
pub(crate) struct Parts {
    pub(crate) stack: Stack,
    pub(crate) base: DebianLayer,
    /// What the stack's packages add to the base.
    pub(crate) packages: Option<DebianLayer>,
    /// By name.
    pub(crate) programs: BTreeMap<String, Made>,
}

impl Parts {
    /// Layers that are finished already, the lowest first.
    pub(crate) fn debian(&self) -> impl Iterator<Item = &DebianLayer> {
        std::iter::once(&self.base).chain(&self.packages)
    }

    /// Versions by program or Debian package.
    pub(crate) fn versions(&self, bundle: &Bundle) -> Result<BTreeMap<String, String>, Error> {
        let programs = bundle.programs(self.stack)?.iter();
        let mut versions: BTreeMap<_, _> =
            programs.map(|program| (program.name.clone(), program.version.clone())).collect();
        if let (Some(layer), Some(packages)) = (&self.packages, bundle.packages(self.stack)?) {
            versions.extend(layer.versions(&packages.packages)?);
        }
        Ok(versions)
    }
}

/// The layers that are made for one image.
pub(crate) struct Upper {
    /// By what they hold, the lowest first.
    pub(crate) layers: Vec<(&'static str, LayerBuilder)>,
    /// Full names of the container images in them.
    pub(crate) container_images: Vec<String>,
}

/// Everything above the Debian layers.
pub(crate) fn upper_layers(
    store: &Store,
    bundle: &Bundle,
    parts: &Parts,
    out: &Out<'_>,
) -> Result<Upper, Error> {
    let base = store.blob(&parts.base.layer.digest);
    let recipes = bundle.lock().layers(parts.stack)?;
    let baked = if recipes.iter().any(|recipe| matches!(recipe, Recipe::ContainerImages {})) {
        bake_images(bundle, &parts.programs, &base, out.work)?
    } else {
        Baked::default()
    };
    let mut layers = Vec::new();
    for recipe in recipes {
        let mut builder = LayerBuilder::new(bundle.lock().epoch);
        let name = match recipe {
            // Its layer is one of its own.
            Recipe::Packages(_) => continue,
            Recipe::Programs {} => {
                add_programs(&mut builder, bundle, &parts.programs, &baked)?;
                "programs"
            }
            Recipe::ContainerImages {} => {
                builder.tree(BAKED_IMAGES, &baked.folder)?;
                "container images"
            }
            Recipe::Instance(instance) => {
                let archive = write_instance(bundle, instance, &base, out.work)?;
                let path = format!("{INSTANCE_IMAGES}/{}.tar", instance.name);
                builder.file(&path, &archive, 0o644)?;
                "instance image"
            }
        };
        if layers.is_empty() {
            add_identity(&mut builder);
        }
        layers.push((name, builder));
    }
    Ok(Upper { layers, container_images: baked.names })
}

/// What every node has, whatever its stack.
fn add_identity(builder: &mut LayerBuilder) {
    for folder in FOLDERS {
        builder.folder(folder);
    }
    for (path, mode) in EMPTY_FILES {
        builder.empty(path, mode);
    }
}

fn add_programs(
    builder: &mut LayerBuilder,
    bundle: &Bundle,
    programs: &BTreeMap<String, Made>,
    baked: &Baked,
) -> Result<(), Error> {
    for folder in PROGRAM_FOLDERS {
        builder.folder(folder);
    }
    for program in &bundle.lock().programs {
        for (path, artifact) in &program.files {
            match baked.artifacts.get(&(program.name.clone(), artifact.clone())) {
                // What a container image holds is there once, on disk and in memory.
                Some(place) => builder.symlink(path, &link_target(path, place)),
                None => builder.file(path, &programs[&program.name].artifact(artifact), 0o755)?,
            }
        }
        for (path, names) in &program.links {
            add_links(builder, path, names);
        }
    }
    Ok(())
}

/// From a path of the node to one of the container images in it. Relative, for it must also hold on the host, below
/// the unpacked root file system.
fn link_target(path: &str, place: &Utf8Path) -> String {
    let up = "../".repeat(path.matches('/').count());
    format!("{up}{BAKED_IMAGES}/{place}")
}

/// Symbolic links beside a file.
pub(crate) fn add_links(builder: &mut LayerBuilder, path: &str, names: &[String]) {
    let (folder, target) = path.rsplit_once('/').unwrap_or(("", path));
    for name in names {
        let link = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        builder.symlink(&link, target);
    }
}
