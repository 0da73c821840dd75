//! Building node images.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bivouac_image::{BAKED_IMAGES, Sha256, list_containers};
use serde_json::Value;

use crate::samples::elf;
use crate::world::World;

const ALL: [&str; 5] = ["base", "node", "program/alpha", "program/beta", "program/box"];

#[test]
fn the_image_holds_what_the_lock_says() {
    let world = World::new();
    let outcome = world.build();
    assert_eq!(outcome.finished, ALL);
    let rootfs = world.image(&outcome).join("rootfs");
    let alpha = fs::read_to_string(rootfs.join("usr/local/bin/alpha")).unwrap();
    assert!(alpha.starts_with("alpha\n"), "{alpha}");
    let target = fs::read_link(rootfs.join("usr/local/bin/alphactl")).unwrap();
    assert_eq!(target.to_str(), Some("alpha"));
    assert_eq!(fs::read_link(rootfs.join("bin")).unwrap().to_str(), Some("usr/bin"));
    let inode = |path: &str| fs::metadata(rootfs.join(path)).unwrap().ino();
    assert_eq!(inode("usr/bin/busybox"), inode("usr/bin/twin"));
    for (path, mode) in [
        ("usr/local/bin/bivouac", 0o755),
        ("etc/hostname", 0o644),
        ("etc/hosts", 0o644),
        ("etc/machine-id", 0o444),
        ("etc/resolv.conf", 0o644),
    ] {
        let metadata = fs::symlink_metadata(rootfs.join(path)).unwrap();
        assert!(metadata.is_file() && metadata.len() == 0, "{path}");
        assert_eq!(metadata.mode() & 0o7777, mode, "{path}");
    }
    for path in ["var/lib/etcd", "var/lib/containerd", "var/lib/kubelet", "etc/cni/net.d", "run"] {
        assert!(rootfs.join(path).is_dir(), "{path}");
    }
    assert!(!rootfs.join("dev/null").exists());
    assert!(!rootfs.join("var/log/now").exists());
    assert_eq!(fs::metadata(rootfs.join("opt/cni/bin/beta")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn the_oci_layout_is_whole() {
    let world = World::new();
    let outcome = world.build();
    let layout = world.image(&outcome).join("oci");
    let blob = |digest: &Value| -> Vec<u8> {
        let hex = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
        let bytes = fs::read(layout.join("blobs/sha256").join(hex)).unwrap();
        assert_eq!(Sha256::of(&bytes).hex(), hex);
        bytes
    };
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let manifest = &index["manifests"][0];
    assert_eq!(manifest["digest"], outcome.digest());
    let manifest: Value = serde_json::from_slice(&blob(&manifest["digest"])).unwrap();
    let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
    assert_eq!(config["config"]["Entrypoint"][0], "/usr/local/bin/bivouac");
    assert_eq!(config["config"]["Labels"]["dev.bivouac.version.alpha"], "1.0");
    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    for (layer, diff_id) in layers.iter().zip(config["rootfs"]["diff_ids"].as_array().unwrap()) {
        let plain = zstd::decode_all(blob(&layer["digest"]).as_slice()).unwrap();
        assert_eq!(Sha256::of(&plain).to_string(), *diff_id);
    }
}

#[test]
fn container_images_are_ready_in_the_node() {
    let world = World::new();
    let outcome = world.build();
    let folder = world.image(&outcome).join("rootfs").join(BAKED_IMAGES);
    let images = list_containers(&folder).unwrap();
    let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["bivouac.dev/beta:2.0", "bivouac.dev/box:3", "bivouac.dev/other:v2.0"]);
    let blob = |digest: &str| -> Value {
        let hex = digest.trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(folder.join("blobs/sha256").join(hex)).unwrap()).unwrap()
    };
    let layers_of = |number: usize| {
        let manifest = blob(&images[number].digest.hex());
        let config = blob(manifest["config"]["digest"].as_str().unwrap());
        assert_eq!(
            config["history"].as_array().unwrap().len(),
            manifest["layers"].as_array().unwrap().len()
        );
        config["rootfs"]["diff_ids"].as_array().unwrap().clone()
    };
    let layers = layers_of(0);
    assert_eq!(layers.len(), 2);
    assert_eq!(layers_of(2), layers, "an image without files has its base's layers");
    let layer = |number: usize| {
        let hex = layers[number].as_str().unwrap().trim_start_matches("sha256:").to_owned();
        folder.join("layers").join(hex)
    };
    assert_eq!(fs::read_to_string(layer(0).join("bin/box")).unwrap(), "box\n");
    assert_eq!(fs::metadata(layer(0).join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert!(layer(1).join("beta").exists());
    assert!(!folder.join(".tmp").exists());
}

#[test]
fn what_is_in_a_container_image_is_in_the_node_once() {
    let world = World::new();
    let outcome = world.build();
    let rootfs = world.image(&outcome).join("rootfs");
    let beta = rootfs.join("opt/cni/bin/beta");
    let target = fs::read_link(&beta).unwrap();
    assert!(target.starts_with(format!("../../../{BAKED_IMAGES}/layers")), "{target:?}");
    // The link holds on the host too, and the node's program is the image's file.
    let place = fs::canonicalize(&beta).unwrap();
    assert!(place.starts_with(rootfs.join(BAKED_IMAGES)), "{place:?}");
    assert!(fs::read_to_string(beta).unwrap().starts_with("beta\n"));
    assert!(fs::symlink_metadata(rootfs.join("usr/local/bin/alpha")).unwrap().is_file());
}

#[test]
fn a_program_of_debian_brings_its_libraries() {
    let world = World::new();
    let outcome = world.build();
    let rootfs = world.image(&outcome).join("rootfs");
    let beta = fs::canonicalize(rootfs.join("opt/cni/bin/beta")).unwrap();
    let layer = beta.parent().unwrap();
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let one = format!("{libraries}/libone.so.1");
    for path in ["usr/sbin/tool", "lib64/loader", &one, "usr/lib/libtwo.so"] {
        assert!(fs::symlink_metadata(layer.join(path)).unwrap().is_file(), "{path}");
    }
    let found = fs::read_dir(layer.join(libraries)).unwrap().count();
    assert_eq!(found, 1, "a library has the name by which it is asked for, and no other");
}

#[test]
fn a_library_that_debian_lacks_is_named() {
    let world = World::new();
    fs::write(world.root.join("bin/tool"), elf(None, &["libnone.so.7"])).unwrap();
    let (code, text) = world.build().result.unwrap_err();
    assert_eq!(code, "image.bundle_lock");
    assert!(text.contains("/usr/sbin/tool needs libnone.so.7"), "{text}");
}

#[test]
fn the_same_input_gives_the_same_image() {
    let (one, other) = (World::new(), World::new());
    let (first, second) = (one.build(), other.build());
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.key(), second.key());
    other.write_lock("2.1");
    assert_ne!(other.build().digest(), first.digest());
}

#[test]
fn what_is_made_is_not_made_again() {
    let world = World::new();
    let first = world.build();
    let again = world.build();
    assert_eq!(again.finished, [""; 0]);
    assert_eq!(again.reused, ALL);
    assert_eq!(again.digest(), first.digest());
    world.write_lock("2.1");
    assert_eq!(world.build().finished, ["node", "program/beta"]);
    assert_eq!(world.calls(), ["go alpha", "go beta", "go beta", "mmdebstrap"]);
}

#[test]
fn builds_at_once_share_the_work() {
    let world = World::new();
    let names = ["a", "b", "c"];
    let children = names.map(|name| (name, world.start(name)));
    let outcomes = children.map(|(name, child)| world.finish(name, child));
    assert_eq!(outcomes[0].digest(), outcomes[1].digest());
    assert_eq!(outcomes[0].digest(), outcomes[2].digest());
    assert_eq!(world.calls(), ["go alpha", "go beta", "mmdebstrap"]);
}

#[test]
fn a_failed_build_goes_on_where_it_was() {
    let world = World::new();
    let mark = world.root.join("bin/fail-beta");
    fs::write(&mark, "").unwrap();
    let (code, text) = world.build().result.unwrap_err();
    assert_eq!(code, "image.command_failed");
    assert!(text.contains("go build") && text.contains("main.go:1: broken"), "{text}");
    fs::remove_file(&mark).unwrap();
    let outcome = world.build();
    assert!(outcome.reused.contains(&"program/alpha".to_owned()), "{outcome:?}");
    assert!(outcome.finished.contains(&"program/beta".to_owned()), "{outcome:?}");
}
