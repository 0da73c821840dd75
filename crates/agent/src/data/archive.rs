//! A tar of folders as POSIX has it, with what GNU tar adds: extended attributes and holes. tar(1) writes every byte of a file that has all
//! its blocks, and databases have theirs long before they are of use: here zeros are holes, so that a copy takes the time of what is in it.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

/// Zeros are looked for in pieces of this size.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// A file is read in such pieces.
const CHUNK: usize = 256 * BLOCK;
/// Names up to this length are in a header itself.
const NAME: usize = 100;

/// Writes the folders, by paths relative to the root, with all that is in them.
pub(super) fn write(
    root: &Path,
    paths: impl IntoIterator<Item = PathBuf>,
    left: &[PathBuf],
    output: impl Write,
) -> io::Result<()> {
    let links = HashMap::new();
    let mut archive =
        Archive { root, left, tar: Builder::new(output), links, buffer: vec![0; CHUNK] };
    for path in paths {
        archive.add(&path)?;
    }
    archive.tar.into_inner()?.flush()
}

struct Archive<'a, W: Write> {
    root: &'a Path,
    /// Folders of which nothing but themselves is taken.
    left: &'a [PathBuf],
    tar: Builder<W>,
    /// Where files that have several names were met first.
    links: HashMap<(u64, u64), PathBuf>,
    buffer: Vec<u8>,
}

type Records = Vec<(String, Vec<u8>)>;

impl<W: Write> Archive<'_, W> {
    fn add(&mut self, path: &Path) -> io::Result<()> {
        let source = self.root.join(path);
        let metadata = fs::symlink_metadata(&source)?;
        let (kind, mut header) = (metadata.file_type(), header(&metadata)?);
        let mut records = records(&source, &metadata)?;
        if kind.is_socket() {
            // It is its server's to make.
            return Ok(());
        }
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            self.append(path, header, records, &[])?;
            return self.add_all_in(path, &source);
        }
        if metadata.nlink() > 1 {
            let first = self.links.entry((metadata.dev(), metadata.ino()));
            let first = first.or_insert_with(|| path.to_owned()).clone();
            if first != path {
                header.set_entry_type(EntryType::Link);
                link(&mut header, &mut records, &first)?;
                return self.append(path, header, records, &[]);
            }
        }
        if kind.is_file() {
            return self.add_file(path, &source, header, records);
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            link(&mut header, &mut records, &fs::read_link(&source)?)?;
        } else if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
        } else {
            let is_block = kind.is_block_device();
            header.set_entry_type(if is_block { EntryType::Block } else { EntryType::Char });
            header.set_device_major(rustix::fs::major(metadata.rdev()))?;
            header.set_device_minor(rustix::fs::minor(metadata.rdev()))?;
        }
        self.append(path, header, records, &[])
    }

    fn add_all_in(&mut self, path: &Path, source: &Path) -> io::Result<()> {
        if self.left.iter().any(|left| left == path) {
            return Ok(());
        }
        let mut names = fs::read_dir(source)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort_unstable();
        names.iter().try_for_each(|name| self.add(&path.join(name)))
    }

    fn add_file(
        &mut self,
        path: &Path,
        source: &Path,
        mut header: Header,
        mut records: Records,
    ) -> io::Result<()> {
        let mut file = File::open(source)?;
        let size = file.metadata()?.len();
        let parts = parts(&mut file, size, &mut self.buffer)?;
        let held: u64 = parts.iter().map(|(_, length)| length).sum();
        let mut map = Vec::new();
        if held < size {
            let mut record = |key: &str, value: String| {
                records.push((format!("GNU.sparse.{key}"), value.into_bytes()));
            };
            record("major", "1".to_owned());
            record("minor", "0".to_owned());
            record("realsize", size.to_string());
            records.push(("GNU.sparse.name".to_owned(), path.as_os_str().as_bytes().to_vec()));
            map = self::map(&parts, size);
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(held + map.len() as u64);
        self.append(path, header, records, &map)?;
        for (offset, length) in &parts {
            file.seek(SeekFrom::Start(*offset))?;
            let copied = io::copy(&mut (&mut file).take(*length), self.tar.get_mut())?;
            if copied != *length {
                let text = format!("{} became shorter while it was read", path.display());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
        let rest = usize::try_from((512 - held % 512) % 512).unwrap_or_default();
        self.tar.get_mut().write_all(&[0; 512][..rest])
    }

    /// Appends the head of an entry, and what comes before its content, which must be whole blocks.
    fn append(
        &mut self,
        path: &Path,
        mut header: Header,
        mut records: Records,
        before: &[u8],
    ) -> io::Result<()> {
        let name = path.as_os_str().as_bytes();
        if name.len() > NAME {
            records.push(("path".to_owned(), name.to_vec()));
        }
        put(&mut header.as_old_mut().name, name);
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.tar.append_pax_extensions(records)?;
        header.set_cksum();
        self.tar.get_mut().write_all(header.as_bytes())?;
        self.tar.get_mut().write_all(before)
    }
}

fn header(metadata: &Metadata) -> io::Result<Header> {
    let mut header = Header::new_ustar();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_size(0);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    Ok(header)
}

/// What has no room in a header: the whole time, and extended attributes.
fn records(source: &Path, metadata: &Metadata) -> io::Result<Records> {
    let mut records = Vec::new();
    if metadata.mtime_nsec() != 0 || metadata.mtime() < 0 {
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        records.push(("mtime".to_owned(), time.into_bytes()));
    }
    for name in attributes(source)?.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::str::from_utf8(name).map_err(io::Error::other)?;
        let mut value = vec![0; 64 << 10];
        match rustix::fs::lgetxattr(source, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        }
        records.push((format!("SCHILY.xattr.{name}"), value));
    }
    Ok(records)
}

/// The names of extended attributes, each ended by a zero.
fn attributes(source: &Path) -> io::Result<Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    match rustix::fs::llistxattr(source, &mut names[..]) {
        Ok(length) => names.truncate(length),
        Err(Errno::OPNOTSUPP) => names.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(names)
}

fn link(header: &mut Header, records: &mut Records, target: &Path) -> io::Result<()> {
    let target = target.as_os_str().as_bytes();
    if target.len() > NAME {
        records.push(("linkpath".to_owned(), target.to_vec()));
    }
    put(&mut header.as_old_mut().linkname, target);
    Ok(())
}

fn put(field: &mut [u8; NAME], name: &[u8]) {
    let length = name.len().min(NAME);
    field[..length].copy_from_slice(&name[..length]);
}

/// The parts of a file that hold anything but zeros: where each begins and how long it is.
fn parts(file: &mut File, size: u64, buffer: &mut [u8]) -> io::Result<Vec<(u64, u64)>> {
    let mut parts: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        at = match rustix::fs::seek(&*file, rustix::fs::SeekFrom::Data(at)) {
            Ok(data) => data,
            // Nothing but a hole is left.
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => file.seek(SeekFrom::Start(at))?,
            Err(error) => return Err(error.into()),
        };
        let length = fill(file, buffer, size - at.min(size))?;
        if length == 0 {
            break;
        }
        for block in buffer[..length].chunks(BLOCK) {
            let length = block.len() as u64;
            if *block != ZEROS[..block.len()] {
                match parts.last_mut() {
                    Some((start, held)) if *start + *held == at => *held += length,
                    _ => parts.push((at, length)),
                }
            }
            at += length;
        }
    }
    Ok(parts)
}

/// Reads as much as there is room for.
fn fill(file: &mut File, buffer: &mut [u8], most: u64) -> io::Result<usize> {
    let most = usize::try_from(most).map_or(buffer.len(), |most| most.min(buffer.len()));
    let mut length = 0;
    while length < most {
        match file.read(&mut buffer[length..most]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// The map of a file with holes: how many parts, then each, in decimal numbers on lines, up to a whole block. A last part of no length says
/// how long the file is where it ends with a hole.
fn map(parts: &[(u64, u64)], size: u64) -> Vec<u8> {
    let ends = parts.last().is_some_and(|(offset, length)| offset + length == size);
    let last = (!ends).then_some((size, 0));
    let mut text = format!("{}\n", parts.len() + usize::from(!ends));
    for (offset, length) in parts.iter().copied().chain(last) {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut map = text.into_bytes();
    map.resize(map.len().next_multiple_of(512), 0);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(content: &[u8]) -> Vec<(u64, u64)> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        parts(&mut file, content.len() as u64, &mut [0; 2 * BLOCK]).unwrap()
    }

    #[test]
    fn zeros_are_holes() {
        let mut content = vec![0; 5 * BLOCK + 100];
        assert_eq!(parts_of(&content), []);
        content[0] = 1;
        content[BLOCK] = 1;
        content[3 * BLOCK + 5] = 1;
        *content.last_mut().unwrap() = 1;
        let block = BLOCK as u64;
        assert_eq!(parts_of(&content), [(0, 2 * block), (3 * block, block), (5 * block, 100)]);
        assert_eq!(parts_of(b""), []);
        assert_eq!(parts_of(b"x"), [(0, 1)]);
    }

    #[test]
    fn a_map_is_whole_blocks_and_says_how_long_the_file_is() {
        let text = |parts: &[(u64, u64)], size| {
            let map = map(parts, size);
            assert_eq!(map.len(), 512);
            String::from_utf8(map).unwrap().trim_end_matches('\0').to_owned()
        };
        assert_eq!(text(&[(0, 5)], 5), "1\n0\n5\n");
        assert_eq!(text(&[(0, 5)], 9), "2\n0\n5\n9\n0\n");
        assert_eq!(text(&[], 9), "1\n9\n0\n");
    }
}
