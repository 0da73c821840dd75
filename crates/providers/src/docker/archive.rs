//! The node image as an archive that an engine loads, written while it is read: nothing of it is ever held whole.
//!
//! Layers of the store are compressed with zstd, which engines before 23.0 do not know, so they go over plain. One more layer
//! holds the agent.

use std::io::{self, Read, Write};

use bivouac_provider::{ImageRequest, LayerPath};
use bivouac_spec::node::paths;
use camino::Utf8Path;
use fs_err::File;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::names;

/// What an image is made from, and what it is called.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    /// Its name.
    pub(super) tag: String,
    /// SHA-256 of the agent.
    pub(super) agent_digest: String,
    /// What it is made from.
    pub(super) request: ImageRequest,
    /// The architecture of the programs in it.
    pub(super) architecture: String,
}

impl Recipe {
    /// Bytes of all layers.
    pub(super) fn size(&self) -> io::Result<u64> {
        let layers: u64 = self.request.image.layers.iter().map(|layer| layer.size).sum();
        Ok(layers + fs_err::metadata(&self.request.agent)?.len())
    }

    /// The digests of all plain layers, the lowest first.
    ///
    /// # Errors
    /// When the agent cannot be read.
    pub(super) fn diff_ids(&self) -> io::Result<Vec<String>> {
        let mut hash = Sha256::new();
        write_agent_layer(&self.request.agent, &mut hash)?;
        let mut ids: Vec<String> =
            self.request.image.layers.iter().map(|layer| layer.diff_id.clone()).collect();
        ids.push(format!("sha256:{}", hex::encode(hash.finalize())));
        Ok(ids)
    }

    /// Writes the archive.
    ///
    /// # Errors
    /// When a file cannot be read, is not what the store says, or the other end is gone.
    pub(super) fn write(&self, diff_ids: &[String], output: impl Write) -> io::Result<()> {
        let mut archive = Builder::new(output);
        let config = serde_json::to_vec(&self.config(diff_ids))?;
        let config_name = format!("{}.json", hex::encode(Sha256::digest(&config)));
        let names: Vec<String> = diff_ids.iter().map(|id| layer_name(id)).collect();
        let manifest = json!([{"Config": config_name, "RepoTags": [self.tag], "Layers": names}]);
        for (layer, name) in self.request.image.layers.iter().zip(&names) {
            append_layer(&mut archive, layer, name)?;
        }
        if let Some(name) = names.last() {
            let agent = &self.request.agent;
            let mut counted = Counter(0);
            write_agent_layer(agent, &mut counted)?;
            let mut header = file_header(counted.0);
            header.set_path(name)?;
            header.set_cksum();
            // The builder copies from a reader; a layer is made by writing. Its end pads to whole blocks, which a layer always is.
            archive.get_mut().write_all(header.as_bytes())?;
            write_agent_layer(agent, archive.get_mut())?;
        }
        append(&mut archive, &config_name, &config)?;
        append(&mut archive, "manifest.json", &serde_json::to_vec(&manifest)?)?;
        archive.finish()
    }

    /// The image config, see the specification of Docker images 1.2.
    pub(super) fn config(&self, diff_ids: &[String]) -> serde_json::Value {
        json!({
            "architecture": self.architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": [paths::AGENT],
                "Cmd": ["agent", "run", "--shares-kernel"],
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "StopSignal": "SIGTERM",
                "WorkingDir": "/",
                "Labels": {
                    names::IMAGE: self.request.image.key,
                    AGENT_LABEL: self.agent_digest,
                },
            },
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": diff_ids.iter().map(|_| json!({"created_by": "bivouac"})).collect::<Vec<_>>(),
        })
    }
}

/// The label of an image with the digest of its agent.
const AGENT_LABEL: &str = "dev.bivouac.agent";

fn layer_name(diff_id: &str) -> String {
    format!("{}/layer.tar", diff_id.trim_start_matches("sha256:"))
}

fn file_header(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header
}

fn append(archive: &mut Builder<impl Write>, name: &str, content: &[u8]) -> io::Result<()> {
    archive.append_data(&mut file_header(content.len() as u64), name, content)
}

fn append_layer(
    archive: &mut Builder<impl Write>,
    layer: &LayerPath,
    name: &str,
) -> io::Result<()> {
    let plain = zstd::Decoder::new(File::open(&layer.blob)?)?;
    // One byte more than it should have would show.
    let mut plain = Measured { reader: plain.take(layer.size + 1), length: 0 };
    archive.append_data(&mut file_header(layer.size), name, &mut plain)?;
    if plain.length == layer.size {
        return Ok(());
    }
    let message = format!("{} unpacks to other than {} bytes", layer.blob, layer.size);
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Writes the layer with the agent: always the same bytes for the same agent.
fn write_agent_layer(agent: &Utf8Path, output: impl Write) -> io::Result<()> {
    let mut layer = Builder::new(output);
    let file = File::open(agent)?;
    let mut header = file_header(file.metadata()?.len());
    header.set_mode(0o755);
    layer.append_data(&mut header, paths::AGENT.trim_start_matches('/'), file)?;
    layer.finish()
}

/// Counts what is read.
struct Measured<R> {
    reader: R,
    length: u64,
}

impl<R: Read> Read for Measured<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.length += length as u64;
        Ok(length)
    }
}

/// Counts what is written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0 += buffer.len() as u64;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_provider::ImagePaths;
    use camino::Utf8PathBuf;

    fn recipe(dir: &Utf8Path, size: u64) -> Recipe {
        let blob = dir.join("blob");
        std::fs::write(&blob, zstd::encode_all(&[7; 1024][..], 1).unwrap()).unwrap();
        let agent = dir.join("agent");
        std::fs::write(&agent, "an agent").unwrap();
        let diff_id = format!("sha256:{}", hex::encode(Sha256::digest([7; 1024])));
        let none = Utf8PathBuf::new;
        let image = ImagePaths {
            key: "key".to_owned(),
            digest: "sha256:0".to_owned(),
            layout: none(),
            layers: vec![LayerPath { blob, diff_id, size }],
            rootfs: none(),
            shared_images: none(),
            shared_cache: none(),
        };
        Recipe {
            tag: names::image("sha256:0", "sha256:1"),
            agent_digest: "sha256:1".to_owned(),
            request: ImageRequest { image, agent },
            architecture: "amd64".to_owned(),
        }
    }

    #[test]
    fn layers_go_over_plain_and_are_what_the_config_says() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = recipe(Utf8Path::from_path(dir.path()).unwrap(), 1024);
        let ids = recipe.diff_ids().unwrap();
        let mut bytes = Vec::new();
        recipe.write(&ids, &mut bytes).unwrap();
        assert_eq!(recipe.size().unwrap(), 1024 + 8);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut names = Vec::new();
        let mut texts = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let digest = hex::encode(Sha256::digest(&content));
            match name.strip_suffix("/layer.tar").or_else(|| name.strip_suffix(".json")) {
                Some("manifest") => {}
                Some(hash) => assert_eq!(hash, digest),
                None => panic!("{name}"),
            }
            if name.ends_with(".json") {
                texts.push(String::from_utf8(content).unwrap());
            }
            names.push(name);
        }
        assert_eq!(names.len(), 4);
        assert_eq!(names.last().unwrap(), "manifest.json");
        insta::assert_snapshot!(texts.join("\n"));
    }

    #[test]
    fn a_layer_of_another_size_is_refused() {
        for size in [1000, 1040] {
            let dir = tempfile::tempdir().unwrap();
            let recipe = recipe(Utf8Path::from_path(dir.path()).unwrap(), size);
            let ids = recipe.diff_ids().unwrap();
            let error = recipe.write(&ids, io::sink()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
