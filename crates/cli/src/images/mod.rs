//! The store of node images, as the engine wants it.

mod archive;
mod containers;
mod steps;

use std::collections::BTreeMap;

use async_trait::async_trait;
use bivouac_engine::{NodeImages, Reporter};
use bivouac_image::{BuildOptions, Bundle, Cancel, NodeImage, Stack, Store};
use bivouac_provider::{ImagePaths, LayerPath};
use bivouac_spec::{Class, Problem, cluster};
use camino::Utf8PathBuf;
use tokio_util::sync::CancellationToken;

use crate::args::Global;

pub use containers::Containers;
pub use steps::step_reporter;

/// The node images of a store, built from the bundle when they are not there.
#[derive(Clone)]
pub struct StoreImages {
    store: Utf8PathBuf,
    /// What nodes share to write to.
    cache: Utf8PathBuf,
    bundle: Option<Utf8PathBuf>,
    stack: Stack,
    /// Of what gives the stack its name; the usual one when absent.
    version: Option<String>,
}

impl StoreImages {
    /// The node images of the store that the options name, for Kubernetes.
    pub fn open(global: &Global) -> Self {
        Self {
            store: global.store.clone(),
            cache: global.image_cache.clone(),
            bundle: None,
            stack: Stack::default(),
            version: None,
        }
    }

    /// Those for the stack of a cluster.
    pub fn of(global: &Global, stack: &cluster::Stack) -> Self {
        let images = Self::open(global).for_stack(match stack {
            cluster::Stack::Kubernetes(_) => Stack::Kubernetes,
            cluster::Stack::Incus(_) => Stack::Incus,
        });
        images.with_version(stack.version().map(str::to_owned))
    }

    /// The same for another stack.
    pub fn for_stack(mut self, stack: Stack) -> Self {
        self.stack = stack;
        self
    }

    /// The same, built from the bundle in this folder.
    pub fn with_bundle(mut self, folder: Option<Utf8PathBuf>) -> Self {
        self.bundle = folder;
        self
    }

    /// The same with another version than the usual one: `v1.36.1`.
    pub fn with_version(mut self, version: Option<String>) -> Self {
        self.version = version;
        self
    }

    /// The bundle that images are built from.
    fn bundle(&self) -> Result<Bundle, Problem> {
        let bundle = self.whole_bundle()?;
        let Some(version) = &self.version else { return Ok(bundle) };
        let version = version.strip_prefix('v').unwrap_or(version);
        bundle.choose(self.stack, version).map_err(|error| problem_of(&error))
    }

    /// The bundle with all versions that it has.
    fn whole_bundle(&self) -> Result<Bundle, Problem> {
        let bundle =
            self.bundle.as_ref().map_or_else(Bundle::embedded, |folder| Bundle::open(folder));
        bundle.map_err(|error| problem_of(&error))
    }

    /// The keys of the images that this bivouac makes nodes of a stack from, with their versions where it has several.
    pub fn all_of(&self, stack: Stack) -> Result<BTreeMap<String, Option<String>>, Problem> {
        let bundle = self.whole_bundle()?;
        let mut versions: Vec<Option<String>> =
            bundle.versions_of(stack).into_iter().map(|version| Some(version.to_owned())).collect();
        if versions.is_empty() {
            versions.push(None);
        }
        let keys = versions.into_iter().map(|version| {
            let bundle = bundle.clone();
            let chosen = match &version {
                Some(version) => bundle.choose(stack, version)?,
                None => bundle,
            };
            Ok((chosen.image_key(stack)?, version))
        });
        keys.collect::<Result<_, _>>().map_err(|error| problem_of(&error))
    }

    /// The store.
    pub fn store(&self) -> Result<Store, Problem> {
        Store::open(&self.store).map_err(|error| problem_of(&error))
    }

    /// The store, if there is one: nothing is made by looking.
    pub fn store_if_there(&self) -> Result<Option<Store>, Problem> {
        if self.store.is_dir() { self.store().map(Some) } else { Ok(None) }
    }

    /// The unpacked image of this key.
    pub fn rootfs(&self, key: &str) -> Result<Utf8PathBuf, Problem> {
        NodeImage::open(&self.store()?, key)
            .map(|image| image.rootfs())
            .map_err(|error| problem_of(&error))
    }

    /// Builds the stack's image of the bundle, unless it is there and sound.
    pub async fn build(
        &self,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<NodeImage, Problem> {
        let (store, bundle, reporter) = (self.store()?, self.bundle()?, reporter.clone());
        let options = BuildOptions { stack: self.stack, ..BuildOptions::default() };
        let stop = Cancel::new();
        let forward = {
            let (stop, cancel) = (stop.clone(), cancel.clone());
            tokio::spawn(async move {
                cancel.cancelled().await;
                stop.cancel();
            })
        };
        let built = tokio::task::spawn_blocking(move || {
            bivouac_image::ensure(&store, &bundle, &options, &step_reporter(reporter), &stop)
        })
        .await;
        forward.abort();
        let built = built.map_err(|error| Problem::from_error("image.build", &error))?;
        built.map_err(|error| problem_of(&error))
    }
}

#[async_trait]
impl NodeImages for StoreImages {
    fn current(&self) -> Result<String, Problem> {
        self.bundle()?.image_key(self.stack).map_err(|error| problem_of(&error))
    }

    async fn ensure(
        &self,
        key: &str,
        reporter: &Reporter,
        cancel: &CancellationToken,
    ) -> Result<ImagePaths, Problem> {
        // A cluster may keep, or get back, another version than the one that is asked for.
        let image = match self.all_of(self.stack)?.remove(key) {
            Some(version) => self.clone().with_version(version).build(reporter, cancel).await?,
            None => NodeImage::open(&self.store()?, key).map_err(|error| problem_of(&error))?,
        };
        Ok(ImagePaths {
            key: image.key().to_owned(),
            digest: image.manifest.digest.to_string(),
            layout: image.oci_layout(),
            layers: layers_of(&image),
            rootfs: image.rootfs(),
            shared_images: self.store()?.containers(),
            shared_cache: self.cache.clone(),
        })
    }
}

fn layers_of(image: &NodeImage) -> Vec<LayerPath> {
    let blobs = image.oci_layout().join("blobs/sha256");
    let layers = image.manifest.layers.iter().map(|layer| LayerPath {
        blob: blobs.join(layer.digest.hex()),
        diff_id: layer.diff_id.to_string(),
        size: layer.plain_size,
    });
    layers.collect()
}

/// The versions of the programs in the node image, by name.
pub fn bundled_versions() -> Result<BTreeMap<String, String>, Problem> {
    Ok(Bundle::embedded().map_err(|error| problem_of(&error))?.versions())
}

/// An error of the store as a problem.
pub fn problem_of(error: &bivouac_image::Error) -> Problem {
    let mut problem = Problem::from_error(error.code(), error);
    problem.help = error.help();
    if matches!(error, bivouac_image::Error::Cancelled) {
        problem.class = Class::Interrupted;
    }
    problem
}
