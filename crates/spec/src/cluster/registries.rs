//! Where images come from, and through which proxy.

use std::collections::BTreeSet;
use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cluster, Kubernetes, Stack};
use crate::quantity::Bytes;

/// A registry of container images, and how nodes reach it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Registry {
    /// The registry as names of images begin with it, such as `docker.io` or `registry.example.com:5000`; `*` for all that are not
    /// named themselves.
    pub host: String,
    /// Who is asked before the registry itself, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Mirror>,
    /// Whether the registry itself is never asked.
    #[serde(default, skip_serializing_if = "is_false")]
    pub only_mirrors: bool,
    /// Who the nodes are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// A file on the machine where `bivouac` runs with certificates (PEM) of authorities that nodes trust there. A relative path
    /// begins at the folder of the cluster file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<Utf8PathBuf>,
    /// Whether its certificate may be any, and HTTP without one will do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure: bool,
}

/// A registry that has the images of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mirror {
    /// Where it is, such as `https://mirror.example.com:5000`. `/v2` is added to the path, unless `v2` is a part of it:
    /// `https://harbor.example.com/v2/hub` is taken as it stands.
    pub url: String,
    /// Who the nodes are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Credentials>,
    /// A file on the machine where `bivouac` runs with certificates (PEM) of authorities that nodes trust there. A relative path
    /// begins at the folder of the cluster file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub ca_file: Option<Utf8PathBuf>,
    /// Whether its certificate may be any.
    #[serde(default, skip_serializing_if = "is_false")]
    pub insecure: bool,
}

/// Who somebody is at a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Credentials {
    /// The name of the user.
    pub username: String,
    /// Where the password, or the token that is used as one, is found.
    pub password: Source,
}

/// Where something is found that does not belong into a cluster file. It is read when the cluster is brought up, and kept with the
/// cluster's keys.
#[derive(
    Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Source {
    /// A file on the machine where `bivouac` runs. A relative path begins at the folder of the cluster file.
    File(#[schemars(with = "String")] Utf8PathBuf),
    /// A variable of the environment of `bivouac`.
    Environment(String),
}

/// The proxy through which nodes reach registries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Proxy {
    /// The proxy for registries that speak HTTP, such as `http://proxy.example.com:3128`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The proxy for registries that speak HTTPS: all but those that are named otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<String>,
    /// What is reached without it: names with all that end in them, addresses, networks. The cluster's own are added.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_proxy: Vec<String>,
}

/// A cache of container images on this machine, which is that of all clusters here that have one: what one node pulled, no other node pulls
/// again. Clusters of the machine that `bivouac` runs on have it; those of an engine elsewhere pull as if it were not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageCache {
    /// How much it may hold. What was not used for the longest time goes first.
    #[serde(default = "ImageCache::default_size")]
    pub size: Bytes,
}

impl ImageCache {
    const fn default_size() -> Bytes {
        Bytes(20 << 30)
    }
}

impl Default for ImageCache {
    fn default() -> Self {
        Self { size: Self::default_size() }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Registry {
    /// The registry that stands for all that are not named.
    pub const ALL: &str = "*";

    /// The registry of names of images that name none. It is not where its name says.
    pub const HUB: &str = "docker.io";

    /// Everything of it that is found elsewhere.
    fn sources(&self) -> impl Iterator<Item = Source> {
        let own = sources(self.credentials.as_ref(), self.ca_file.as_ref());
        let mirrors = self.mirrors.iter();
        own.chain(mirrors.flat_map(|one| sources(one.credentials.as_ref(), one.ca_file.as_ref())))
    }

    /// All paths in it.
    fn paths(&mut self) -> impl Iterator<Item = &mut Utf8PathBuf> {
        let own = paths(self.credentials.as_mut(), self.ca_file.as_mut());
        let mirrors = self.mirrors.iter_mut();
        own.chain(mirrors.flat_map(|one| paths(one.credentials.as_mut(), one.ca_file.as_mut())))
    }
}

fn sources(
    credentials: Option<&Credentials>,
    ca_file: Option<&Utf8PathBuf>,
) -> impl Iterator<Item = Source> + use<> {
    let password = credentials.map(|credentials| credentials.password.clone());
    password.into_iter().chain(ca_file.cloned().map(Source::File))
}

fn paths<'a>(
    credentials: Option<&'a mut Credentials>,
    ca_file: Option<&'a mut Utf8PathBuf>,
) -> impl Iterator<Item = &'a mut Utf8PathBuf> {
    let password = credentials.and_then(|credentials| match &mut credentials.password {
        Source::File(path) => Some(path),
        Source::Environment(_) => None,
    });
    password.into_iter().chain(ca_file)
}

impl Kubernetes {
    /// Everything that its settings only point to.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<Source> {
        self.registries.iter().flat_map(Registry::sources).collect()
    }
}

impl Cluster {
    /// Everything that it only points to: contents of files, values of variables.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<Source> {
        match &self.spec.stack {
            Stack::Kubernetes(kubernetes) => kubernetes.sources(),
            Stack::Incus(_) => BTreeSet::new(),
        }
    }

    /// The same cluster with its relative paths below this folder, which is that of its file.
    #[must_use]
    pub fn within(mut self, folder: &Utf8Path) -> Self {
        if let Stack::Kubernetes(kubernetes) = &mut self.spec.stack {
            for path in kubernetes.registries.iter_mut().flat_map(Registry::paths) {
                *path = folder.join(&path);
            }
        }
        self
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_example_has_as_a_comment_is_valid() {
        let (mut text, mut inside) = (String::new(), false);
        for line in super::super::example().lines() {
            inside |= line == "      # registries:";
            let plain = line.replacen("# ", "", 1);
            let is_prose = plain.trim_start().starts_with(|c: char| c.is_uppercase());
            text.push_str(if inside && !is_prose { &plain } else { line });
            text.push('\n');
            inside &= !line.contains("size: 20GiB");
        }
        let cluster = super::super::parse(&text, "example.yaml").unwrap();
        let Stack::Kubernetes(kubernetes) = cluster.spec.stack else { panic!() };
        assert_eq!(kubernetes.registries.len(), 2);
        assert!(kubernetes.registries[0].mirrors[0].credentials.is_some());
        assert!(kubernetes.proxy.is_some());
        assert_eq!(kubernetes.image_cache, Some(ImageCache::default()));
    }

    #[test]
    fn relative_paths_begin_at_the_folder_of_the_file() {
        let text = r"
apiVersion: bivouac.dev/v1alpha1
kind: Cluster
spec:
  stack:
    kubernetes:
      registries:
        - host: docker.io
          caFile: own.pem
          mirrors:
            - url: https://mirror.example.com
              caFile: /etc/ca.pem
              credentials: {username: me, password: {file: secret/word}}
        - host: registry.example.com
          credentials: {username: me, password: {environment: WORD}}
";
        let cluster = super::super::parse(text, "a.yaml").unwrap().within("/home/me".into());
        let sources: Vec<String> = cluster.sources().iter().map(ToString::to_string).collect();
        let expected = [
            "file /etc/ca.pem",
            "file /home/me/own.pem",
            "file /home/me/secret/word",
            "environment WORD",
        ];
        assert_eq!(sources, expected);
    }
}
