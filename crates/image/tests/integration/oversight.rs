//! Checking, listing and pruning.

use std::fs;
use std::process::{Child, Command};

use bivouac_image::{
    Cancel, Stack, Store, find, import_archive, list, list_containers, prune, verify,
};
use camino::Utf8Path;

use crate::samples::{Tar, docker_archive};
use crate::world::World;

#[test]
fn damage_is_noticed_and_made_again() {
    let world = World::new();
    let first = world.build();
    let (store, bundle) = (world.store(), world.bundle());
    assert!(find(&store, &bundle, Stack::Kubernetes).is_some());
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);

    fs::write(world.image(&first).join("rootfs/usr/local/bin/alpha"), "changed").unwrap();
    assert!(find(&store, &bundle, Stack::Kubernetes).is_none());
    let mut programs = fs::read_dir(world.root.join("store/programs")).unwrap();
    let artifact = programs
        .find_map(|entry| {
            Some(entry.unwrap().path().join("artifacts/beta")).filter(|path| path.exists())
        })
        .unwrap();
    fs::write(artifact, "changed").unwrap();

    let damages = verify(&store, &|_| (), &Cancel::new()).unwrap();
    let pieces: Vec<&str> =
        damages.iter().map(|damage| damage.piece.parent().unwrap().file_name().unwrap()).collect();
    assert_eq!(pieces, ["programs", "images"]);
    assert!(damages.iter().all(|damage| damage.removed), "{damages:?}");
    assert!(damages[1].why.contains("rootfs/usr/local/bin/alpha"), "{damages:?}");

    let again = world.build();
    assert_eq!(again.finished, ["node", "program/beta"]);
    assert_eq!(again.digest(), first.digest());
}

#[test]
fn a_build_alone_mends_what_is_damaged() {
    let world = World::new();
    let first = world.build();
    fs::remove_file(world.image(&first).join("rootfs/opt/cni/bin/beta")).unwrap();
    for blob in fs::read_dir(world.root.join("store/blobs/sha256")).unwrap() {
        fs::write(blob.unwrap().path(), "changed").unwrap();
    }
    let again = world.build();
    assert_eq!(again.finished, ["base", "node"]);
    assert_eq!(again.digest(), first.digest());
    assert_eq!(verify(&world.store(), &|_| (), &Cancel::new()).unwrap(), []);
}

#[test]
fn prune_keeps_what_kept_images_are_made_of() {
    let world = World::new();
    let old = world.build();
    world.write_lock("2.1");
    let new = world.build();
    let store = world.store();
    assert_eq!(list(&store).unwrap().len(), 2);
    let pruned = prune(&store, &[&new.key()], false).unwrap();
    assert!(pruned.bytes > 0 && !pruned.build_running, "{pruned:?}");
    let count = |kind: &str| pruned.removed.iter().filter(|name| name.starts_with(kind)).count();
    // The old image with its `beta`, its container images, its configuration and its manifest. The layer of programs
    // is the new one's too, since the stand-in for Go writes the same bytes.
    assert_eq!(
        (count("images/"), count("programs/"), count("base/"), count("blobs/")),
        (1, 1, 0, 3)
    );
    assert!(!world.image(&old).exists());
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);
    assert!(find(&store, &world.bundle(), Stack::Kubernetes).is_some());
    assert_eq!(prune(&store, &[&new.key()], false).unwrap().removed, Vec::<String>::new());
    prune(&store, &[], false).unwrap();
    assert_eq!(list(&store).unwrap().len(), 0);
    assert_eq!(fs::read_dir(world.root.join("store/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn an_image_in_use_is_not_pruned() {
    let world = World::new();
    let outcome = world.build();
    let rootfs = world.image(&outcome).join("rootfs");
    let mut node = start_node(&rootfs, &rootfs);
    let store = world.store();
    assert!(list(&store).unwrap()[0].in_use);
    let pruned = prune(&store, &[], false).unwrap();
    drop(node.stdin.take());
    node.wait().unwrap();
    assert_eq!(pruned.removed, Vec::<String>::new());
    assert_eq!(prune(&store, &[], false).unwrap().removed.len(), 10);
}

/// A mount namespace of its own, with the folder mounted in it; it ends with its stdin.
fn start_node(folder: &Utf8Path, at: &Utf8Path) -> Child {
    let script = format!("mount --bind {folder} {at} && echo ready && read line");
    let mut node = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = node.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    node
}

#[test]
fn what_a_loaded_image_has_no_more_is_pruned_when_no_node_can_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(folder.path()).unwrap();
    let store = Store::open(&root.join("store")).unwrap();
    let load = |text: &[u8]| {
        let shared = Tar::new().file("shared", b"1").done();
        let own = Tar::new().file("own", text).done();
        let path = root.join("app.tar");
        fs::write(&path, docker_archive("app", &[&shared, &own])).unwrap();
        import_archive(&store.containers(), &path, &|_| ()).unwrap();
    };
    let count = |name: &str| fs::read_dir(store.containers().join(name)).unwrap().count();
    let counts = || (count("layers"), count("blobs/sha256"));
    load(b"old");
    assert_eq!(prune(&store, &[], false).unwrap().removed, Vec::<String>::new());
    load(b"new");
    assert_eq!(counts(), (3, 4));

    let at = root.join("at");
    fs::create_dir(&at).unwrap();
    let mut node = start_node(&store.containers(), &at);
    let pruned = prune(&store, &[], false).unwrap();
    drop(node.stdin.take());
    node.wait().unwrap();
    assert_eq!(pruned.removed, Vec::<String>::new());

    // A snapshot has links to them.
    assert_eq!(prune(&store, &[], true).unwrap().removed, Vec::<String>::new());
    let pruned = prune(&store, &[], false).unwrap();
    assert_eq!((pruned.removed.len(), counts()), (3, (2, 2)), "{pruned:?}");
    assert!(pruned.removed.iter().all(|name| name.starts_with("containers/")), "{pruned:?}");
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);
    assert_eq!(list_containers(&store.containers()).unwrap().len(), 1);
}

#[test]
fn a_damaged_loaded_image_is_told_and_loading_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = Utf8Path::from_path(folder.path()).unwrap();
    let store = Store::open(&root.join("store")).unwrap();
    let path = root.join("app.tar");
    fs::write(&path, docker_archive("app", &[&Tar::new().file("a", b"1").done()])).unwrap();
    let load = || import_archive(&store.containers(), &path, &|_| ()).unwrap();
    let manifest = store.containers().join("blobs/sha256").join(load()[0].digest.hex());
    let layer = fs::read_dir(store.containers().join("layers")).unwrap().next().unwrap().unwrap();

    fs::write(&manifest, "").unwrap();
    let damages = verify(&store, &|_| (), &Cancel::new()).unwrap();
    assert_eq!((damages.len(), &damages[0].piece), (1, &manifest), "{damages:?}");
    assert_eq!(prune(&store, &[], false).unwrap().removed, Vec::<String>::new());
    load();
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);

    fs::remove_dir_all(layer.path()).unwrap();
    let damages = verify(&store, &|_| (), &Cancel::new()).unwrap();
    assert!(damages[0].why.contains("load the image docker.io/library/app:latest"), "{damages:?}");
    load();
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);
}
