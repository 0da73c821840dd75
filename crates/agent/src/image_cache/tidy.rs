//! What goes from a folder: what is too much, what is of no use any more, and all when somebody says so.

use std::fs;
use std::io;
use std::time::{Duration, SystemTime};

use bivouac_sys::filesystem::{Attempt, FileLock};
use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::folder::{Folder, Tagged};
use super::owner::{Owner, no_folder};
use super::question::Digest;
use super::room::Gone;

/// What may be just about to be used is left alone for this time.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// How often a folder is emptied that nodes write to meanwhile.
const ATTEMPTS: usize = 10;

impl Folder {
    /// Removes what nobody is fetching any more, and then what was not used for the longest time, until all is as small as it is to be
    /// when so much is used.
    pub(super) fn tidy(&self, limit: impl FnOnce(u64) -> io::Result<u64>) -> io::Result<Gone> {
        let left = self.clear()?;
        let _acting = self.owner.act()?;
        let mut blobs = Vec::new();
        for path in entries(&self.root.join("blobs"))? {
            // Another node may be at the same.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            blobs.push((used, metadata.len(), path));
        }
        let used = blobs.iter().map(|(_, size, _)| size).sum::<u64>();
        let (size, mut gone) = (limit(used)?, Gone::default());
        blobs.sort_unstable();
        for (_, length, path) in blobs {
            if used - gone.bytes <= size {
                break;
            }
            let _ = fs::remove_file(path);
            gone = Gone { blobs: gone.blobs + 1, bytes: gone.bytes + length };
        }
        if gone.blobs > 0 {
            self.sweep()?;
        }
        Ok(Gone { bytes: gone.bytes + left.bytes, ..gone })
    }

    /// Removes what nobody is fetching any more.
    pub(super) fn clear(&self) -> io::Result<Gone> {
        let _acting = self.owner.act()?;
        let left = left(&self.root)?;
        let bytes = left.iter().map(Left::size).sum();
        left.iter().for_each(Left::remove);
        Ok(Gone { blobs: 0, bytes })
    }

    /// Removes what is said of blobs that went. Whoever writes at this moment writes once more.
    fn sweep(&self) -> io::Result<()> {
        let is_there = |digest: &str| self.root.join("blobs").join(digest).exists();
        let of_a_blob =
            |path: &Utf8Path| path.file_name().is_some_and(is_there) || is_fresh_part(path);
        for origin in entries(&self.root.join("origins"))? {
            retain(&origin, of_a_blob);
        }
        // It is of use without a blob, too: a node may have that itself.
        let is_known = |path: &Utf8Path| {
            let digest = Tagged::read(path).and_then(|tagged| Digest::parse(&tagged.digest));
            digest.is_some_and(|digest| is_there(digest.digits())) || is_fresh(path)
        };
        for key in entries(&self.root.join("rights"))? {
            for kind in ["manifests", "blobs"] {
                retain(&key.join(kind), of_a_blob);
            }
            for cluster in entries(&key.join("tags")).unwrap_or_default() {
                retain(&cluster, is_known);
            }
            let _ = fs::remove_dir(key.join("tags"));
            let is_used = ["manifests", "blobs", "tags"].iter().any(|name| key.join(name).exists());
            retain(&key, |path| path.is_dir() || is_used && !is_part(path) || is_fresh_part(path));
        }
        Ok(())
    }
}

/// Removes the files in a folder that are not worth keeping, and the folder when nothing is left. What cannot be removed stays.
fn retain(folder: &Utf8Path, keeps: impl Fn(&Utf8Path) -> bool) {
    for path in entries(folder).unwrap_or_default() {
        if !keeps(&path) {
            let _ = fs::remove_file(path);
        }
    }
    let _ = fs::remove_dir(folder);
}

/// Whether somebody wrote it, or began to, and did not put it in its place.
fn is_part(path: &Utf8Path) -> bool {
    path.file_name().is_some_and(|name| name.starts_with('.'))
}

fn is_fresh_part(path: &Utf8Path) -> bool {
    is_part(path) && is_fresh(path)
}

fn is_fresh(path: &Utf8Path) -> bool {
    let modified = path.symlink_metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age < FRESH))
}

/// What nobody is fetching any more: whoever did was killed.
struct Left {
    part: Utf8PathBuf,
    lock: FileLock,
}

impl Left {
    fn size(&self) -> u64 {
        self.part.symlink_metadata().map_or(0, |metadata| metadata.len())
    }

    fn remove(&self) {
        let _ = fs::remove_file(&self.part);
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.lock.path());
    }
}

fn left(root: &Utf8Path) -> io::Result<Vec<Left>> {
    let mut left = Vec::new();
    for path in entries(&root.join("incoming"))? {
        let (part, lock) = (path.with_extension("part"), path.with_extension("lock"));
        // Both have the same lock, and who has just ended has neither.
        let Ok(Attempt::Acquired(lock)) = FileLock::try_acquire(&lock, "tidy") else { continue };
        left.push(Left { part, lock });
    }
    Ok(left)
}

/// What a folder holds, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    /// Names of the images that it has something of, without tags: `docker.io/library/nginx`.
    pub images: Vec<String>,
    /// How many manifests, configs and layers there are.
    pub blobs: usize,
    /// Their bytes, and those of what somebody began to fetch and left.
    pub size: u64,
}

/// Looks into a folder; one that is not there holds nothing.
///
/// # Errors
/// When it cannot be read, or is somebody else's.
pub fn cache_usage(root: &Utf8Path) -> io::Result<CacheUsage> {
    act(root, || usage(root))
}

/// Removes everything in a folder, which nodes may be using: they fetch what they need again.
///
/// # Errors
/// When something cannot be removed, or the folder is somebody else's.
pub fn empty_cache(root: &Utf8Path) -> io::Result<CacheUsage> {
    act(root, || {
        let usage = usage(root)?;
        // Nobody may have what is there, before it goes.
        for name in ["rights", "origins"] {
            for path in entries(&root.join(name))? {
                remove_folder(&path)?;
            }
        }
        for path in entries(&root.join("blobs"))? {
            gone(fs::remove_file(path))?;
        }
        left(root)?.iter().for_each(Left::remove);
        Ok(usage)
    })
}

/// Does something as the owner of a folder that may not be there.
fn act(root: &Utf8Path, work: impl FnOnce() -> io::Result<CacheUsage>) -> io::Result<CacheUsage> {
    let owner = match Owner::of(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(CacheUsage::default()),
        owner => owner?,
    };
    let _acting = owner.act()?;
    work()
}

fn usage(root: &Utf8Path) -> io::Result<CacheUsage> {
    let mut usage = CacheUsage::default();
    for entry in entries(&root.join("blobs"))? {
        // It may go while we look.
        let Ok(metadata) = entry.symlink_metadata() else { continue };
        usage.blobs += 1;
        usage.size += metadata.len();
    }
    usage.size += left(root)?.iter().map(Left::size).sum::<u64>();
    for entry in entries(&root.join("rights"))? {
        let about = fs::read_to_string(entry.join("about")).unwrap_or_default();
        usage.images.extend(Some(about.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    usage.images.sort();
    usage.images.dedup();
    Ok(usage)
}

/// Removes a folder that a node may be writing to, which is no harm: then something of it is there again.
fn remove_folder(path: &Utf8Path) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match gone(fs::remove_dir_all(path)) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            removed => return removed,
        }
    }
    gone(fs::remove_dir_all(path))
}

/// What is in a folder, which may have gone, and which is none if it is a link.
fn entries(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    let found = folder.symlink_metadata().and_then(|metadata| {
        if metadata.is_dir() { folder.read_dir_utf8() } else { Err(no_folder(folder)) }
    });
    match found {
        Ok(entries) => entries.map(|entry| Ok(entry?.into_path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::folder::tests::{NOT, folder, key, put, question};
    use super::super::folder::{Origin, Tag};
    use super::super::question::Kind;
    use super::super::trust::Trust;
    use super::*;

    fn shrink(folder: &Folder, size: u64) -> usize {
        folder.tidy(|_| Ok(size)).unwrap().blobs
    }

    fn is_old(path: &Utf8Path) {
        let file = fs::File::open(path).unwrap();
        file.set_modified(SystemTime::now() - 2 * FRESH).unwrap();
    }

    #[test]
    fn what_was_not_used_for_long_goes_first() {
        let (_temporary, _, folder) = folder();
        let digests = [b"aa", b"bb", b"cc"].map(|content| put(&folder, content));
        for (age, digest) in digests.iter().enumerate() {
            let file = folder.blob(digest).unwrap().0;
            let age = Duration::from_secs(1000 * (age as u64 + 1));
            file.set_modified(SystemTime::now() - age).unwrap();
        }
        assert!(folder.blob(&digests[2]).is_some(), "it is used now");
        assert_eq!(shrink(&folder, 4), 1);
        let there = digests.each_ref().map(|digest| folder.blob(digest).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn what_is_said_of_a_blob_goes_with_it() {
        let (_temporary, root, folder) = folder();
        let (old, new) = (put(&folder, b"old"), put(&folder, b"new"));
        is_old(&folder.blob_path(&old));
        let (only, both) = (key(None), key(Some("Basic eA==")));
        let [gone, stays] = ["gone", "stays"].map(|api| Origin::of(api, "a", &Trust::Everybody));
        for (key, digest) in [(&only, &old), (&both, &old), (&both, &new)] {
            folder.allow(key, &question(), digest, "a/b").unwrap();
        }
        folder.keep_origin(&gone, &old).unwrap();
        folder.keep_origin(&stays, &new).unwrap();
        let cluster = "one".parse().unwrap();
        for (name, digest) in [("old", &old), ("new", &new)] {
            let tagged = Tagged { digest: digest.to_string(), media: String::new(), size: 3 };
            folder.keep_tag(Tag { key: &both, cluster: &cluster, name }, &tagged).unwrap();
        }
        for tag in entries(&root.join("rights")).unwrap() {
            entries(&tag.join("tags/one")).unwrap().iter().for_each(|path| is_old(path));
        }
        assert_eq!(shrink(&folder, 3), 1);

        assert_eq!(folder.media(&both, Kind::Manifest, &new).as_deref(), Some("a/b"));
        assert_eq!(folder.media(&both, Kind::Manifest, &old), None);
        assert_eq!(entries(&root.join("rights")).unwrap().len(), 1);
        assert!(folder.is_from(&stays, &new) && !folder.is_from(&gone, &old));
        assert_eq!(entries(&root.join("origins")).unwrap().len(), 1);
        let tag = |name| folder.tag(Tag { key: &both, cluster: &cluster, name }).is_some();
        assert_eq!(["old", "new"].map(tag), [false, true]);
    }

    #[test]
    fn all_of_it_goes_when_somebody_says_so() {
        let (_temporary, root, folder) = folder();
        let digest = put(&folder, b"x");
        folder.allow(&key(None), &question(), &digest, "text/plain").unwrap();
        let origin = Origin::of("a", "b", &Trust::Everybody);
        folder.keep_origin(&origin, &digest).unwrap();
        // One was killed, and one is at it.
        let name = |content: &[u8]| format!("incoming/{}.part", Digest::of(content).digits());
        fs::write(root.join(name(b"killed")), "half").unwrap();
        let mut incoming = folder.receive(&Digest::of(b"alive"), NOT).unwrap();
        incoming.write(b"al").unwrap();

        let usage = CacheUsage { images: vec!["a.test/team/a".to_owned()], blobs: 1, size: 5 };
        assert_eq!(cache_usage(&root).unwrap(), usage);
        assert_eq!(empty_cache(&root).unwrap(), usage);
        assert_eq!(cache_usage(&root).unwrap(), CacheUsage::default());
        assert!(!folder.is_from(&origin, &digest));
        assert!(root.join(name(b"alive")).exists() && !root.join(name(b"killed")).exists());
        drop(incoming);
        assert_eq!(entries(&root.join("incoming")).unwrap().len(), 0);
        assert_eq!(cache_usage(&root.join("none")).unwrap(), CacheUsage::default());
    }

    #[test]
    fn what_was_left_goes_when_something_is_kept() {
        let (_temporary, root, folder) = folder();
        fs::write(root.join("incoming/killed.part"), "half").unwrap();
        fs::write(root.join("incoming/early.lock"), "").unwrap();
        assert_eq!(folder.tidy(|_| Ok(1)).unwrap(), Gone { blobs: 0, bytes: 4 });
        assert_eq!(entries(&root.join("incoming")).unwrap().len(), 0);
    }

    #[test]
    fn nothing_is_removed_behind_a_link() {
        let (temporary, root, _folder) = folder();
        let outside = Utf8PathBuf::from_path_buf(temporary.path().join("outside")).unwrap();
        fs::create_dir_all(outside.join("blobs")).unwrap();
        fs::write(outside.join("blobs/precious"), "").unwrap();
        fs::remove_dir(root.join("blobs")).unwrap();
        symlink(outside.join("blobs"), root.join("blobs")).unwrap();
        assert!(empty_cache(&root).is_err());
        symlink(&outside, temporary.path().join("link")).unwrap();
        let link = Utf8PathBuf::from_path_buf(temporary.path().join("link")).unwrap();
        assert!(empty_cache(&link).is_err());
        assert!(outside.join("blobs/precious").exists());
    }
}
