//! Importing image archives.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use bivouac_image::{
    Error, Event, Imported, Sha256, host_architecture, import_archive, import_stream,
    list_containers,
};
use camino::Utf8PathBuf;

use crate::samples::{Tar, docker_archive, gzip, oci_archive, zstd};

const PLAIN: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

struct Place {
    _folder: tempfile::TempDir,
    root: Utf8PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
        Self { _folder: folder, root }
    }

    fn images(&self) -> Utf8PathBuf {
        self.root.join("images")
    }

    fn layer(&self, tar: &[u8]) -> Utf8PathBuf {
        self.images().join("layers").join(Sha256::of(tar).hex())
    }

    fn import(&self, archive: &[u8]) -> Result<Vec<Imported>, Error> {
        let path = self.root.join("my app.tar");
        fs::write(&path, archive).unwrap();
        import_archive(&self.images(), &path, &|_| ())
    }

    fn import_layer(&self, layer: &[u8]) -> Result<Vec<Imported>, Error> {
        self.import(&docker_archive("app", &[layer]))
    }

    fn leftovers(&self) -> Vec<String> {
        let names = self.images().join(".tmp").read_dir_utf8().unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().to_owned());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }
}

fn code(result: Result<Vec<Imported>, Error>) -> &'static str {
    result.unwrap_err().code()
}

#[test]
fn a_layer_is_unpacked_as_overlayfs_wants_it() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .folder("./")
        .folder("bin/")
        .file("bin/tool", b"content")
        .link("bin/same", "bin/tool")
        .symlink("bin/link", "/etc/passwd")
        .file("etc/.wh.passwd", b"")
        .folder("var/")
        .file("var/.wh..wh..opq", b"")
        .file("no/folder/entry", b"x")
        .xattr("security.capability", &capability)
        .file("bin/ping", b"p")
        .entry("pipe", tar::EntryType::Fifo, "", b"")
        .done();
    let imported = place.import_layer(&tar).unwrap();
    assert_eq!(imported[0].name, "docker.io/library/app:latest");
    assert_eq!(imported[0].size, tar.len() as u64);
    let layer = place.layer(&tar);
    let tool = fs::metadata(layer.join("bin/tool")).unwrap();
    assert_eq!((tool.uid(), tool.gid(), tool.mode() & 0o7777), (12, 34, 0o4750));
    assert_eq!(tool.mtime(), 1_000_000_000);
    assert_eq!(fs::metadata(layer.join("bin/same")).unwrap().ino(), tool.ino());
    assert_eq!(fs::read_link(layer.join("bin/link")).unwrap().to_str(), Some("/etc/passwd"));
    let whiteout = fs::symlink_metadata(layer.join("etc/passwd")).unwrap();
    assert!(whiteout.file_type().is_char_device());
    assert_eq!(whiteout.rdev(), 0);
    let opaque = xattr::get(layer.join("var"), "trusted.overlay.opaque").unwrap();
    assert_eq!(opaque.as_deref(), Some(b"y".as_slice()));
    assert!(!layer.join("var/.wh..wh..opq").exists());
    assert_eq!(fs::read(layer.join("no/folder/entry")).unwrap(), b"x");
    let kept = xattr::get(layer.join("bin/ping"), "security.capability").unwrap();
    assert_eq!(kept.as_deref(), Some(capability.as_slice()));
    assert!(fs::symlink_metadata(layer.join("pipe")).unwrap().file_type().is_fifo());
    let folder = fs::metadata(layer.join("bin")).unwrap();
    assert_eq!((folder.mode() & 0o7777, folder.mtime()), (0o755, 1_000_000_000));
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn no_entry_leaves_its_layer() {
    let place = Place::new();
    let outside = place.root.join("outside");
    fs::create_dir(&outside).unwrap();
    let escapes = [
        Tar::new().file("../../../outside/a", b"x").done(),
        Tar::new().file("ok/../../a", b"x").done(),
        Tar::new().symlink("up", "../../../outside").file("up/a", b"x").done(),
        Tar::new().symlink("abs", outside.as_str()).file("abs/a", b"x").done(),
        Tar::new().link("a", "../../../../outside/secret").done(),
        Tar::new().symlink("loop", "loop").file("loop/a", b"x").done(),
        Tar::new().file("a/.wh...", b"").done(),
        Tar::new().file(".wh..", b"").done(),
    ];
    for tar in escapes {
        assert_eq!(code(place.import_layer(&tar)), "image.unsafe_entry");
    }
    // A link inside is followed inside; an absolute path is below the layer; a file replaces a link.
    let tar = Tar::new()
        .folder("usr/")
        .symlink("lib", "/usr")
        .file("lib/in", b"x")
        .file("/abs", b"y")
        .symlink("file", outside.join("file").as_str())
        .file("file", b"z")
        .done();
    place.import_layer(&tar).unwrap();
    let layer = place.layer(&tar);
    assert_eq!(fs::read(layer.join("usr/in")).unwrap(), b"x");
    assert_eq!(fs::read(layer.join("abs")).unwrap(), b"y");
    assert_eq!(fs::read(layer.join("file")).unwrap(), b"z");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(place.leftovers(), Vec::<String>::new());
}

#[test]
fn oci_archives_of_every_compression_keep_their_digest() {
    let place = Place::new();
    let tars: Vec<Vec<u8>> =
        (0..3_u8).map(|number| Tar::new().file("file", &[number]).done()).collect();
    let layers = [
        (PLAIN, tars[0].as_slice(), tars[0].clone()),
        (GZIP, tars[1].as_slice(), gzip(&tars[1])),
        (ZSTD, tars[2].as_slice(), zstd(&tars[2])),
    ];
    let archive = oci_archive("docker.io/me/app:1", &[host_architecture()], &layers);
    let imported = place.import(&archive).unwrap();
    assert_eq!(imported[0].name, "docker.io/me/app:1");
    for (number, tar) in tars.iter().enumerate() {
        let content = fs::read(place.layer(tar).join("file")).unwrap();
        assert_eq!(content, [u8::try_from(number).unwrap()]);
    }
    let blob = place.images().join("blobs/sha256").join(imported[0].digest.hex());
    assert_eq!(Sha256::of_file(&blob).unwrap(), imported[0].digest);
    let listed = list_containers(&place.images()).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].digest, imported[0].digest);
}

#[test]
fn a_layer_that_is_there_is_not_unpacked_again() {
    let place = Place::new();
    let tar = Tar::new().file("file", b"x").done();
    place.import_layer(&tar).unwrap();
    let path = place.root.join("again.tar");
    fs::write(&path, docker_archive("other:2", &[&tar])).unwrap();
    let events = std::sync::Mutex::new(Vec::new());
    import_archive(&place.images(), &path, &|event| events.lock().unwrap().push(event)).unwrap();
    assert!(matches!(events.into_inner().unwrap().as_slice(), [Event::Reused { .. }]));
    let names: Vec<String> =
        list_containers(&place.images()).unwrap().into_iter().map(|image| image.name).collect();
    assert_eq!(names, ["docker.io/library/app:latest", "docker.io/library/other:2"]);
}

#[test]
fn the_hosts_platform_is_chosen_and_others_are_named() {
    let place = Place::new();
    let tar = Tar::new().file("file", b"x").done();
    let layers = [(PLAIN, tar.as_slice(), tar.clone())];
    let archive = oci_archive("app", &["s390x", host_architecture()], &layers);
    assert_eq!(place.import(&archive).unwrap().len(), 1);
    let place = Place::new();
    let error = place.import(&oci_archive("app", &["s390x", "riscv64"], &layers)).unwrap_err();
    assert_eq!(error.code(), "image.wrong_architecture");
    let text = error.to_string();
    assert!(text.contains("linux/s390x, linux/riscv64"), "{text}");
    assert!(text.contains(&format!("linux/{}", host_architecture())), "{text}");
}

#[test]
fn streams_and_compressed_archives_and_folders_are_read() {
    let place = Place::new();
    let tar = Tar::new().file("file", b"x").done();
    let archive = docker_archive("app", &[&tar]);
    import_stream(&place.images(), "app", archive.as_slice(), &|_| ()).unwrap();
    assert_eq!(place.leftovers(), Vec::<String>::new());
    assert_eq!(Place::new().import(&gzip(&archive)).unwrap().len(), 1);
    assert_eq!(Place::new().import(&zstd(&archive)).unwrap().len(), 1);
    let folder = place.root.join("layout");
    tar::Archive::new(archive.as_slice()).unpack(&folder).unwrap();
    assert_eq!(import_archive(&place.images(), &folder, &|_| ()).unwrap().len(), 1);
}

#[test]
fn what_is_no_whole_archive_is_told() {
    let tar = Tar::new().file("file", &[7; 5000]).done();
    let archive = docker_archive("app", &[&tar]);
    assert_eq!(code(Place::new().import(b"hello")), "image.not_an_archive");
    assert_eq!(code(Place::new().import(&[b'x'; 4096])), "image.not_an_archive");
    assert_eq!(code(Place::new().import(b"")), "image.not_an_archive");
    assert_eq!(code(Place::new().import(&tar)), "image.not_an_archive");
    assert_eq!(code(Place::new().import(&archive[..3000])), "image.truncated");
    let packed = gzip(&archive);
    assert_eq!(code(Place::new().import(&packed[..packed.len() / 2])), "image.truncated");
    let place = Place::new();
    let none = place.root.join("none.tar");
    let missing = import_archive(&place.images(), &none, &|_| ());
    assert_eq!(code(missing), "image.io");
}

#[test]
fn content_that_is_not_what_it_claims_is_refused() {
    let place = Place::new();
    let tar = Tar::new().file("file", b"good").done();
    let other = Tar::new().file("file", b"evil").done();
    let archive = docker_archive("app", &[&tar]);
    let start = archive.windows(other.len()).position(|part| part == tar).unwrap();
    let mut forged = archive;
    forged[start..start + other.len()].copy_from_slice(&other);
    assert_eq!(code(place.import(&forged)), "image.checksum");
    assert!(!place.layer(&tar).exists());
    assert_eq!(list_containers(&place.images()).unwrap(), []);
    let odd = oci_archive(
        "app",
        &[host_architecture()],
        &[("application/vnd.oci.image.layer.v1.zip", &tar, tar.clone())],
    );
    assert_eq!(code(place.import(&odd)), "image.unsupported_media_type");
}
