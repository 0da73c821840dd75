//! Debian layers by mmdebstrap: the base, a whole root file system; and what packages add to it.
//!
//! Packages are not installed into the base: the root file system is made once more, with them, and what the base has just so
//! is left out. So nothing of theirs runs anywhere but where mmdebstrap runs it, and a layer never depends on what the
//! machine had before.

use std::collections::BTreeMap;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::bundle::Bundle;
use crate::command::{Run, run};
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::Unit;
use crate::files::{read_json, remove, write_json};
use crate::layer::{Layer, LayerBuilder};
use crate::stack::Packages;
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

/// A Debian layer in the store.
pub(crate) struct DebianLayer {
    /// Its key.
    pub(crate) key: String,
    /// What it is among the blobs.
    pub(crate) layer: Layer,
    /// Where it lies.
    pub(crate) folder: Utf8PathBuf,
    pub(crate) made_now: bool,
}

/// Packages above a base.
#[derive(Clone, Copy)]
struct Above<'a> {
    base: &'a Layer,
    packages: &'a Packages,
}

/// Makes the base unless it is in the store.
pub(crate) fn ensure_base(
    store: &Store,
    bundle: &Bundle,
    context: &Context<'_>,
) -> Result<DebianLayer, Error> {
    ensure_layer(store, bundle, bundle.base_key(), None, context)
}

/// Makes the layer that packages add to the base, unless it is in the store.
pub(crate) fn ensure_packages(
    store: &Store,
    bundle: &Bundle,
    base: &Layer,
    packages: &Packages,
    context: &Context<'_>,
) -> Result<DebianLayer, Error> {
    let above = Above { base, packages };
    ensure_layer(store, bundle, bundle.packages_key(packages), Some(above), context)
}

fn ensure_layer(
    store: &Store,
    bundle: &Bundle,
    key: String,
    above: Option<Above<'_>>,
    context: &Context<'_>,
) -> Result<DebianLayer, Error> {
    let is_sound = |folder: &Utf8Path| check(store, folder).map(drop);
    let mut make = |out: &Out<'_>| Making { store, bundle, above }.make(out, context);
    let (folder, made_now) = store.ensure_piece(Kind::Base, &key, context, &is_sound, &mut make)?;
    Ok(DebianLayer { key, layer: read_json(&folder.join("layer.json"))?, folder, made_now })
}

impl DebianLayer {
    /// Versions of packages of the root file system that the layer is from.
    pub(crate) fn versions(&self, packages: &[String]) -> Result<BTreeMap<String, String>, Error> {
        let path = self.folder.join("dpkg-status");
        let status = std::fs::read_to_string(&path).at("read", &path)?;
        Ok(versions_of(&status, packages))
    }
}

fn versions_of(status: &str, packages: &[String]) -> BTreeMap<String, String> {
    let stanzas = status.split("\n\n").filter_map(|stanza| {
        let field =
            |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some((field("Package:")?.to_owned(), field("Version:")?.to_owned()))
    });
    stanzas.filter(|(name, _)| packages.contains(name)).collect()
}

/// Reads a Debian layer's description and hashes its blob.
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

struct Making<'a> {
    store: &'a Store,
    bundle: &'a Bundle,
    above: Option<Above<'a>>,
}

impl Making<'_> {
    fn make(&self, out: &Out<'_>, context: &Context<'_>) -> Result<(), Error> {
        let root = out.work.join("root");
        let more = self.above.map_or(&[][..], |above| &above.packages.packages);
        let result = debootstrap(self.bundle, more, &root, out, context)
            .and_then(|()| self.pack(out, &root));
        // It is large; and what failed is not resumed.
        remove(&root)?;
        result
    }

    fn pack(&self, out: &Out<'_>, root: &Utf8Path) -> Result<(), Error> {
        let mut builder = LayerBuilder::new(self.bundle.lock().epoch);
        builder.tree("", root)?;
        for folder in EMPTY {
            builder.clear(folder);
        }
        leave_out(&mut builder, "", &self.bundle.lock().debian.remove);
        if let Some(Above { base, packages }) = self.above {
            for (path, target) in &packages.links {
                builder.remove(path);
                builder.symlink(path, target);
            }
            builder.subtract(&self.store.blob(&base.digest))?;
        }
        let packed = out.work.join("base.tar.zst");
        let layer = builder.write_compressed(&packed, &mut |_| Ok(()))?;
        self.store.adopt_blob(&packed, &layer.digest)?;
        write_json(&out.out.join("layer.json"), &layer)?;
        let status = root.join("var/lib/dpkg/status");
        let kept = out.out.join("dpkg-status");
        std::fs::copy(&status, &kept).at("copy", &status).map(drop)
    }
}

/// Leaves paths out, below a prefix; a final `*` stands for all below.
pub(crate) fn leave_out(builder: &mut LayerBuilder, prefix: &str, patterns: &[String]) {
    for pattern in patterns {
        let path = format!("{prefix}{}", pattern.trim_start_matches('/'));
        match path.strip_suffix("/*") {
            Some(folder) => builder.clear(folder),
            None => builder.remove(&path),
        }
    }
}

fn debootstrap(
    bundle: &Bundle,
    more: &[String],
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
        .arg(format!("--include={}", [lock.packages.as_slice(), more].concat().join(",")));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_the_packages_asked_for() {
        let status =
            "Package: a\nStatus: install ok installed\nVersion: 1:2-3\n\nPackage: b\nVersion: 4\n";
        let versions = versions_of(status, &["a".to_owned(), "c".to_owned()]);
        assert_eq!(versions, [("a".to_owned(), "1:2-3".to_owned())].into());
    }
}
