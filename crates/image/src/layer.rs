//! Writes layers: tar archives that depend on nothing but what is in them.
//!
//! Entries are sorted, times are fixed, owners are numbers and names of owners are left out, so that the same input
//! gives the same digest on every machine.

mod difference;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use camino::{Utf8Path, Utf8PathBuf};

use crate::digest::{HashingWriter, Sha256};
use crate::error::{At, Error};

/// zstd's fastest regular level: the layer is mostly read on the machine that wrote it.
const LEVEL: i32 = 1;

/// A finished layer among the blobs.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layer {
    /// Digest of the compressed blob.
    pub digest: Sha256,
    /// Bytes of the compressed blob.
    pub size: u64,
    /// Digest of the plain tar.
    pub diff_id: Sha256,
    /// Bytes of the plain tar.
    pub plain_size: u64,
}

#[derive(Debug)]
enum Content {
    Folder,
    File(Utf8PathBuf, u64),
    Empty,
    Bytes(Vec<u8>),
    Symlink(String),
    HardLink(String),
    Device(tar::EntryType, u64),
}

#[derive(Debug)]
struct Entry {
    content: Content,
    mode: u32,
    owner: (u32, u32),
    xattrs: Vec<(String, Vec<u8>)>,
}

/// What a layer is going to hold, by path without a leading slash.
#[derive(Debug)]
pub(crate) struct LayerBuilder {
    /// Every entry's time, in seconds since 1970.
    time: u64,
    entries: BTreeMap<String, Entry>,
}

impl LayerBuilder {
    /// Holds nothing yet.
    pub(crate) fn new(time: u64) -> Self {
        Self { time, entries: BTreeMap::new() }
    }

    /// A folder of that mode; its parents where they are not there.
    pub(crate) fn folder_with_mode(&mut self, path: &str, mode: u32) {
        self.add(path, Content::Folder, mode);
    }

    /// A folder with mode 0755, where none is yet; its parents too.
    pub(crate) fn folder(&mut self, path: &str) {
        self.parents(path);
        let plain = Entry { content: Content::Folder, mode: 0o755, owner: (0, 0), xattrs: vec![] };
        self.entries.entry(path.to_owned()).or_insert(plain);
    }

    /// An empty file.
    pub(crate) fn empty(&mut self, path: &str, mode: u32) {
        self.add(path, Content::Empty, mode);
    }

    /// A file of these bytes.
    pub(crate) fn bytes(&mut self, path: &str, bytes: Vec<u8>, mode: u32) {
        self.add(path, Content::Bytes(bytes), mode);
    }

    /// A copy of a file of this machine, owned by root.
    pub(crate) fn file(&mut self, path: &str, from: &Utf8Path, mode: u32) -> Result<(), Error> {
        let size = fs::metadata(from).at("examine", from)?.len();
        self.add(path, Content::File(from.to_owned(), size), mode);
        Ok(())
    }

    /// A symbolic link.
    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.add(path, Content::Symlink(target.to_owned()), 0o777);
    }

    /// A folder of this machine with all that is in it, as it is: owners, modes, hard links, devices, capabilities.
    pub(crate) fn tree(&mut self, prefix: &str, from: &Utf8Path) -> Result<(), Error> {
        let mut links = HashMap::new();
        self.parents(prefix);
        self.walk(prefix, from, &mut links)
    }

    /// Leaves a path and all below it out.
    pub(crate) fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.entries.retain(|key, _| key != path && !key.starts_with(&below));
    }

    /// Leaves out all below a path, but keeps the folder.
    pub(crate) fn clear(&mut self, path: &str) {
        let below = format!("{path}/");
        self.entries.retain(|key, _| !key.starts_with(&below));
    }

    fn walk(
        &mut self,
        path: &str,
        from: &Utf8Path,
        links: &mut HashMap<(u64, u64), String>,
    ) -> Result<(), Error> {
        let metadata = fs::symlink_metadata(from).at("examine", from)?;
        let kind = metadata.file_type();
        let content = if kind.is_dir() {
            // In order, so that of several hard links the first by name is the file.
            for name in crate::files::names(from)? {
                let below = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                self.walk(&below, &from.join(&name), links)?;
            }
            Content::Folder
        } else if kind.is_symlink() {
            let target = fs::read_link(from).at("read", from)?;
            Content::Symlink(target.to_string_lossy().into_owned())
        } else if metadata.nlink() > 1
            && let Some(first) = links.get(&(metadata.dev(), metadata.ino()))
        {
            Content::HardLink(first.clone())
        } else {
            links.insert((metadata.dev(), metadata.ino()), path.to_owned());
            if kind.is_file() {
                Content::File(from.to_owned(), metadata.len())
            } else if kind.is_char_device() {
                Content::Device(tar::EntryType::Char, metadata.rdev())
            } else if kind.is_block_device() {
                Content::Device(tar::EntryType::Block, metadata.rdev())
            } else if kind.is_fifo() {
                Content::Device(tar::EntryType::Fifo, 0)
            } else {
                // Sockets belong to a process that is gone.
                return Ok(());
            }
        };
        if path.is_empty() {
            return Ok(());
        }
        let xattrs = if kind.is_symlink() { Vec::new() } else { read_xattrs(from)? };
        let mode = metadata.mode() & 0o7777;
        let owner = (metadata.uid(), metadata.gid());
        self.entries.insert(path.to_owned(), Entry { content, mode, owner, xattrs });
        Ok(())
    }

    fn add(&mut self, path: &str, content: Content, mode: u32) {
        self.parents(path);
        let entry = Entry { content, mode, owner: (0, 0), xattrs: Vec::new() };
        self.entries.insert(path.to_owned(), entry);
    }

    fn parents(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    /// Bytes of file content.
    pub(crate) fn content_size(&self) -> u64 {
        self.entries
            .values()
            .map(|entry| if let Content::File(_, size) = entry.content { size } else { 0 })
            .sum()
    }

    /// Writes the plain tar. `on_bytes` is told the content written so far.
    pub(crate) fn write(
        &self,
        out: impl Write,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut builder = tar::Builder::new(out);
        let mut written = 0;
        for (path, entry) in &self.entries {
            append(&mut builder, path, entry, self.time).at("write the layer entry", path)?;
            if let Content::File(_, size) = entry.content {
                written += size;
                on_bytes(written)?;
            }
        }
        builder.into_inner().and_then(|mut out| out.flush()).at("write", "the layer")
    }

    /// Writes the compressed layer to a file.
    pub(crate) fn write_compressed(
        &self,
        path: &Utf8Path,
        on_bytes: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Layer, Error> {
        let file = BufWriter::with_capacity(1 << 18, fs::File::create(path).at("create", path)?);
        let encoder = zstd::Encoder::new(HashingWriter::new(file), LEVEL).at("compress", path)?;
        let mut plain = HashingWriter::new(encoder);
        self.write(BufWriter::with_capacity(1 << 18, &mut plain), on_bytes)?;
        let mut packed = plain.inner.finish().at("write", path)?;
        packed.flush().at("write", path)?;
        Ok(Layer {
            digest: packed.hasher.finish(),
            size: packed.size,
            diff_id: plain.hasher.finish(),
            plain_size: plain.size,
        })
    }
}

fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    path: &str,
    entry: &Entry,
    time: u64,
) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0.into());
    header.set_gid(entry.owner.1.into());
    header.set_mtime(time);
    header.set_size(0);
    if !entry.xattrs.is_empty() {
        let names: Vec<String> =
            entry.xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let values = entry.xattrs.iter().map(|(_, value)| value.as_slice());
        builder.append_pax_extensions(names.iter().map(String::as_str).zip(values))?;
    }
    match &entry.content {
        Content::Folder => {
            header.set_entry_type(tar::EntryType::Directory);
            builder.append_data(&mut header, format!("{path}/"), io::empty())
        }
        Content::File(from, size) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(*size);
            let file = fs::File::open(from)?;
            builder.append_data(&mut header, path, Exactly { file, left: *size })
        }
        Content::Empty => {
            header.set_entry_type(tar::EntryType::Regular);
            builder.append_data(&mut header, path, io::empty())
        }
        Content::Bytes(bytes) => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes.as_slice())
        }
        Content::Symlink(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            builder.append_link(&mut header, path, target)
        }
        Content::HardLink(target) => {
            header.set_entry_type(tar::EntryType::Link);
            builder.append_link(&mut header, path, target)
        }
        Content::Device(kind, device) => {
            header.set_entry_type(*kind);
            header.set_device_major(rustix::fs::major(*device))?;
            header.set_device_minor(rustix::fs::minor(*device))?;
            builder.append_data(&mut header, path, io::empty())
        }
    }
}

/// A file that changes while it is read would break the archive.
struct Exactly {
    file: fs::File,
    left: u64,
}

impl io::Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// Of the extended attributes, file capabilities matter.
fn read_xattrs(path: &Utf8Path) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let name = "security.capability";
    let mut value = [0_u8; 64];
    match rustix::fs::lgetxattr(path.as_std_path(), name, &mut value) {
        Ok(size) => Ok(vec![(name.to_owned(), value[..size].to_vec())]),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error).at("read attributes of", path),
    }
}
