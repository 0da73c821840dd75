//! Programs of the Debian base with the shared libraries that they load, for container images without a distribution.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use camino::Utf8Path;
use goblin::elf::Elf;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::error::{At, Error};
use crate::stream::decompress;
use crate::unpack::{make_root, unpack};

/// The Debian base, unpacked to take files out of it.
pub(crate) struct DebianFiles {
    root: OwnedFd,
}

impl DebianFiles {
    /// Unpacks the base's layer blob into a new folder.
    pub(crate) fn unpack(blob: &Utf8Path, folder: &Utf8Path) -> Result<Self, Error> {
        make_root(folder)?;
        let file = File::open(blob).at("open", blob)?;
        let (_, plain) = decompress(file).at("read", blob)?;
        unpack("base", plain, folder, None)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, folder.as_std_path(), flags, Mode::empty());
        Ok(Self { root: root.at("open", folder)? })
    }

    /// The program and all that it needs to run, by path without a leading slash. Every library lies where the loader
    /// looks without being told, so that no image needs a cache of it.
    pub(crate) fn with_libraries(&self, program: &str) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut found = BTreeMap::new();
        let mut open = vec![program.trim_start_matches('/').to_owned()];
        while let Some(path) = open.pop() {
            let bytes = self.read(&path).ok_or_else(|| lacking(program, &path))?;
            let elf = Elf::parse(&bytes)
                .map_err(|error| Error::Lock(format!("/{path} cannot be taken along: {error}")))?;
            let loader = elf.interpreter.map(|path| path.trim_start_matches('/').to_owned());
            let libraries = elf.libraries.iter().map(|name| self.library(program, name));
            for needed in libraries.chain(loader.map(Ok)) {
                let needed = needed?;
                if !found.contains_key(&needed) && !open.contains(&needed) {
                    open.push(needed);
                }
            }
            found.insert(path, bytes);
        }
        Ok(found)
    }

    /// The path of a library: Debian's loader looks in the architecture's folder first.
    fn library(&self, program: &str, name: &str) -> Result<String, Error> {
        let folders = [format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH), "usr/lib".into()];
        let mut paths = folders.iter().map(|folder| format!("{folder}/{name}"));
        paths.find(|path| self.open(path).is_some()).ok_or_else(|| lacking(program, name))
    }

    /// Opens a file, its links followed inside the base.
    fn open(&self, path: &str) -> Option<File> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).ok().map(File::from)
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(path)?.read_to_end(&mut bytes).ok().map(|_| bytes)
    }
}

fn lacking(program: &str, what: &str) -> Error {
    Error::Lock(format!("{program} needs {what}, which no Debian package of it brings"))
}
