//! The bundle: the lock and the Go modules that it names, from inside this binary or from a folder.

use std::collections::BTreeMap;
use std::fs;

use camino::Utf8Path;
use include_dir::{Dir, include_dir};

use crate::digest::{Hasher, Sha256};
use crate::error::{At, Error};
use crate::lock::{Lock, Program};
use crate::oci::{canonical, host_architecture};
use crate::stack::{Packages, Recipe, Stack};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../bundle");

/// What is hashed into every key; raised when the same recipe is to give another result.
const RECIPE: &str = "bivouac recipe 1";

/// A lock with its files.
#[derive(Clone, Debug)]
pub struct Bundle {
    lock: Lock,
    /// Files by path in the bundle.
    files: BTreeMap<String, Vec<u8>>,
}

impl Bundle {
    /// The bundle that this binary was built with.
    ///
    /// # Errors
    /// [`Error::Lock`] when its lock is not valid.
    pub fn embedded() -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        embedded_files(&EMBEDDED, &mut files);
        Self::from_files(files, "this binary")
    }

    /// A bundle in a folder, for those who change it.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Lock`].
    pub fn open(folder: &Utf8Path) -> Result<Self, Error> {
        let mut files = BTreeMap::new();
        read_files(folder, "", &mut files)?;
        Self::from_files(files, folder.as_str())
    }

    fn from_files(files: BTreeMap<String, Vec<u8>>, place: &str) -> Result<Self, Error> {
        let text = files
            .get("bundle.lock")
            .ok_or_else(|| Error::Lock(format!("{place} holds no bundle.lock")))?;
        let text = str::from_utf8(text).map_err(|error| Error::Lock(error.to_string()))?;
        let lock = Lock::parse(text)?;
        let bundle = Self { lock, files };
        let modules = bundle.lock.programs.iter().flat_map(|program| {
            let others = program.others.iter().map(|other| other.module.as_str());
            program.module.as_deref().into_iter().chain(others)
        });
        for module in modules {
            if bundle.module(module).next().is_none() {
                return Err(Error::Lock(format!("there is no module folder {module}")));
            }
        }
        Ok(bundle)
    }

    /// The same with another version of what gives a stack its name.
    ///
    /// # Errors
    /// [`Error::NoVersion`] when that is none of [`Self::versions_of`].
    pub fn choose(mut self, stack: Stack, version: &str) -> Result<Self, Error> {
        let known: Vec<String> = self.versions_of(stack).into_iter().map(str::to_owned).collect();
        let programs = self.lock.programs.iter_mut();
        let mut named = programs.filter(|program| Some(program.name.as_str()) == stack.program());
        if named.next().is_some_and(|program| program.choose(version)) {
            return Ok(self);
        }
        Err(Error::NoVersion { stack, version: version.to_owned(), known })
    }

    /// The versions that a stack's node image can be asked for, the usual one first; none where Debian says the version.
    pub fn versions_of(&self, stack: Stack) -> Vec<&str> {
        let program = stack.program().and_then(|name| self.program(name));
        program.into_iter().flat_map(Program::versions).collect()
    }

    /// What the bundle holds.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    fn module(&self, module: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let prefix = format!("{module}/");
        self.files.iter().filter_map(move |(path, bytes)| {
            path.strip_prefix(&prefix).map(|name| (name, bytes.as_slice()))
        })
    }

    /// Writes a module's folder, for Go builds only from folders.
    pub(crate) fn write_module(&self, module: &str, into: &Utf8Path) -> Result<(), Error> {
        for (name, bytes) in self.module(module) {
            let path = into.join(name);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).at("create", folder)?;
            }
            fs::write(&path, bytes).at("write", &path)?;
        }
        Ok(())
    }

    /// The key of a program: its entry, its module, the common settings, the architecture.
    pub(crate) fn program_key(&self, program: &Program) -> String {
        let mut hasher = recipe("program");
        hasher.field(&canonical(program));
        if let Some(module) = &program.module {
            hasher.field(&canonical(&self.lock.go));
            for (name, bytes) in self.module(module) {
                hasher.field(name.as_bytes());
                hasher.field(bytes);
            }
        }
        if !program.debian.is_empty() {
            hasher.field(self.base_key().as_bytes());
        }
        key(hasher)
    }

    /// The key of the Debian base.
    pub(crate) fn base_key(&self) -> String {
        let mut hasher = recipe("base");
        hasher.field(&canonical(&self.lock.debian));
        hasher.field(&self.lock.epoch.to_le_bytes());
        key(hasher)
    }

    /// The key of a layer of Debian packages above the base.
    pub(crate) fn packages_key(&self, packages: &Packages) -> String {
        let mut hasher = recipe("packages");
        hasher.field(self.base_key().as_bytes());
        hasher.field(&canonical(packages));
        key(hasher)
    }

    /// The key of a stack's node image: everything that goes into it.
    ///
    /// # Errors
    /// [`Error::Lock`] when the lock says nothing of the stack.
    pub fn image_key(&self, stack: Stack) -> Result<String, Error> {
        let mut hasher = recipe("node");
        hasher.field(self.base_key().as_bytes());
        for layer in self.lock.layers(stack)? {
            match layer {
                Recipe::Programs {} => {
                    for program in &self.lock.programs {
                        hasher.field(self.program_key(program).as_bytes());
                    }
                }
                Recipe::ContainerImages {} => hasher.field(&canonical(&self.lock.images)),
                Recipe::Packages(packages) => {
                    hasher.field(self.packages_key(packages).as_bytes());
                }
                Recipe::Instance(instance) => {
                    hasher.field(&canonical(instance));
                    for file in instance.files.values() {
                        hasher.field(self.file(file).unwrap_or_default());
                    }
                }
            }
        }
        Ok(key(hasher))
    }

    /// A file of the bundle.
    pub(crate) fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(Vec::as_slice)
    }

    /// The programs that are in the node image of a stack.
    pub(crate) fn programs(&self, stack: Stack) -> Result<&[Program], Error> {
        let mut layers = self.lock.layers(stack)?.iter();
        let all =
            layers.any(|layer| matches!(layer, Recipe::Programs {} | Recipe::ContainerImages {}));
        Ok(if all { &self.lock.programs } else { &[] })
    }

    /// The Debian packages that the node image of a stack has besides those of the base.
    pub(crate) fn packages(&self, stack: Stack) -> Result<Option<&Packages>, Error> {
        Ok(self.lock.layers(stack)?.iter().find_map(|layer| match layer {
            Recipe::Packages(packages) => Some(packages),
            _ => None,
        }))
    }

    /// A program by name.
    pub(crate) fn program(&self, name: &str) -> Option<&Program> {
        self.lock.programs.iter().find(|program| program.name == name)
    }

    /// Versions of all programs.
    pub fn versions(&self) -> BTreeMap<String, String> {
        let programs = self.lock.programs.iter();
        programs.map(|program| (program.name.clone(), program.version.clone())).collect()
    }
}

fn recipe(kind: &str) -> Hasher {
    let mut hasher = Hasher::default();
    hasher.field(RECIPE.as_bytes());
    hasher.field(kind.as_bytes());
    hasher.field(host_architecture().as_bytes());
    hasher
}

/// Half of a digest: short enough to read, long enough never to clash.
fn key(hasher: Hasher) -> String {
    let digest: Sha256 = hasher.finish();
    digest.hex()[..32].to_owned()
}

fn embedded_files(folder: &Dir<'_>, files: &mut BTreeMap<String, Vec<u8>>) {
    for file in folder.files() {
        files.insert(file.path().to_string_lossy().into_owned(), file.contents().to_vec());
    }
    for below in folder.dirs() {
        embedded_files(below, files);
    }
}

fn read_files(
    folder: &Utf8Path,
    prefix: &str,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), Error> {
    for name in crate::files::names(folder)? {
        let path = folder.join(&name);
        let below = format!("{prefix}{name}");
        if path.is_dir() {
            read_files(&path, &format!("{below}/"), files)?;
        } else {
            files.insert(below, fs::read(&path).at("read", &path)?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_another_image_of_the_same_other_programs() {
        let bundle = Bundle::embedded().unwrap();
        let usual = bundle.lock.programs[0].version.clone();
        assert_eq!(bundle.versions_of(Stack::Kubernetes)[0], usual);
        let key = |bundle: &Bundle| bundle.image_key(Stack::Kubernetes).unwrap();
        let same = bundle.clone().choose(Stack::Kubernetes, &usual).unwrap();
        assert_eq!(key(&same), key(&bundle), "what else there is to choose means nothing");
        for version in bundle.versions_of(Stack::Kubernetes).into_iter().skip(1) {
            let other = bundle.clone().choose(Stack::Kubernetes, version).unwrap();
            assert_ne!(key(&other), key(&bundle));
            assert_eq!(other.versions()["kube"], version);
            let program_keys = |bundle: &Bundle| -> Vec<String> {
                let others = bundle.lock.programs.iter().filter(|program| program.name != "kube");
                others.map(|program| bundle.program_key(program)).collect()
            };
            assert_eq!(program_keys(&other), program_keys(&bundle));
            let module = other.program("kube").and_then(|kube| kube.module.clone()).unwrap();
            let files: Vec<&str> = other.module(&module).map(|(name, _)| name).collect();
            assert_eq!(files, ["go.mod", "go.sum", "main.go"]);
            let named = |name: &str| {
                other.module(&module).find(|(file, _)| *file == name).map(|(_, bytes)| bytes)
            };
            let of_kube = bundle.module("kube").find(|(file, _)| *file == "main.go").unwrap().1;
            assert_eq!(named("main.go"), Some(of_kube), "one main for all");
        }
    }

    #[test]
    fn a_version_that_is_not_there_is_told_with_those_that_are() {
        let choose = |stack, version: &str| Bundle::embedded().unwrap().choose(stack, version);
        let error = choose(Stack::Kubernetes, "1.2.3").unwrap_err();
        assert_eq!(error.to_string(), "the bundle has no kubernetes 1.2.3");
        assert!(error.help().unwrap().starts_with("choose one of: 1."));
        assert!(choose(Stack::Incus, "6.0").unwrap_err().help().unwrap().contains("Debian"));
    }
}
