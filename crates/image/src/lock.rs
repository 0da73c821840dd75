//! `bundle.lock`: every program of the node image, pinned. Read strictly; `bundle/` says how it is written.
//!
//! Builds and downloads give artifacts, known by name. Files of a program put artifacts at paths of the node; files of
//! a container image put them at paths of that image.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::error::Error;
use crate::stack::{self, Recipe, Stack};

/// The format that this code reads.
const FORMAT: u32 = 1;

/// The whole lock.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Version of this file's format.
    pub format: u32,
    /// Time stamp of everything built, in seconds since 1970.
    pub epoch: u64,
    /// What all Go builds share.
    pub go: Go,
    /// The Debian base.
    pub debian: Debian,
    /// Programs, in the order in which they are built.
    #[serde(default, rename = "program")]
    pub programs: Vec<Program>,
    /// Container images that nodes carry.
    #[serde(default, rename = "image")]
    pub images: Vec<Image>,
    /// What the node image of each stack has above the Debian base, the lowest layer first.
    pub stacks: BTreeMap<Stack, Vec<Recipe>>,
}

/// Settings of every `go build`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Go {
    /// The oldest toolchain that builds every module.
    pub version: String,
    /// Flags of `go build`.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Build tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Flags of the linker.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

/// The Debian base, made by mmdebstrap.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Debian {
    /// `trixie`.
    pub suite: String,
    /// The archive's URL.
    pub mirror: String,
    /// mmdebstrap's variant.
    pub variant: String,
    /// Packages besides those of the variant.
    pub packages: Vec<String>,
    /// Shell patterns of paths that are never unpacked.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Patterns of what is unpacked nevertheless.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Paths to remove in the end; a final `*` stands for all below.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// A program and the ways to it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Short name, unique: `kube`.
    pub name: String,
    /// Upstream's version, without a `v`.
    pub version: String,
    /// SPDX expression.
    pub license: String,
    /// Where its source is.
    pub source: String,
    /// Folder of its Go module in the bundle.
    pub module: Option<String>,
    /// Artifacts by path in the node.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Names of symbolic links beside a file, by the file's path in the node.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<String>>,
    /// How to build its artifacts.
    #[serde(default, rename = "build")]
    pub builds: Vec<Build>,
    /// Where upstream publishes its artifacts. One download brings all.
    #[serde(default, rename = "download")]
    pub downloads: Vec<Download>,
    /// Artifacts that are taken from the Debian base, by path there.
    #[serde(default)]
    pub debian: BTreeMap<String, String>,
    /// Other versions that can be asked for. No part of what this one is made from.
    #[serde(default, rename = "other", skip_serializing)]
    pub others: Vec<OtherVersion>,
}

/// What differs in another version of a program.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OtherVersion {
    /// Upstream's version, without a `v`.
    pub version: String,
    /// Folder of its Go module in the bundle.
    pub module: String,
    /// Variables that the linker sets otherwise, in every build.
    #[serde(default)]
    pub stamps: BTreeMap<String, String>,
}

/// One `go build`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Packages by artifact.
    pub packages: BTreeMap<String, String>,
    /// Build tags besides the common ones.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Linker flags besides the common ones.
    #[serde(default)]
    pub ldflags: Vec<String>,
    /// Variables that the linker sets (`-X`).
    #[serde(default)]
    pub stamps: BTreeMap<String, String>,
    /// Environment besides the common one.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Debian packages that the building machine needs besides Go.
    #[serde(default)]
    pub needs: Vec<String>,
}

/// A file to download.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Download {
    /// `amd64`.
    pub arch: String,
    /// From where.
    pub url: String,
    /// What it must be.
    pub sha256: Sha256,
    /// The artifact that the download is.
    pub file: Option<String>,
    /// For archives: members by artifact.
    #[serde(default)]
    pub members: BTreeMap<String, String>,
}

/// A container image.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Name without tag.
    pub name: String,
    /// The program whose artifacts it holds and whose version is its tag.
    pub program: String,
    /// Another tag: `v{version}`.
    pub tag: Option<String>,
    /// The image of this lock that lies below it.
    pub base: Option<String>,
    /// Artifacts by path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Names of symbolic links beside a file, by the file's path.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<String>>,
    /// Programs of the Debian base by path there, which they keep; with the shared libraries that they need.
    #[serde(default)]
    pub debian: Vec<String>,
    /// Folders by path, with their octal modes.
    #[serde(default)]
    pub directories: BTreeMap<String, String>,
    /// Texts by path.
    #[serde(default)]
    pub contents: BTreeMap<String, String>,
    /// The command.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// Environment, as `NAME=value`.
    #[serde(default)]
    pub env: Vec<String>,
    /// Numeric `uid:gid`.
    pub user: Option<String>,
    /// Ports, as `53/udp`.
    #[serde(default)]
    pub ports: Vec<String>,
}

impl Program {
    /// A text of the lock with this program's version in place of `{version}`.
    pub(crate) fn expand(&self, text: &str) -> String {
        text.replace("{version}", &self.version)
    }

    /// Names of all its artifacts.
    pub(crate) fn artifacts(&self) -> BTreeSet<&str> {
        let built = self.builds.iter().flat_map(|build| build.packages.keys());
        built.chain(self.debian.keys()).map(String::as_str).collect()
    }

    /// The versions that can be asked for, that of the lock first.
    pub(crate) fn versions(&self) -> impl Iterator<Item = &str> {
        let others = self.others.iter().map(|other| other.version.as_str());
        std::iter::once(self.version.as_str()).chain(others)
    }

    /// Makes it one of its versions, and no other any more; `false` where that is not among them.
    pub(crate) fn choose(&mut self, version: &str) -> bool {
        let others = std::mem::take(&mut self.others);
        if self.version == version {
            return true;
        }
        let Some(other) = others.into_iter().find(|other| other.version == version) else {
            return false;
        };
        self.version = other.version;
        self.module = Some(other.module);
        for build in &mut self.builds {
            build.stamps.extend(other.stamps.clone());
        }
        true
    }

    /// The download for an architecture.
    pub(crate) fn download(&self, architecture: &str) -> Option<&Download> {
        self.downloads.iter().find(|download| download.arch == architecture)
    }

    fn check(&self) -> Result<(), String> {
        let artifacts = self.artifacts();
        if artifacts.is_empty() {
            return Err("it has no artifact".into());
        }
        if self.module.is_none() && !self.builds.is_empty() {
            return Err("it has builds but no module".into());
        }
        let unknown = self.files.values().find(|name| !artifacts.contains(name.as_str()));
        if let Some(name) = unknown {
            return Err(format!("nothing makes its artifact {name}"));
        }
        if !self.others.is_empty() && (!self.downloads.is_empty() || !self.debian.is_empty()) {
            return Err("only what is built has other versions".into());
        }
        let versions: BTreeSet<&str> = self.versions().collect();
        if versions.len() <= self.others.len() {
            return Err("one of its versions is there twice".into());
        }
        for download in &self.downloads {
            let brought: BTreeSet<&str> =
                download.members.keys().chain(&download.file).map(String::as_str).collect();
            if brought != artifacts {
                return Err(format!("its download for {} brings other artifacts", download.arch));
            }
        }
        match self.links.keys().find(|path| !self.files.contains_key(*path)) {
            Some(path) => Err(format!("its links are beside {path}, which is no file of it")),
            None => Ok(()),
        }
    }
}

impl Image {
    /// Whether it adds files to those of its base.
    pub(crate) fn has_layer(&self) -> bool {
        !(self.files.is_empty()
            && self.links.is_empty()
            && self.debian.is_empty()
            && self.directories.is_empty()
            && self.contents.is_empty())
    }
}

impl Lock {
    /// Reads and checks a lock.
    ///
    /// # Errors
    /// [`Error::Lock`] with the place of the first mistake.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let lock: Self = toml::from_str(text).map_err(|error| Error::Lock(error.to_string()))?;
        lock.check().map_err(Error::Lock)?;
        Ok(lock)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("its format is {}, this bivouac reads {FORMAT}", self.format));
        }
        let mut names = BTreeSet::new();
        for program in &self.programs {
            if !names.insert(program.name.as_str()) {
                return Err(format!("program {} is there twice", program.name));
            }
            program.check().map_err(|why| format!("program {}: {why}", program.name))?;
        }
        for image in &self.images {
            let about = |why: String| format!("image {}: {why}", image.name);
            let program = self.programs.iter().find(|program| program.name == image.program);
            let Some(program) = program else {
                return Err(about(format!("there is no program {}", image.program)));
            };
            let artifacts = program.artifacts();
            if let Some(name) = image.files.values().find(|name| !artifacts.contains(name.as_str()))
            {
                return Err(about(format!("program {} makes no {name}", program.name)));
            }
            for mode in image.directories.values() {
                mode_of(mode).map_err(about)?;
            }
            self.chain(image).map_err(about)?;
        }
        stack::check(&self.stacks)
    }

    /// The layers of a stack's node image above the Debian base.
    ///
    /// # Errors
    /// [`Error::Lock`] when the lock says none.
    pub fn layers(&self, stack: Stack) -> Result<&[Recipe], Error> {
        let layers = self.stacks.get(&stack).map(Vec::as_slice);
        layers.ok_or_else(|| Error::Lock(format!("it says nothing of the stack {stack}")))
    }

    /// The image with those below it, the lowest first.
    pub(crate) fn chain<'a>(&'a self, image: &'a Image) -> Result<Vec<&'a Image>, String> {
        let mut chain = vec![image];
        while let Some(base) = &chain[chain.len() - 1].base {
            let Some(below) = self.images.iter().find(|image| image.name == *base) else {
                return Err(format!("there is no image {base}"));
            };
            if chain.len() > self.images.len() {
                return Err("it lies below itself".into());
            }
            chain.push(below);
        }
        chain.reverse();
        Ok(chain)
    }
}

/// Reads an octal mode.
pub(crate) fn mode_of(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8).map_err(|_| format!("{text:?} is not an octal mode"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = r#"
        format = 1
        epoch = 1
        go = { version = "1.26" }
        debian = { suite = "s", mirror = "m", variant = "v", packages = [] }
        stacks = {}
    "#;

    fn refused(text: &str) -> String {
        Lock::parse(&format!("{HEAD}{text}")).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_lock_is_valid() {
        let bundle = crate::Bundle::embedded().unwrap();
        assert!(bundle.lock().programs.iter().any(|program| program.name == "kube"));
        for stack in Stack::ALL {
            assert!(!bundle.lock().layers(stack).unwrap().is_empty(), "{stack}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let program = r#"
            [[program]]
            name = "p"
            version = "1"
            license = "x"
            source = "x"
            debian = { p = "usr/bin/p" }
        "#;
        assert!(refused("oops = 1").contains("oops"));
        assert!(refused(&format!("{program}{program}")).contains("program p is there twice"));
        let text = refused(&format!("{program}files = {{ \"usr/bin/q\" = \"q\" }}"));
        assert!(text.contains("program p: nothing makes its artifact q"), "{text}");
        let other = "[[program.other]]\nversion = \"2\"\nmodule = \"p\"\n";
        let text = refused(&format!("{program}{other}"));
        assert!(text.contains("program p: only what is built has other versions"), "{text}");
        let image = "[[image]]\nname = \"i\"\nprogram = \"p\"\nbase = \"i\"\n";
        let text = refused(&format!("{program}{image}"));
        assert!(text.contains("image i: it lies below itself"), "{text}");
    }
}
