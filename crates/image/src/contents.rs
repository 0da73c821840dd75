//! The parts of an image archive by name, read where they lie: in a tar file or in a folder.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};

use camino::{Utf8Path, Utf8PathBuf};
use serde::de::DeserializeOwned;

use crate::error::{At, Error};
use crate::event::{OnEvent, Reporter, Unit};
use crate::files::remove;
use crate::stream::{Compression, decompress};

/// Manifests and configurations are smaller than this many bytes.
const SMALL: u64 = 16 << 20;

/// An archive, open for reading.
pub(crate) struct Contents {
    /// As errors call it.
    what: String,
    place: Place,
    /// A copy to remove in the end.
    temporary: Option<Utf8PathBuf>,
}

enum Place {
    Folder(Utf8PathBuf),
    Tar { path: Utf8PathBuf, parts: HashMap<String, Part> },
}

#[derive(Clone)]
enum Part {
    At {
        offset: u64,
        size: u64,
    },
    /// Old engines write a layer that occurs twice as a link.
    Link(String),
}

impl Contents {
    /// Opens a tar file, plain or compressed, or a folder. A compressed file is unpacked to `temporary()` first.
    pub(crate) fn open(
        path: &Utf8Path,
        temporary: impl FnOnce() -> Utf8PathBuf,
    ) -> Result<Self, Error> {
        if path.is_dir() {
            let place = Place::Folder(path.to_owned());
            return Ok(Self { what: path.to_string(), place, temporary: None });
        }
        let mut file = File::open(path).at("open", path)?;
        let mut start = [0; 4];
        let count = file.read(&mut start).at("read", path)?;
        if Compression::of(&start[..count]) == Compression::Plain {
            return Self::scan(path.to_string(), path.to_owned(), None);
        }
        file.rewind().at("read", path)?;
        Self::receive(path.as_str(), file, &temporary(), &|_| ())
    }

    /// Keeps a stream in a file and opens that.
    pub(crate) fn receive(
        what: &str,
        stream: impl Read,
        temporary: &Utf8Path,
        on_event: OnEvent<'_>,
    ) -> Result<Self, Error> {
        let result = save(what, stream, temporary, on_event)
            .and_then(|()| Self::scan(what.into(), temporary.to_owned(), Some(temporary.into())));
        if result.is_err() {
            // The first error counts.
            let _ = remove(temporary);
        }
        result
    }

    fn scan(
        what: String,
        path: Utf8PathBuf,
        temporary: Option<Utf8PathBuf>,
    ) -> Result<Self, Error> {
        let file = File::open(&path).at("open", &path)?;
        let length = file.metadata().at("examine", &path)?.len();
        let mut parts = HashMap::new();
        let mut last = "its first entry".to_owned();
        let mut archive = tar::Archive::new(file);
        let no_tar = |why: String| Error::NotAnArchive { path: what.clone(), why };
        for entry in archive.entries_with_seek().map_err(|error| no_tar(error.to_string()))? {
            let entry = entry.map_err(|error| match (parts.is_empty(), error.kind()) {
                (false, _) | (true, io::ErrorKind::UnexpectedEof) if length > 0 => {
                    Error::Truncated { path: what.clone(), what: last.clone() }
                }
                _ => no_tar("it is no tar file".into()),
            })?;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            let (offset, size) = (entry.raw_file_position(), entry.size());
            if offset.saturating_add(size) > length {
                return Err(Error::Truncated { path: what, what: name });
            }
            let kind = entry.header().entry_type();
            if kind.is_file() {
                parts.insert(name.clone(), Part::At { offset, size });
            } else if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                let target = String::from_utf8_lossy(&target).into_owned();
                let target = match name.rsplit_once('/') {
                    Some((folder, _)) if kind.is_symlink() => format!("{folder}/{target}"),
                    _ => target,
                };
                parts.insert(name.clone(), Part::Link(clean(&target)));
            }
            last = name;
        }
        if parts.is_empty() {
            return Err(no_tar("it holds no file".into()));
        }
        Ok(Self { what, place: Place::Tar { path, parts }, temporary })
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// The archive's name without folder and ending, as part of an image's name.
    pub(crate) fn stem(&self) -> String {
        let name = Utf8Path::new(&self.what).file_name().unwrap_or("image");
        let name = name.split('.').next().unwrap_or(name).to_lowercase();
        let fits = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
        let name = name.replace(|letter| !fits(letter), "-");
        let name = name.trim_matches('-');
        if name.is_empty() { "image".into() } else { name.into() }
    }

    pub(crate) fn no_archive(&self, why: &str) -> Error {
        Error::NotAnArchive { path: self.what.clone(), why: why.to_owned() }
    }

    fn missing(&self, name: &str) -> Error {
        self.no_archive(&format!("it lacks {name}"))
    }

    fn part(&self, name: &str) -> Option<(u64, u64)> {
        let Place::Tar { parts, .. } = &self.place else { return None };
        let mut name = clean(name);
        for _ in 0..8 {
            match parts.get(&name)? {
                Part::At { offset, size } => return Some((*offset, *size)),
                Part::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    /// Bytes of a part.
    pub(crate) fn size(&self, name: &str) -> Result<u64, Error> {
        match &self.place {
            Place::Folder(folder) => fs::metadata(folder.join(clean(name)))
                .map(|metadata| metadata.len())
                .map_err(|_| self.missing(name)),
            Place::Tar { .. } => {
                self.part(name).map(|(_, size)| size).ok_or_else(|| self.missing(name))
            }
        }
    }

    /// A part's content as a stream.
    pub(crate) fn open_part(&self, name: &str) -> Result<io::Take<File>, Error> {
        let size = self.size(name)?;
        let (path, offset) = match &self.place {
            Place::Folder(folder) => (folder.join(clean(name)), 0),
            Place::Tar { path, .. } => {
                (path.clone(), self.part(name).map_or(0, |(offset, _)| offset))
            }
        };
        let mut file = File::open(&path).at("open", &path)?;
        file.seek(SeekFrom::Start(offset)).at("read", &path)?;
        Ok(file.take(size))
    }

    /// The whole content of a small part.
    pub(crate) fn small(&self, name: &str) -> Result<Vec<u8>, Error> {
        if self.size(name)? > SMALL {
            return Err(self.no_archive(&format!("its {name} is larger than {SMALL} bytes")));
        }
        let mut bytes = Vec::new();
        self.open_part(name)?.read_to_end(&mut bytes).at("read", &self.what)?;
        Ok(bytes)
    }

    /// A document, where there is one.
    pub(crate) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        if self.size(name).is_err() {
            return Ok(None);
        }
        self.parse(name, &self.small(name)?).map(Some)
    }

    pub(crate) fn parse<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.no_archive(&format!("{name} does not parse: {error}")))
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        if let Some(path) = &self.temporary {
            // The next import sweeps what stays.
            let _ = remove(path);
        }
    }
}

fn save(what: &str, stream: impl Read, to: &Utf8Path, on_event: OnEvent<'_>) -> Result<(), Error> {
    // A reader of the caller's need not be Send, so the first bytes are told apart here.
    let mut stream = io::BufReader::with_capacity(1 << 18, stream);
    let mut file = File::create(to).at("create", to)?;
    let reporter = Reporter { step: "receive", on_event };
    let mut buffer = vec![0; 1 << 18];
    let mut done = 0;
    loop {
        let count = stream
            .read(&mut buffer)
            .map_err(|error| Error::Truncated { path: what.to_owned(), what: error.to_string() })?;
        if count == 0 {
            break;
        }
        io::Write::write_all(&mut file, &buffer[..count]).at("write", to)?;
        done += count as u64;
        reporter.progress(done, None, Unit::Bytes);
    }
    let mut start = [0; 4];
    let mut packed = File::open(to).at("open", to)?;
    let count = packed.read(&mut start).at("read", to)?;
    if Compression::of(&start[..count]) == Compression::Plain {
        return Ok(());
    }
    packed.rewind().at("read", to)?;
    let plain = to.with_extension("plain");
    let unpacked = decompress(packed)
        .and_then(|(_, mut reader)| io::copy(&mut reader, &mut File::create(&plain)?))
        .map_err(|error| Error::Truncated { path: what.to_owned(), what: error.to_string() });
    if let Err(error) = unpacked {
        let _ = remove(&plain);
        return Err(error);
    }
    fs::rename(&plain, to).at("put in place", to)
}

/// A name without `.` and `..`, never absolute.
fn clean(name: &str) -> String {
    let mut parts = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}
