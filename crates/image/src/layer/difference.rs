//! What a layer adds to the one below it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};

use camino::Utf8Path;

use super::{Content, Entry, LayerBuilder};
use crate::digest::{HashingWriter, Sha256};
use crate::error::{At, Error};
use crate::stream::decompress;

/// Before the name of a path that is gone, in layers.
const WHITEOUT: &str = ".wh.";

impl LayerBuilder {
    /// Leaves out what the layer in `below` holds just so already; what only that one holds is hidden by this one.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub(crate) fn subtract(&mut self, below: &Utf8Path) -> Result<(), Error> {
        let file = fs::File::open(below).at("open", below)?;
        let (_, plain) = decompress(file).at("read", below)?;
        let mut archive = tar::Archive::new(plain);
        let mut same = BTreeSet::new();
        let mut gone = BTreeSet::new();
        for entry in archive.entries().at("read", below)? {
            let mut entry = entry.at("read", below)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_end_matches('/').to_owned();
            match self.entries.get(&path) {
                Some(own) if is_same(own, &mut entry).at("compare with", below)? => {
                    same.insert(path);
                }
                Some(_) => {}
                None => {
                    gone.insert(path);
                }
            }
        }
        self.keep_links_whole(&mut same);
        self.entries.retain(|path, _| !same.contains(path));
        for path in &gone {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
            // What is gone with its folder, or under a link that took the folder's place, needs no mark of its own.
            if !gone.contains(folder) && !self.covers(folder) {
                let mark = if folder.is_empty() { String::new() } else { format!("{folder}/") };
                let plain =
                    Entry { content: Content::Empty, mode: 0o644, owner: (0, 0), xattrs: vec![] };
                self.entries.insert(format!("{mark}{WHITEOUT}{name}"), plain);
            }
        }
        Ok(())
    }

    /// The names of one file go together: a link to what is only in another layer would be a copy, or refused.
    fn keep_links_whole(&self, same: &mut BTreeSet<String>) {
        let links = || {
            self.entries.iter().filter_map(|(path, entry)| match &entry.content {
                Content::HardLink(target) => Some((path, target)),
                _ => None,
            })
        };
        let changed: BTreeSet<&String> = links()
            .filter(|(path, target)| !same.contains(*path) || !same.contains(*target))
            .map(|(_, target)| target)
            .collect();
        for (path, target) in links().filter(|(_, target)| changed.contains(target)) {
            same.remove(path);
            same.remove(target);
        }
    }

    /// Whether something that is no folder is at this path.
    fn covers(&self, path: &str) -> bool {
        self.entries.get(path).is_some_and(|entry| !matches!(entry.content, Content::Folder))
    }
}

/// Whether an entry of a layer is what would be written for this one, times apart: those are all the same.
fn is_same(own: &Entry, other: &mut tar::Entry<'_, impl Read>) -> io::Result<bool> {
    let header = other.header();
    let kind = header.entry_type();
    let owner = (u64::from(own.owner.0), u64::from(own.owner.1));
    if header.mode()? & 0o7777 != own.mode || (header.uid()?, header.gid()?) != owner {
        return Ok(false);
    }
    if xattrs_of(other)? != own.xattrs {
        return Ok(false);
    }
    let target =
        other.link_name_bytes().map(|target| String::from_utf8_lossy(&target).into_owned());
    Ok(match &own.content {
        Content::Folder => kind.is_dir(),
        Content::File(from, size) => {
            kind.is_file()
                && other.size() == *size
                && digest_of(other)? == Sha256::of_file(from).map_err(io::Error::other)?
        }
        Content::Empty => kind.is_file() && other.size() == 0,
        Content::Bytes(bytes) => kind.is_file() && digest_of(other)? == Sha256::of(bytes),
        Content::Symlink(to) => kind.is_symlink() && target.as_ref() == Some(to),
        Content::HardLink(to) => kind.is_hard_link() && target.as_ref() == Some(to),
        Content::Device(..) => false,
    })
}

fn digest_of(entry: &mut impl Read) -> io::Result<Sha256> {
    let mut hashing = HashingWriter::new(io::sink());
    io::copy(entry, &mut hashing)?;
    Ok(hashing.hasher.finish())
}

fn xattrs_of(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut xattrs = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
            xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use camino::Utf8PathBuf;

    use super::*;

    fn tree(root: &Utf8Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn builder(root: &Utf8Path) -> LayerBuilder {
        let mut builder = LayerBuilder::new(7);
        builder.tree("", root).unwrap();
        builder
    }

    #[test]
    fn only_what_differs_stays() {
        let folder = tempfile::tempdir().unwrap();
        let base = Utf8PathBuf::try_from(folder.path().to_owned()).unwrap();
        let (below, above) = (base.join("below"), base.join("above"));
        let common = [("etc/same", "x"), ("usr/bin/a", "a"), ("usr/bin/p", "p")];
        tree(&below, &common);
        tree(&above, &common);
        tree(
            &below,
            &[("etc/list", "one"), ("old/deep/file", "x"), ("etc/gone", "x"), ("dir/f", "x")],
        );
        tree(&above, &[("etc/list", "one two"), ("new/file", "n")]);
        for root in [&below, &above] {
            fs::hard_link(root.join("usr/bin/a"), root.join("usr/bin/b")).unwrap();
            fs::hard_link(root.join("usr/bin/p"), root.join("usr/bin/q")).unwrap();
        }
        fs::hard_link(above.join("usr/bin/p"), above.join("usr/bin/r")).unwrap();
        symlink("new", above.join("dir")).unwrap();
        let blob = base.join("below.tar.zst");
        builder(&below).write_compressed(&blob, &mut |_| Ok(())).unwrap();
        let mut upper = builder(&above);
        upper.subtract(&blob).unwrap();
        let paths: Vec<&str> = upper.entries.keys().map(String::as_str).collect();
        let names = ["usr/bin/p", "usr/bin/q", "usr/bin/r"];
        let wanted = [".wh.old", "dir", "etc/.wh.gone", "etc/list", "new", "new/file"];
        assert_eq!(paths, [wanted.as_slice(), names.as_slice()].concat());
        let mut nothing = builder(&below);
        nothing.subtract(&blob).unwrap();
        assert!(nothing.entries.is_empty(), "{:?}", nothing.entries.keys());
    }
}
