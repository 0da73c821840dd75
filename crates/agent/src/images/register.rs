//! What is done for each image, and in which order: blobs, snapshots from the lowest layer up, then the record that holds them.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use futures::future::try_join_all;

use super::containerd::Containerd;
use super::layout::{self, Image, Layer, open_image, open_index};
use super::messages::{Descriptor, Labels, Mount};
use super::{Error, Registered, Selection};

/// After this containerd may collect what an interrupted registration left.
const LEASE: Duration = Duration::from_secs(600);

/// Registers the selected images, all at once.
pub(crate) fn register(selection: &Selection<'_>) -> Result<Vec<Registered>, Error> {
    let wanted = open_index(selection)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    runtime.block_on(register_all(selection, wanted))
}

async fn register_all(
    selection: &Selection<'_>,
    wanted: Vec<(String, layout::Descriptor)>,
) -> Result<Vec<Registered>, Error> {
    let now = jiff::Timestamp::now();
    let lease = format!("bivouac-{}-{}", std::process::id(), now.as_nanosecond());
    let containerd = Containerd::connect(selection.containerd, lease).await?;
    let present = containerd.images().await?;
    let (mut registered, mut images) = (Vec::new(), Vec::new());
    for (name, descriptor) in wanted {
        let is_present = present.iter().any(|image| {
            let target = image.target.as_ref();
            image.name == name && target.is_some_and(|target| target.digest == descriptor.digest)
        });
        let digest = descriptor.digest.clone();
        registered.push(Registered { name: name.clone(), digest, is_new: !is_present });
        if !is_present {
            images.push(open_image(selection.directory, name, descriptor)?);
        }
    }
    if images.is_empty() {
        return Ok(registered);
    }
    containerd.create_lease(format!("{:.0}", now + LEASE)).await?;
    let pinned = selection.pinned;
    let done =
        try_join_all(images.iter().map(|image| register_one(&containerd, image, pinned))).await;
    // After a failure too: what is not held by an image record is of no use.
    let deleted = containerd.delete_lease().await;
    done?;
    deleted?;
    Ok(registered)
}

async fn register_one(containerd: &Containerd, image: &Image, pinned: bool) -> Result<(), Error> {
    let mut parent = "";
    for layer in &image.layers {
        ensure_layer(containerd, layer, parent).await?;
        parent = &layer.chain_id;
    }
    let mut labels = Labels::new();
    if !parent.is_empty() {
        labels.insert("containerd.io/gc.ref.snapshot.overlayfs".to_owned(), parent.to_owned());
    }
    let (config, manifest) = (&image.config, &image.manifest);
    let stored = containerd.ensure_blob(&config.digest, image.config_bytes.clone(), labels);
    let refers = ("containerd.io/gc.ref.content.config".to_owned(), config.digest.clone());
    let manifest_bytes = image.manifest_bytes.clone();
    let also = containerd.ensure_blob(&manifest.digest, manifest_bytes, Labels::from([refers]));
    futures::try_join!(stored, also)?;

    let target = Descriptor {
        media_type: manifest.media_type.clone(),
        digest: manifest.digest.clone(),
        size: manifest.size,
    };
    let mut labels = Labels::from([label("image", "managed")]);
    if pinned {
        labels.extend([label("pinned", "pinned")]);
    }
    // As containerd's CRI does it: an image is known by the digest of its config too, and that record comes first.
    containerd.ensure_image(&config.digest, target.clone(), labels.clone()).await?;
    containerd.ensure_image(&image.name, target, labels).await
}

fn label(name: &str, value: &str) -> (String, String) {
    (format!("io.cri-containerd.{name}"), value.to_owned())
}

async fn ensure_layer(containerd: &Containerd, layer: &Layer, parent: &str) -> Result<(), Error> {
    let name = &layer.chain_id;
    if containerd.has_snapshot(name).await? {
        return Ok(());
    }
    // Unique, because two images may share the layer and be registered at this very moment.
    let key = format!("{}-{:p}-{name}", containerd.lease_id, layer);
    let mounts = containerd.prepare(&key, parent).await?;
    let linked = upper(&mounts.mounts)
        .ok_or_else(|| io::Error::other("containerd's answer names no folder to write to"))
        .and_then(|upper| link(&upper, &layer.directory));
    if let Err(source) = linked {
        // What went wrong first is told; the lease's end takes the snapshot, should it stay.
        let _ = containerd.remove_snapshot(&key).await;
        return Err(Error::Link { layer: layer.directory.clone(), source });
    }
    if !containerd.commit(&key, name).await? {
        containerd.remove_snapshot(&key).await?;
    }
    Ok(())
}

/// The folder that is written to through these mounts: of the lowest layer it is bound, of others it is an overlay's upper one.
fn upper(mounts: &[Mount]) -> Option<Utf8PathBuf> {
    let [mount] = mounts else { return None };
    match mount.kind.as_str() {
        "bind" => Some(mount.source.as_str().into()),
        _ => {
            mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(Into::into)
        }
    }
}

/// Puts a link to the layer in place of the empty folder.
fn link(upper: &Utf8Path, layer: &Utf8Path) -> io::Result<()> {
    fs::remove_dir(upper)?;
    symlink(layer, upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        Mount { kind: kind.to_owned(), source: source.to_owned(), options }
    }

    #[test]
    fn the_folder_to_replace_is_found_in_both_forms() {
        let bind = mount("bind", "/s/1/fs", &["rw", "rbind"]);
        assert_eq!(upper(&[bind]).unwrap(), "/s/1/fs");
        let options = ["index=off", "workdir=/s/2/work", "upperdir=/s/2/fs", "lowerdir=/s/1/fs"];
        assert_eq!(upper(&[mount("overlay", "overlay", &options)]).unwrap(), "/s/2/fs");
        assert!(upper(&[]).is_none());
    }

    #[test]
    fn only_an_empty_folder_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap();
        let (layer, folder) = (root.join("layer"), root.join("fs"));
        fs::create_dir(&layer).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(layer.join("file"), "x").unwrap();
        link(&folder, &layer).unwrap();
        assert_eq!(fs::read_to_string(folder.join("file")).unwrap(), "x");
        assert!(link(&layer, &folder).is_err());
    }
}
