//! The Debian base: a root file system by mmdebstrap, kept as one layer.

use std::process::Command;

use camino::Utf8Path;

use crate::bundle::Bundle;
use crate::command::{Run, run};
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::Unit;
use crate::files::{read_json, remove, write_json};
use crate::layer::{Layer, LayerBuilder};
use crate::store::{Context, Kind, Out, Store};

/// What mmdebstrap says on its way, and how far it then is, in parts of a hundred.
const STAGES: [(&str, u64); 7] = [
    ("running apt-get update", 2),
    ("downloading packages", 15),
    ("extracting archives", 35),
    ("installing essential packages", 42),
    ("installing remaining packages", 58),
    ("cleaning package lists", 90),
    ("success in", 95),
];

/// Folders that belong to the running node.
const EMPTY: [&str; 5] = ["dev", "proc", "sys", "run", "tmp"];

/// Makes the base unless it is in the store; returns its layer and whether it was made now.
pub(crate) fn ensure_base(
    store: &Store,
    bundle: &Bundle,
    context: &Context<'_>,
) -> Result<(Layer, bool), Error> {
    let key = bundle.base_key();
    let is_sound = |folder: &Utf8Path| check(store, folder).map(drop);
    let mut make = |out: &Out<'_>| make(store, bundle, out, context);
    let (folder, made_now) = store.ensure_piece(Kind::Base, &key, context, &is_sound, &mut make)?;
    Ok((read_json(&folder.join("layer.json"))?, made_now))
}

/// Reads a base's layer and hashes its blob.
pub(crate) fn check(store: &Store, folder: &Utf8Path) -> Result<Layer, Error> {
    let layer: Layer = read_json(&folder.join("layer.json"))?;
    check_blob(store, &layer.digest)?;
    Ok(layer)
}

/// Hashes a blob.
pub(crate) fn check_blob(store: &Store, digest: &Sha256) -> Result<(), Error> {
    let what = store.blob(digest);
    let why = match Sha256::of_file(&what) {
        Ok(found) if found == *digest => return Ok(()),
        Ok(_) => "its content has changed",
        Err(_) => "it cannot be read",
    };
    Err(Error::Damaged { what, why: why.into() })
}

fn make(store: &Store, bundle: &Bundle, out: &Out<'_>, context: &Context<'_>) -> Result<(), Error> {
    let root = out.work.join("root");
    let result =
        debootstrap(bundle, &root, out, context).and_then(|()| pack(store, bundle, out, &root));
    // It is large; and what failed is not resumed.
    remove(&root)?;
    result
}

fn debootstrap(
    bundle: &Bundle,
    root: &Utf8Path,
    out: &Out<'_>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let lock = &bundle.lock().debian;
    let mut command = Command::new("mmdebstrap");
    command
        .env("SOURCE_DATE_EPOCH", bundle.lock().epoch.to_string())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--mode=root", "--format=directory"])
        .arg(format!("--variant={}", lock.variant))
        .arg(format!("--include={}", lock.packages.join(",")));
    // dpkg takes the last pattern that matches.
    for pattern in &lock.exclude {
        command.arg(format!("--dpkgopt=path-exclude={pattern}"));
    }
    for pattern in &lock.keep {
        command.arg(format!("--dpkgopt=path-include={pattern}"));
    }
    command.args([&lock.suite, root.as_str(), &lock.mirror]);
    let reporter = context.reporter();
    let mut percent = 0;
    let log = out.out.join("mmdebstrap.log");
    let start = Run {
        command: &mut command,
        log: Some(&log),
        lock: Some(out.lock),
        cancel: context.cancel,
    };
    run(start, &mut |line| {
        let stage = STAGES.iter().rev().find(|(text, _)| line.contains(text));
        if let Some((_, reached)) = stage
            && *reached > percent
        {
            percent = *reached;
            reporter.progress(percent, Some(100), Unit::Percent);
        }
    })?;
    Ok(())
}

fn pack(store: &Store, bundle: &Bundle, out: &Out<'_>, root: &Utf8Path) -> Result<(), Error> {
    let mut builder = LayerBuilder::new(bundle.lock().epoch);
    builder.tree("", root)?;
    for folder in EMPTY {
        builder.clear(folder);
    }
    for pattern in &bundle.lock().debian.remove {
        let path = pattern.trim_start_matches('/');
        match path.strip_suffix("/*") {
            Some(folder) => builder.clear(folder),
            None => builder.remove(path),
        }
    }
    let packed = out.work.join("base.tar.zst");
    let layer = builder.write_compressed(&packed, &mut |_| Ok(()))?;
    store.adopt_blob(&packed, &layer.digest)?;
    write_json(&out.out.join("layer.json"), &layer)?;
    let status = root.join("var/lib/dpkg/status");
    let kept = out.out.join("dpkg-status");
    std::fs::copy(&status, &kept).at("copy", &status).map(drop)
}
