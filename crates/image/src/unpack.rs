//! Unpacks a layer into a folder, in the form that overlayfs takes as a lower directory.
//!
//! Whiteouts become character devices 0/0, opaque folders carry `trusted.overlay.opaque`; owners, modes, times, hard
//! links, devices and file capabilities are kept. Every path is resolved by the kernel inside the layer's folder
//! (`openat2` with `RESOLVE_IN_ROOT`), so that neither `..` nor a symbolic link leads out of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use camino::Utf8Path;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::digest::{Hasher, Sha256};
use crate::error::{At, Error};
use crate::inode::{
    Attributes, make_folder, open_inside, parse_time, replace, set_attributes, set_link_attributes,
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const COPY: usize = 1 << 18;

/// A regular file as it was unpacked: path below the layer, size in bytes, digest.
pub(crate) type Record = BTreeMap<String, (u64, Sha256)>;

/// Creates the folder of a layer, whatever the umask is: not every archive has an entry for its root.
pub(crate) fn make_root(path: &Utf8Path) -> Result<(), Error> {
    fs::create_dir(path).at("create", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at("change", path)
}

/// Unpacks the plain tar stream into the folder, which may hold earlier layers. Fills `record` where given.
pub(crate) fn unpack(
    layer: &str,
    tar: impl Read,
    into: &Utf8Path,
    record: Option<&mut Record>,
) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root =
        rustix::fs::openat(CWD, into.as_std_path(), flags, Mode::empty()).at("open", into)?;
    let mut unpacker = Unpacker {
        layer,
        into,
        root,
        parent: None,
        folders: BTreeMap::new(),
        record,
        buffer: vec![0; COPY],
    };
    let mut archive = tar::Archive::new(tar);
    let broken = |error: io::Error| Error::Truncated {
        path: format!("layer {layer}"),
        what: error.to_string(),
    };
    for entry in archive.entries().map_err(broken)? {
        unpacker.entry(entry.map_err(broken)?)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    layer: &'a str,
    into: &'a Utf8Path,
    root: OwnedFd,
    /// The folder of the last entry: the next one is mostly in it too.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Times of folders, set last since every entry changes its folder's.
    folders: BTreeMap<Vec<u8>, Timestamps>,
    record: Option<&'a mut Record>,
    buffer: Vec<u8>,
}

impl Unpacker<'_> {
    fn entry<R: Read>(&mut self, mut entry: tar::Entry<'_, R>) -> Result<(), Error> {
        let raw = entry.path_bytes().into_owned();
        let path = self.normal(&raw)?;
        let attributes = self.attributes(&mut entry, &raw)?;
        let kind = entry.header().entry_type();
        if path.is_empty() {
            return self.root_entry(&attributes);
        }
        let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (path[..slash].to_vec(), path[slash + 1..].to_vec()),
            None => (Vec::new(), path.clone()),
        };
        let parent = self.open_parent(folder, &raw)?;
        let parent = parent.as_fd();
        let shown = || self.into.join(String::from_utf8_lossy(&path).as_ref());
        if name == OPAQUE {
            let link = format!("/proc/self/fd/{}", parent.as_raw_fd());
            return rustix::fs::setxattr(
                link.as_str(),
                "trusted.overlay.opaque",
                b"y",
                XattrFlags::empty(),
            )
            .at("mark as opaque", shown());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            // Others are notes of aufs.
            if hidden.is_empty() || hidden.starts_with(WHITEOUT) {
                return Ok(());
            }
            if matches!(hidden, b"." | b"..") {
                return Err(self.unsafe_entry(&raw, "it hides a folder that it is in"));
            }
            replace(parent, hidden, || {
                rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0)
            })
            .at("create a whiteout for", shown())?;
            return Ok(());
        }
        let kind =
            if kind.is_file() && raw.ends_with(b"/") { tar::EntryType::Directory } else { kind };
        match kind {
            tar::EntryType::Directory => {
                make_folder(parent, &name).at("create", shown())?;
                self.parent = None;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let folder = rustix::fs::openat(parent, name.as_slice(), flags, Mode::empty())
                    .at("open", shown())?;
                set_attributes(folder.as_fd(), &attributes).at("set attributes of", shown())?;
                self.folders.insert(path, attributes.times);
                Ok(())
            }
            tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let file = replace(parent, &name, || {
                    rustix::fs::openat(parent, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)
                })
                .at("create", shown())?;
                let mut file = fs::File::from(file);
                let digest = self.copy(&mut entry, &mut file, &shown())?;
                if let (Some(record), Some(digest)) = (self.record.as_deref_mut(), digest) {
                    let path = String::from_utf8_lossy(&path).into_owned();
                    record.insert(path, (entry.size(), digest));
                }
                set_attributes(file.as_fd(), &attributes).at("set attributes of", shown())
            }
            tar::EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.hard_link(&target, parent, &name, &raw, &path)
            }
            tar::EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                replace(parent, &name, || {
                    rustix::fs::symlinkat(target.as_slice(), parent, name.as_slice())
                })
                .at("create", shown())?;
                set_link_attributes(parent, &name, &attributes).at("set attributes of", shown())
            }
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => {
                let header = entry.header();
                let number = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
                let device = rustix::fs::makedev(
                    number(header.device_major()),
                    number(header.device_minor()),
                );
                let file_type = match kind {
                    tar::EntryType::Char => FileType::CharacterDevice,
                    tar::EntryType::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                replace(parent, &name, || {
                    rustix::fs::mknodat(parent, name.as_slice(), file_type, attributes.mode, device)
                })
                .at("create", shown())?;
                set_link_attributes(parent, &name, &attributes)
                    .and_then(|()| {
                        // After the owner, which clears mode bits; no link, since it was just made.
                        rustix::fs::chmodat(
                            parent,
                            name.as_slice(),
                            attributes.mode,
                            AtFlags::empty(),
                        )
                    })
                    .at("set attributes of", shown())
            }
            // Global PAX headers and the like say nothing about files.
            tar::EntryType::XGlobalHeader => Ok(()),
            other => Err(self.unsafe_entry(&raw, format!("unknown kind {other:?}"))),
        }
    }

    /// The path without `.` and empty parts.
    fn normal(&self, raw: &[u8]) -> Result<Vec<u8>, Error> {
        let mut parts = Vec::new();
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(self.unsafe_entry(raw, "it climbs out with `..`")),
                part if part.contains(&0) => {
                    return Err(self.unsafe_entry(raw, "its name holds a zero byte"));
                }
                part => parts.push(part),
            }
        }
        Ok(parts.join(&b'/'))
    }

    fn root_entry(&mut self, attributes: &Attributes) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::openat(&self.root, ".", flags, Mode::empty()).at("open", self.into)?;
        set_attributes(root.as_fd(), attributes).at("set attributes of", self.into)?;
        self.folders.insert(Vec::new(), attributes.times.clone());
        Ok(())
    }

    fn open_parent(&mut self, folder: Vec<u8>, raw: &[u8]) -> Result<OwnedFd, Error> {
        if let Some((known, fd)) = &self.parent
            && *known == folder
        {
            return fd.try_clone().at("open", self.into);
        }
        let fd = match open_inside(self.root.as_fd(), &folder) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => self.make_parents(&folder, raw)?,
            Err(error) => return Err(self.bad_parent(raw, error)),
        };
        let copy = fd.try_clone().at("open", self.into)?;
        self.parent = Some((folder, fd));
        Ok(copy)
    }

    /// Archives may leave folders out that their entries are in.
    fn make_parents(&self, folder: &[u8], raw: &[u8]) -> Result<OwnedFd, Error> {
        let mut end = 0;
        for part in folder.split(|byte| *byte == b'/') {
            let above = open_inside(self.root.as_fd(), &folder[..end])
                .map_err(|error| self.bad_parent(raw, error))?;
            match rustix::fs::mkdirat(&above, part, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.bad_parent(raw, error)),
            }
            end += part.len() + usize::from(end + part.len() < folder.len());
        }
        open_inside(self.root.as_fd(), folder).map_err(|error| self.bad_parent(raw, error))
    }

    fn hard_link(
        &mut self,
        target: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        raw: &[u8],
        path: &[u8],
    ) -> Result<(), Error> {
        let normal = self.normal(target)?;
        let (folder, target_name) = match normal.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&normal[..slash], &normal[slash + 1..]),
            None => (&normal[..0], normal.as_slice()),
        };
        let from =
            open_inside(self.root.as_fd(), folder).map_err(|error| self.bad_parent(raw, error))?;
        let shown = self.into.join(String::from_utf8_lossy(path).as_ref());
        match replace(parent, name, || {
            rustix::fs::linkat(&from, target_name, parent, name, AtFlags::empty())
        }) {
            Ok(()) => {}
            Err(Errno::NOENT) => {
                let target = String::from_utf8_lossy(target);
                return Err(self.unsafe_entry(raw, format!("its link target {target} is missing")));
            }
            Err(error) => return Err(error).at("link", shown),
        }
        if let Some(record) = self.record.as_deref_mut()
            && let Some(known) = record.get(String::from_utf8_lossy(&normal).as_ref()).copied()
        {
            record.insert(String::from_utf8_lossy(path).into_owned(), known);
        }
        Ok(())
    }

    fn attributes<R: Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        raw: &[u8],
    ) -> Result<Attributes, Error> {
        let broken = |error: io::Error| self.unsafe_entry(raw, error.to_string());
        let mut xattrs = Vec::new();
        let mut fraction = None;
        if let Some(extensions) = entry.pax_extensions().map_err(broken)? {
            for extension in extensions {
                let extension = extension.map_err(broken)?;
                let Ok(key) = extension.key() else { continue };
                // Those of overlayfs itself must not come from outside, and others mean nothing here.
                if let Some(name) = key.strip_prefix("SCHILY.xattr.")
                    && (name == "security.capability" || name.starts_with("user."))
                {
                    xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
                } else if key == "mtime" {
                    fraction = extension.value().ok().and_then(parse_time);
                }
            }
        }
        let header = entry.header();
        let seconds = i64::try_from(header.mtime().map_err(broken)?).unwrap_or(0);
        let time = fraction.unwrap_or(Timespec { tv_sec: seconds, tv_nsec: 0 });
        let id = |value: io::Result<u64>| -> Result<u32, Error> {
            let value = value.map_err(broken)?;
            u32::try_from(value)
                .ok()
                .filter(|id| *id != u32::MAX)
                .ok_or_else(|| self.unsafe_entry(raw, format!("its owner {value} is no id")))
        };
        Ok(Attributes {
            mode: Mode::from_raw_mode(header.mode().map_err(broken)? & 0o7777),
            owner: Uid::from_raw(id(header.uid())?),
            group: Gid::from_raw(id(header.gid())?),
            times: Timestamps { last_access: time, last_modification: time },
            xattrs,
        })
    }

    /// Copies the content; hashes it where a record is kept.
    fn copy<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        file: &mut fs::File,
        shown: &Utf8Path,
    ) -> Result<Option<Sha256>, Error> {
        let mut hasher = self.record.is_some().then(Hasher::default);
        let mut copied = 0;
        loop {
            let count = entry.read(&mut self.buffer).map_err(|error| Error::Truncated {
                path: format!("layer {}", self.layer),
                what: format!("{shown} ({error})"),
            })?;
            if count == 0 {
                break;
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&self.buffer[..count]);
            }
            file.write_all(&self.buffer[..count]).at("write", shown)?;
            copied += count as u64;
        }
        if copied < entry.size() {
            return Err(Error::Truncated {
                path: format!("layer {}", self.layer),
                what: shown.to_string(),
            });
        }
        Ok(hasher.map(Hasher::finish))
    }

    fn finish(self) -> Result<(), Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for (path, times) in self.folders.iter().rev() {
            let path = if path.is_empty() { b".".as_slice() } else { path };
            let opened = rustix::fs::openat2(
                &self.root,
                path,
                flags,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            match opened.and_then(|folder| rustix::fs::futimens(&folder, times)) {
                // A later entry may have replaced the folder.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => {
                    let shown = self.into.join(String::from_utf8_lossy(path).as_ref());
                    return Err(error).at("set the times of", shown);
                }
            }
        }
        Ok(())
    }

    fn bad_parent(&self, raw: &[u8], error: Errno) -> Error {
        match error {
            Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::XDEV => {
                self.unsafe_entry(raw, "what it is in is no folder of the layer")
            }
            error => Error::Io { action: "open", path: self.into.to_owned(), source: error.into() },
        }
    }

    fn unsafe_entry(&self, raw: &[u8], why: impl Into<String>) -> Error {
        Error::UnsafeEntry {
            layer: self.layer.to_owned(),
            entry: String::from_utf8_lossy(raw).into_owned(),
            why: why.into(),
        }
    }
}
