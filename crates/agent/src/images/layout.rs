//! Reading a container image directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Error, Selection};

const NAME: &str = "org.opencontainers.image.ref.name";

/// A content address: `sha256:HEX`, and where it lies.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    pub(super) media_type: String,
    pub(super) digest: String,
    pub(super) size: i64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFilesystem,
}

#[derive(Deserialize)]
struct RootFilesystem {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// An image of the directory, with everything that containerd is told of it.
#[derive(Debug, Clone)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) manifest: Descriptor,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) config: Descriptor,
    pub(super) config_bytes: Vec<u8>,
    pub(super) layers: Vec<Layer>,
}

/// A layer and the chain up to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// Names the layer on top of those below it, as the image specification defines it.
    pub(super) chain_id: String,
    /// Its unpacked content.
    pub(super) directory: Utf8PathBuf,
}

/// Name and descriptor of every selected image.
pub(super) fn open_index(selection: &Selection<'_>) -> Result<Vec<(String, Descriptor)>, Error> {
    let path = selection.directory.join("index.json");
    let index = match read(&path) {
        // A directory that no image was put in yet has no index.
        Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Index { manifests: Vec::new() }
        }
        bytes => parse(&path, &bytes?)?,
    };
    let mut found = Vec::new();
    for descriptor in index.manifests {
        let Some(name) = descriptor.annotations.get(NAME).cloned() else {
            let why = format!("{} has no name", descriptor.digest);
            return Err(Error::Unusable { path, why });
        };
        if selection.names.is_none_or(|names| names.contains(&name)) {
            found.push((name, descriptor));
        }
    }
    let is_found = |name: &&String| found.iter().any(|(present, _)| present == *name);
    match selection.names.and_then(|names| names.iter().find(|name| !is_found(name))) {
        Some(name) => {
            let (name, directory) = (name.clone(), selection.directory.to_owned());
            Err(Error::Absent { name, directory })
        }
        None => Ok(found),
    }
}

/// Reads all of an image but its layers.
pub(super) fn open_image(
    directory: &Utf8Path,
    name: String,
    manifest: Descriptor,
) -> Result<Image, Error> {
    let path = blob(directory, &manifest.digest)?;
    let manifest_bytes = read(&path)?;
    let config = parse::<Manifest>(&path, &manifest_bytes)?.config;
    let path = blob(directory, &config.digest)?;
    let config_bytes = read(&path)?;
    let diff_ids = parse::<Config>(&path, &config_bytes)?.rootfs.diff_ids;
    let mut layers = Vec::new();
    for (chain_id, diff_id) in chain_ids(&diff_ids).into_iter().zip(&diff_ids) {
        let layer = directory.join("layers").join(hex_of(&path, diff_id)?);
        // Absolute, because it becomes the target of a link elsewhere.
        let directory = layer
            .canonicalize_utf8()
            .map_err(|source| Error::Read { path: layer.clone(), source })?;
        layers.push(Layer { chain_id, directory });
    }
    Ok(Image { name, manifest, manifest_bytes, config, config_bytes, layers })
}

fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let next = match chain.last() {
            None => diff_id.clone(),
            Some(below) => {
                let digest = Sha256::digest(format!("{below} {diff_id}"));
                format!("sha256:{}", hex::encode(digest))
            }
        };
        chain.push(next);
    }
    chain
}

fn blob(directory: &Utf8Path, digest: &str) -> Result<Utf8PathBuf, Error> {
    let folder = directory.join("blobs/sha256");
    let name = hex_of(&folder, digest)?;
    Ok(folder.join(name))
}

/// The part of a digest that is a file name; nothing else may become one.
fn hex_of<'a>(path: &Utf8Path, digest: &'a str) -> Result<&'a str, Error> {
    let hex = digest.strip_prefix("sha256:");
    let is_hex = |hex: &&str| hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    hex.filter(is_hex).ok_or_else(|| {
        let why = format!("`{digest}` is no SHA-256 digest");
        Error::Unusable { path: path.to_owned(), why }
    })
}

fn read(path: &Utf8Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

fn parse<T: DeserializeOwned>(path: &Utf8Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .map_err(|source| Error::Malformed { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_are_as_the_image_specification_defines_them() {
        let ids = ["sha256:a", "sha256:b"].map(str::to_owned);
        // As `printf 'sha256:a sha256:b' | sha256sum` prints it.
        let second = "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8";
        assert_eq!(chain_ids(&ids), ["sha256:a", second]);
        assert_eq!(chain_ids(&[]), Vec::<String>::new());
    }

    #[test]
    fn a_digest_cannot_lead_elsewhere() {
        let error = blob("/x".into(), "sha256:../../etc/passwd").unwrap_err();
        assert!(error.to_string().contains("is no SHA-256 digest"));
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let directory = Utf8Path::from_path(directory.path()).unwrap();
        fs::write(directory.join("index.json"), r#"{"manifests": []}"#).unwrap();
        let names = ["a:b".to_owned()];
        let selection = Selection {
            directory,
            containerd: Utf8Path::new("/x"),
            names: Some(&names),
            pinned: false,
        };
        let error = open_index(&selection).unwrap_err();
        assert!(error.to_string().starts_with("there is no image `a:b` in /"));
    }
}
