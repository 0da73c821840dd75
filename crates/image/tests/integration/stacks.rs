//! Node images of several stacks in one store.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use bivouac_image::{Cancel, INSTANCE_IMAGES, NodeImage, Stack, list, prune, verify};

use crate::world::World;

#[test]
fn stacks_share_the_base_and_it_is_made_once() {
    let world = World::new();
    let incus = world.build_incus();
    assert_eq!(incus.finished, ["base", "node", "packages"]);
    let kubernetes = world.build();
    assert_eq!(kubernetes.reused, ["base"]);
    assert_eq!(world.calls().iter().filter(|call| *call == "mmdebstrap").count(), 2);
    let store = world.store();
    let image = |key: &str| NodeImage::open(&store, key).unwrap().manifest;
    let (one, other) = (image(&incus.key()), image(&kubernetes.key()));
    assert_eq!((one.stack, other.stack), (Stack::Incus, Stack::Kubernetes));
    assert_eq!(one.layers[0], other.layers[0]);
    assert_eq!((one.layers.len(), other.layers.len()), (3, 3));
    assert_eq!(one.versions, BTreeMap::from([("extra".to_owned(), "7-1".to_owned())]));
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);
    let listed = list(&store).unwrap();
    assert_eq!(listed.iter().filter(|image| image.stack == Stack::Incus).count(), 1);
}

#[test]
fn packages_lie_over_the_base() {
    let world = World::new();
    let rootfs = world.image(&world.build_incus()).join("rootfs");
    assert_eq!(fs::read_to_string(rootfs.join("usr/bin/extra")).unwrap(), "extra\n");
    assert_eq!(fs::read_to_string(rootfs.join("usr/bin/busybox")).unwrap(), "box\n");
    assert_eq!(fs::read_link(rootfs.join("var/lib/extra")).unwrap().to_str(), Some("elsewhere"));
    let gone = fs::symlink_metadata(rootfs.join("usr/sbin/tool")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0, "no whiteout");
    assert!(rootfs.join("etc/machine-id").is_file());
    assert!(!rootfs.join("usr/local/bin/alpha").exists());
}

#[test]
fn the_instance_image_is_the_base_with_a_first_process() {
    let world = World::new();
    let rootfs = world.image(&world.build_incus()).join("rootfs");
    let path = rootfs.join(INSTANCE_IMAGES).join("small.tar");
    let mut archive = tar::Archive::new(fs::File::open(path).unwrap());
    let mut entries = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let target = entry.link_name().unwrap().map(|target| target.to_str().unwrap().to_owned());
        let mut text = String::new();
        if path.ends_with(".yaml") || path.starts_with("templates/") || path.ends_with("init") {
            entry.read_to_string(&mut text).unwrap();
        }
        entries.insert(path, (entry.header().mode().unwrap(), target, text));
    }
    let metadata: serde_json::Value = serde_json::from_str(&entries["metadata.yaml"].2).unwrap();
    assert_eq!(metadata["properties"]["os"], "small");
    assert_eq!(metadata["templates"]["/etc/hostname"]["template"], "0");
    assert_eq!(entries["templates/0"].2, "{{ container.name }}");
    assert_eq!(entries["rootfs/sbin/init"], (0o755, None, "#!/bin/sh\n".to_owned()));
    assert_eq!(entries["rootfs/usr/bin/ping"].1.as_deref(), Some("busybox"));
    // Names of one file stay together, below the new place.
    assert_eq!(entries["rootfs/usr/bin/twin"].1.as_deref(), Some("rootfs/usr/bin/busybox"));
    assert!(!entries.contains_key("rootfs/usr/lib/libtwo.so"));
}

#[test]
fn prune_keeps_the_packages_of_an_image_that_stays() {
    let world = World::new();
    let (incus, kubernetes) = (world.build_incus(), world.build());
    let store = world.store();
    prune(&store, &[&incus.key()], false).unwrap();
    assert!(!world.image(&kubernetes).exists());
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);
    assert_eq!(world.build_incus().reused, ["base", "node", "packages"]);
    let damaged = fs::read_dir(world.root.join("store/base")).unwrap().count();
    assert_eq!(damaged, 2);
}

#[test]
fn what_the_first_process_is_belongs_to_the_key() {
    let world = World::new();
    let keys = |stack| world.bundle().image_key(stack).unwrap();
    let before = (keys(Stack::Incus), keys(Stack::Kubernetes));
    fs::write(world.root.join("bundle/instance/init"), "#!/bin/sh\nexec sh\n").unwrap();
    assert_ne!(keys(Stack::Incus), before.0);
    assert_eq!(keys(Stack::Kubernetes), before.1);
}
