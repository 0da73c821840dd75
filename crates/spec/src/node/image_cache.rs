//! What the cache of container images in a node is told (`bivouac agent image-cache`): a JSON file, which only root may read.

use std::collections::BTreeMap;

use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::Content;
use crate::ClusterName;
use crate::quantity::Bytes;

/// What the cache is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageCache {
    /// Whose node it is: the same name of a registry may lead other clusters elsewhere, so that tags are of one cluster.
    pub cluster: ClusterName,
    /// How much the folder may hold.
    pub size: Bytes,
    /// What whoever asks says in the header [`ImageCache::HEADER`]: others in the node have no right to what the node may pull.
    pub token: Content,
    /// Who is asked for the images of a registry, the first one first; `*` stands for registries that are not named.
    pub registries: BTreeMap<String, Vec<Upstream>>,
}

/// A registry that is asked for images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upstream {
    /// Where its API is: `https://mirror.example.com/v2`. Absent for the registry itself, which its name leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The header `Authorization` for a registry that asks for a password, and for who gives tokens for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Content>,
    /// A file with certificates (PEM) of authorities that are trusted there, beside the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<Utf8PathBuf>,
    /// Whether any certificate will do; and HTTP without one, where no `url` says how it is reached.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl ImageCache {
    /// The header of [`ImageCache::token`], written as HTTP libraries of Go do.
    pub const HEADER: &str = "Bivouac-Cache-Token";

    /// Who is asked for images of this registry.
    #[must_use]
    pub fn upstreams(&self, registry: &str) -> &[Upstream] {
        let found = self.registries.get(registry).or_else(|| self.registries.get("*"));
        found.map_or(&[], Vec::as_slice)
    }
}
