//! What this crate adds to `oci-spec`: canonical bytes, the host's platform, and reading that forgives what does not
//! matter here.

use oci_spec::image::{
    Arch, Descriptor, Digest, ImageManifest, ImageManifestBuilder, MediaType, Os, Platform,
};
use serde::{Deserialize, Serialize};

use crate::digest::Sha256;

/// The annotation that names an image in an index.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// JSON with sorted keys: the same value gives the same bytes, whatever order its maps have in memory.
pub(crate) fn canonical(value: &impl Serialize) -> Vec<u8> {
    let mut value = serde_json::to_value(value).expect("documents of this crate are plain data");
    value.sort_all_objects();
    serde_json::to_vec(&value).expect("values can be written")
}

/// A descriptor of bytes in memory.
pub(crate) fn describe(media_type: MediaType, bytes: &[u8]) -> Descriptor {
    descriptor(media_type, bytes.len() as u64, &Sha256::of(bytes))
}

/// A descriptor of content that lies elsewhere.
pub(crate) fn descriptor(media_type: MediaType, size: u64, digest: &Sha256) -> Descriptor {
    let digest: Digest = digest.to_string().parse().expect("a SHA-256 digest is a digest");
    Descriptor::new(media_type, size, digest)
}

/// An OCI manifest.
pub(crate) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> ImageManifest {
    ImageManifestBuilder::default()
        .schema_version(2_u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .expect("every field that must be there is there")
}

/// The digest of a descriptor, which must be SHA-256.
pub(crate) fn sha256(descriptor: &Descriptor) -> Result<Sha256, String> {
    descriptor.digest().to_string().parse()
}

/// This machine's architecture in Go's words, as images name it.
pub fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// This machine's platform.
pub(crate) fn host_platform() -> Platform {
    let mut platform = Platform::default();
    platform.set_os(Os::Linux);
    platform.set_architecture(Arch::from(host_architecture()));
    platform
}

/// Of an image's configuration, what matters here. The rest is kept as bytes.
#[derive(Debug, Deserialize)]
pub(crate) struct ConfigSummary {
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) os: String,
    pub(crate) rootfs: RootFs,
}

#[derive(Debug, Deserialize)]
pub(crate) struct RootFs {
    #[serde(default)]
    pub(crate) diff_ids: Vec<Sha256>,
}

impl ConfigSummary {
    /// `linux/amd64`.
    pub(crate) fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    /// Images made from nothing often say neither.
    pub(crate) fn fits_host(&self) -> bool {
        (self.os.is_empty() || self.os == "linux")
            && (self.architecture.is_empty() || self.architecture == host_architecture())
    }
}
