//! Checking, listing and pruning.

use std::fs;
use std::process::Command;

use bivouac_image::{Cancel, find, list, prune, verify};

use crate::world::World;

#[test]
fn damage_is_noticed_and_made_again() {
    let world = World::new();
    let first = world.build();
    let (store, bundle) = (world.store(), world.bundle());
    assert!(find(&store, &bundle).is_some());
    assert_eq!(verify(&store, &|_| (), &Cancel::new()).unwrap(), []);

    fs::write(world.image(&first).join("rootfs/usr/local/bin/alpha"), "changed").unwrap();
    assert!(find(&store, &bundle).is_none());
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
    let pruned = prune(&store, &[&new.key()]).unwrap();
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
    assert!(find(&store, &world.bundle()).is_some());
    assert_eq!(prune(&store, &[&new.key()]).unwrap().removed, Vec::<String>::new());
    prune(&store, &[]).unwrap();
    assert_eq!(list(&store).unwrap().len(), 0);
    assert_eq!(fs::read_dir(world.root.join("store/blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn an_image_in_use_is_not_pruned() {
    let world = World::new();
    let outcome = world.build();
    let rootfs = world.image(&outcome).join("rootfs");
    // A mount namespace of its own, with the root file system mounted in it; it ends with its stdin.
    let script = format!("mount --bind {rootfs} {rootfs} && echo ready && read line");
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
    let store = world.store();
    assert!(list(&store).unwrap()[0].in_use);
    let pruned = prune(&store, &[]).unwrap();
    drop(node.stdin.take());
    node.wait().unwrap();
    assert_eq!(pruned.removed, Vec::<String>::new());
    assert_eq!(prune(&store, &[]).unwrap().removed.len(), 10);
}
