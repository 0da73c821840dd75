//! Container images that the tests make themselves, as `docker save` and as OCI archives.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image of two layers: `/bin/busybox`, which is what runs, and `/word`.
#[derive(Debug)]
pub struct TestImage {
    name: String,
    layers: [Vec<u8>; 2],
}

impl TestImage {
    /// The image of this full name, with this static busybox and this word in it.
    ///
    /// # Panics
    /// Never: a tar archive in memory can be written.
    #[must_use]
    pub fn new(name: &str, busybox: &[u8], word: &str) -> Self {
        let layers = [tar(&[("bin/busybox", busybox)]), tar(&[("word", word.as_bytes())])];
        Self { name: name.to_owned(), layers }
    }

    /// As `docker save` of old writes it.
    ///
    /// # Panics
    /// Never: as [`TestImage::new`].
    #[must_use]
    pub fn docker_archive(&self) -> Vec<u8> {
        let config = self.config();
        let layers = ["0/layer.tar", "1/layer.tar"];
        let manifest =
            bytes(&json!([{"Config": "config.json", "RepoTags": [self.name], "Layers": layers}]));
        let mut files: Vec<(&str, &[u8])> =
            layers.into_iter().zip(self.layers.iter().map(Vec::as_slice)).collect();
        files.extend([("config.json", &*config), ("manifest.json", &*manifest)]);
        tar(&files)
    }

    /// As an OCI archive.
    ///
    /// # Panics
    /// Never: as [`TestImage::new`].
    #[must_use]
    pub fn oci_archive(&self) -> Vec<u8> {
        let files = self.oci_files();
        let files: Vec<_> =
            files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
        tar(&files)
    }

    /// As an OCI layout, written into a new folder.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write_oci_layout(&self, folder: &Path) {
        for (path, content) in self.oci_files() {
            let path = folder.join(path);
            let parent = path.parent().expect("it is below the folder");
            std::fs::create_dir_all(parent).expect("a new folder can be written");
            std::fs::write(&path, content).expect("a new folder can be written");
        }
    }

    /// As an OCI archive whose layer is not what its manifest says.
    ///
    /// # Panics
    /// Never: as [`TestImage::new`].
    #[must_use]
    pub fn damaged_archive(&self) -> Vec<u8> {
        let mut files = self.oci_files();
        let layer =
            files.iter_mut().max_by_key(|(_, content)| content.len()).expect("there are files");
        let middle = layer.1.len() / 2;
        layer.1[middle] ^= 0xff;
        let files: Vec<_> =
            files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect();
        tar(&files)
    }

    /// The digest of its manifest, and everything that a registry has of it by digest.
    pub(crate) fn registry_blobs(&self) -> (String, Vec<(String, Vec<u8>)>) {
        let files = self.oci_files();
        let index = files.iter().find(|(path, _)| path == "index.json");
        let index: Value = index
            .and_then(|(_, content)| serde_json::from_slice(content).ok())
            .expect("a layout has an index");
        let manifest = index["manifests"][0]["digest"].as_str().expect("it names its manifest");
        let blob = |(path, content): (String, Vec<u8>)| {
            Some((path.strip_prefix("blobs/")?.replace('/', ":"), content))
        };
        (manifest.to_owned(), files.into_iter().filter_map(blob).collect())
    }

    fn config(&self) -> Vec<u8> {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        bytes(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Entrypoint": ["/bin/busybox"]},
            "rootfs": {"type": "layers", "diff_ids": self.layers.each_ref().map(|layer| digest(layer))},
        }))
    }

    fn oci_files(&self) -> Vec<(String, Vec<u8>)> {
        let config = self.config();
        let media = |kind: &str| format!("application/vnd.oci.image.{kind}");
        let descriptor = |kind: &str, content: &[u8]| json!({"mediaType": media(kind), "digest": digest(content), "size": content.len()});
        let manifest = bytes(&json!({
            "schemaVersion": 2,
            "mediaType": media("manifest.v1+json"),
            "config": descriptor("config.v1+json", &config),
            "layers": self.layers.each_ref().map(|layer| descriptor("layer.v1.tar", layer)),
        }));
        let mut top = descriptor("manifest.v1+json", &manifest);
        top["annotations"] = json!({"org.opencontainers.image.ref.name": self.name});
        let index = bytes(
            &json!({"schemaVersion": 2, "mediaType": media("index.v1+json"), "manifests": [top]}),
        );
        let layout = bytes(&json!({"imageLayoutVersion": "1.0.0"}));
        let blob =
            |content: Vec<u8>| (format!("blobs/{}", digest(&content).replace(':', "/")), content);
        let mut files = vec![("oci-layout".to_owned(), layout), ("index.json".to_owned(), index)];
        files.extend([manifest, config].into_iter().chain(self.layers.clone()).map(blob));
        files
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, path, *content).expect("memory can be written");
    }
    archive.into_inner().expect("memory can be written")
}
