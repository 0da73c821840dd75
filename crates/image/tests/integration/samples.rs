//! Image archives and programs, made in memory.

use std::io::Write;

use bivouac_image::Sha256;
use serde_json::{Value, json};

/// A tar file under way.
pub(crate) struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(crate) fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(path, tar::EntryType::Regular, "", content)
    }

    pub(crate) fn folder(self, path: &str) -> Self {
        self.entry(path, tar::EntryType::Directory, "", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Symlink, target, b"")
    }

    pub(crate) fn link(self, path: &str, target: &str) -> Self {
        self.entry(path, tar::EntryType::Link, target, b"")
    }

    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        let name = format!("SCHILY.xattr.{name}");
        self.0.append_pax_extensions([(name.as_str(), value)]).unwrap();
        self
    }

    /// The name is written as it is, for names that the tar crate refuses to write.
    pub(crate) fn entry(
        mut self,
        path: &str,
        kind: tar::EntryType,
        target: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o4750 });
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        let link = &mut header.as_old_mut().linkname;
        link[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn config(architecture: &str, layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Sha256> = layers.iter().map(|layer| Sha256::of(layer)).collect();
    serde_json::to_vec(&json!({
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/run"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

/// As `docker save` wrote it before version 25.
pub(crate) fn docker_archive(tag: &str, layers: &[&[u8]]) -> Vec<u8> {
    let config = config(bivouac_image::host_architecture(), layers);
    let names: Vec<String> =
        (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let mut tar = Tar::new();
    for (name, layer) in names.iter().zip(layers) {
        tar = tar.file(name, layer);
    }
    let manifest = json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
    tar.file("config.json", &config).file("manifest.json", manifest.to_string().as_bytes()).done()
}

/// A layer blob of an OCI image: media type, plain tar, the bytes as they are in the archive.
pub(crate) type Blob<'a> = (&'a str, &'a [u8], Vec<u8>);

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Sha256::of(bytes), "size": bytes.len()})
}

fn blob(tar: Tar, bytes: &[u8]) -> Tar {
    tar.file(&format!("blobs/sha256/{}", Sha256::of(bytes).hex()), bytes)
}

/// An OCI archive of one image for each architecture, behind an index of its own where there are several.
pub(crate) fn oci_archive(name: &str, architectures: &[&str], layers: &[Blob<'_>]) -> Vec<u8> {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let plain: Vec<&[u8]> = layers.iter().map(|(_, plain, _)| *plain).collect();
    let mut tar = Tar::new().file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    for (_, _, packed) in layers {
        tar = blob(tar, packed);
    }
    let mut manifests = Vec::new();
    for architecture in architectures {
        let config = config(architecture, &plain);
        let layers: Vec<Value> =
            layers.iter().map(|(kind, _, packed)| descriptor(kind, packed)).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        })
        .to_string();
        tar = blob(blob(tar, &config), manifest.as_bytes());
        let mut descriptor = descriptor(MANIFEST, manifest.as_bytes());
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(descriptor);
    }
    let mut top = if manifests.len() == 1 {
        manifests.remove(0)
    } else {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let index = index.to_string();
        tar = blob(tar, index.as_bytes());
        descriptor(INDEX, index.as_bytes())
    };
    top["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [top]});
    tar.file("index.json", index.to_string().as_bytes()).done()
}

/// As much of an ELF file as says which loader and which shared libraries it needs.
pub(crate) fn elf(loader: Option<&str>, libraries: &[&str]) -> Vec<u8> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    let (load, dynamic, interpreter, needed, strings, strings_size) = (1_u32, 2, 3, 1_u64, 5, 10);
    let mut names = vec![0];
    let mut entries = Vec::new();
    for library in libraries {
        entries.push([needed, names.len() as u64]);
        names.extend(format!("{library}\0").bytes());
    }
    let loader = loader.map(|path| format!("{path}\0")).unwrap_or_default();
    let segments = 2 + u64::from(!loader.is_empty());
    let names_at = HEADER + segments * SEGMENT;
    let loader_at = names_at + names.len() as u64;
    let dynamic_at = (loader_at + loader.len() as u64).next_multiple_of(8);
    entries.extend([[strings, names_at], [strings_size, names.len() as u64], [0, 0]]);
    let end = dynamic_at + 16 * entries.len() as u64;

    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let machine: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    bytes.extend([3_u16, machine].map(u16::to_le_bytes).concat());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0, HEADER, 0].map(u64::to_le_bytes).concat());
    bytes.extend(0_u32.to_le_bytes());
    let sizes = [HEADER as u16, SEGMENT as u16, segments as u16, 64, 0, 0];
    bytes.extend(sizes.map(u16::to_le_bytes).concat());
    let mut segment = |kind: u32, from: u64, to: u64| {
        bytes.extend([kind, 4].map(u32::to_le_bytes).concat());
        bytes.extend([from, from, from, to - from, to - from, 8].map(u64::to_le_bytes).concat());
    };
    if !loader.is_empty() {
        segment(interpreter, loader_at, loader_at + loader.len() as u64);
    }
    segment(load, 0, end);
    segment(dynamic, dynamic_at, end);
    bytes.extend(names);
    bytes.extend(loader.bytes());
    bytes.resize(usize::try_from(dynamic_at).unwrap(), 0);
    bytes.extend(entries.concat().iter().flat_map(|word| word.to_le_bytes()));
    bytes
}
