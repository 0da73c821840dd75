//! What is kept, in a folder that several nodes of several clusters use at once.
//!
//! ```text
//! blobs/<digits>                 layers, configs and manifests by their SHA-256; their time is that of their last use
//! rights/<key>/about             registry and name of an image, for people
//! rights/<key>/content/<digits>  its media type: those with this key were given it, and get it from here from now on
//! rights/<key>/tags/<tag>        what the registry said last
//! incoming/<digits>.part, .lock  what is being fetched, and by one node only
//! ```
//!
//! Whatever is there is there as a whole: it is written beside and put in place by a rename. All of it may be removed at any time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, chown};
use std::time::{Duration, SystemTime};

use bivouac_spec::node::Upstream;
use bivouac_sys::filesystem::FileLock;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::question::{Digest, Question};

/// What somebody began to fetch and left is removed after this time.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    root: Utf8PathBuf,
    /// Whose it is: what is written belongs to them, so that they can remove it.
    owner: (u32, u32),
}

/// Who may have what: those who ask the same registries, as the same users, for the same image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

/// What a registry said of a tag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tagged {
    pub(super) digest: String,
    pub(super) media: String,
    pub(super) size: u64,
}

/// What is being fetched.
#[derive(Debug)]
pub(super) struct Incoming {
    file: File,
    path: Utf8PathBuf,
    lock: FileLock,
}

impl Key {
    pub(super) fn of(question: &Question, upstreams: &[Upstream]) -> Self {
        let text = serde_json::to_vec(&(&question.registry, &question.name, upstreams))
            .expect("what is asked has string keys only");
        Self(Digest::of(&text).digits().to_owned())
    }
}

impl Folder {
    /// The folder, where there is one.
    pub(super) fn open(root: &Utf8Path) -> io::Result<Self> {
        let metadata = fs::metadata(root)?;
        let folder = Self { root: root.to_owned(), owner: (metadata.uid(), metadata.gid()) };
        for name in ["blobs", "rights", "incoming"] {
            folder.ensure(&root.join(name))?;
        }
        Ok(folder)
    }

    /// A blob and its size; whoever opens it uses it.
    pub(super) fn blob(&self, digest: &Digest) -> Option<(File, u64)> {
        let file = File::open(self.blob_path(digest)).ok()?;
        let size = file.metadata().ok()?.len();
        // Without it, the blob only goes earlier.
        let _ = file.set_modified(SystemTime::now());
        Some((file, size))
    }

    pub(super) fn remove_blob(&self, digest: &Digest) {
        let _ = fs::remove_file(self.blob_path(digest));
    }

    /// The media type of what those with this key may have.
    pub(super) fn media(&self, key: &Key, digest: &Digest) -> Option<String> {
        fs::read_to_string(self.rights(key).join("content").join(digest.digits())).ok()
    }

    /// From now on, those with this key get it from here.
    pub(super) fn allow(
        &self,
        key: &Key,
        question: &Question,
        digest: &Digest,
        media: &str,
    ) -> io::Result<()> {
        let folder = self.rights(key);
        let about = folder.join("about");
        if !about.exists() {
            self.write(&about, format!("{}/{}\n", question.registry, question.name).as_bytes())?;
        }
        self.write(&folder.join("content").join(digest.digits()), media.as_bytes())
    }

    pub(super) fn tag(&self, key: &Key, tag: &str) -> Option<Tagged> {
        let text = fs::read(self.rights(key).join("tags").join(tag)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn keep_tag(&self, key: &Key, tag: &str, tagged: &Tagged) -> io::Result<()> {
        let text = serde_json::to_vec(tagged).expect("what is said of a tag has string keys only");
        self.write(&self.rights(key).join("tags").join(tag), &text)
    }

    pub(super) fn forget_tag(&self, key: &Key, tag: &str) {
        let _ = fs::remove_file(self.rights(key).join("tags").join(tag));
    }

    /// Begins to fetch, or waits until whoever does so has ended: then it may be there.
    pub(super) fn receive(&self, digest: &Digest, patience: Duration) -> Result<Incoming, String> {
        let path = |end: &str| self.root.join(format!("incoming/{}.{end}", digest.digits()));
        let lock = FileLock::acquire(path("lock"), "fetch", patience);
        let lock = lock.map_err(|error| format!("{error}: {}", error.cause()))?;
        let path = path("part");
        let file = self.create(&path).map_err(|error| error.to_string())?;
        Ok(Incoming { file, path, lock })
    }

    /// Puts what was fetched in its place.
    pub(super) fn keep(&self, incoming: &Incoming, digest: &Digest) -> io::Result<()> {
        incoming.file.sync_data()?;
        fs::rename(&incoming.path, self.blob_path(digest))
    }

    /// Removes what was not used for the longest time until all of it fits; how many went.
    pub(super) fn shrink(&self, size: u64) -> io::Result<usize> {
        let mut blobs = Vec::new();
        for entry in self.root.join("blobs").read_dir_utf8()? {
            let entry = entry?;
            // Another node may be at the same.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            blobs.push((used, metadata.len(), entry.into_path()));
        }
        let (mut total, mut gone) = (blobs.iter().map(|(_, size, _)| size).sum::<u64>(), 0);
        blobs.sort_unstable();
        for (_, length, path) in blobs {
            if total <= size {
                break;
            }
            let _ = fs::remove_file(path);
            (total, gone) = (total.saturating_sub(length), gone + 1);
        }
        self.tidy()?;
        Ok(gone)
    }

    /// Removes what is being fetched by nobody.
    fn tidy(&self) -> io::Result<()> {
        for entry in self.root.join("incoming").read_dir_utf8()?.flatten() {
            let age = entry.metadata().and_then(|metadata| metadata.modified());
            if age.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > ABANDONED)) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn blob_path(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join("blobs").join(digest.digits())
    }

    fn rights(&self, key: &Key) -> Utf8PathBuf {
        self.root.join("rights").join(&key.0)
    }

    /// Writes a small file as a whole.
    fn write(&self, path: &Utf8Path, content: &[u8]) -> io::Result<()> {
        let parent = path.parent().expect("it is below the folder");
        if !parent.is_dir() {
            let above = parent.parent().expect("it is below the folder");
            self.ensure(above)?;
            self.ensure(parent)?;
        }
        // Several nodes may write the same at once, and each counts its processes from 1.
        let name = path.file_name().expect("it is below the folder");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let beside = parent.join(format!(".{name}-{}-{}", std::process::id(), now.as_nanos()));
        let written = self.create(&beside).and_then(|mut file| file.write_all(content));
        written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })
    }

    fn create(&self, path: &Utf8Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
        self.give(path);
        Ok(file)
    }

    fn ensure(&self, path: &Utf8Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => {
                made?;
                self.give(path);
                Ok(())
            }
        }
    }

    /// Only root can, and elsewhere it is the owner's already.
    fn give(&self, path: &Utf8Path) {
        if self.owner != (0, 0) {
            let _ = chown(path, Some(self.owner.0), Some(self.owner.1));
        }
    }
}

impl Incoming {
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // It is at its place, or of no use. Whoever opened the lock meanwhile sees that it is not the one any more.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(self.lock.path());
    }
}

/// What a folder holds, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CacheUsage {
    /// Names of the images that it has something of, without tags: `docker.io/library/nginx`.
    pub images: Vec<String>,
    /// How many manifests, configs and layers there are.
    pub blobs: usize,
    /// Their bytes.
    pub size: u64,
}

/// Looks into a folder; one that is not there holds nothing.
///
/// # Errors
/// When it cannot be read.
pub fn cache_usage(root: &Utf8Path) -> io::Result<CacheUsage> {
    let mut usage = CacheUsage::default();
    for entry in entries(&root.join("blobs"))? {
        // It may go while we look.
        let Ok(metadata) = entry.symlink_metadata() else { continue };
        usage.blobs += 1;
        usage.size += metadata.len();
    }
    for entry in entries(&root.join("rights"))? {
        let about = fs::read_to_string(entry.join("about")).unwrap_or_default();
        usage.images.extend(Some(about.trim().to_owned()).filter(|name| !name.is_empty()));
    }
    usage.images.sort();
    usage.images.dedup();
    Ok(usage)
}

/// Removes everything in a folder, which nodes may be using: they fetch what they need again.
///
/// # Errors
/// When something cannot be removed.
pub fn empty_cache(root: &Utf8Path) -> io::Result<CacheUsage> {
    let usage = cache_usage(root)?;
    for path in entries(&root.join("blobs"))? {
        gone(fs::remove_file(path))?;
    }
    // A node that is just writing one of these puts it back, and that is no harm.
    for path in entries(&root.join("rights"))? {
        gone(fs::remove_dir_all(path))?;
    }
    Ok(usage)
}

fn entries(folder: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    match folder.read_dir_utf8() {
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
    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(temporary.path().join("cache")).unwrap();
        assert!(Folder::open(&root).is_err(), "who has none makes none");
        fs::create_dir(&root).unwrap();
        let folder = Folder::open(&root).unwrap();
        (temporary, root, folder)
    }

    fn put(folder: &Folder, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut incoming = folder.receive(&digest, Duration::ZERO).unwrap();
        incoming.write(content).unwrap();
        folder.keep(&incoming, &digest).unwrap();
        digest
    }

    fn question() -> Question {
        Question::parse("/v2/team/a/manifests/1?ns=a.test").unwrap()
    }

    #[test]
    fn one_fetches_and_others_wait_for_it() {
        let (_temporary, root, folder) = folder();
        let digest = Digest::of(b"layer");
        let incoming = folder.receive(&digest, Duration::ZERO).unwrap();
        assert!(folder.receive(&digest, Duration::ZERO).unwrap_err().contains("fetch"));
        drop(incoming);
        assert!(folder.blob(&digest).is_none(), "half of it is nothing");
        put(&folder, b"layer");
        assert_eq!(folder.blob(&digest).unwrap().1, 5);
        assert_eq!(root.join("incoming").read_dir_utf8().unwrap().count(), 0);
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
        assert_eq!(folder.shrink(4).unwrap(), 1);
        let there = digests.each_ref().map(|digest| folder.blob(digest).is_some());
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn rights_are_those_of_one_image_and_one_way_to_it() {
        let (_temporary, root, folder) = folder();
        let (question, digest) = (question(), Digest::of(b"x"));
        let upstream =
            Upstream { url: None, authorization: None, authorities: None, insecure: false };
        let key = Key::of(&question, std::slice::from_ref(&upstream));
        folder.allow(&key, &question, &digest, "text/plain").unwrap();
        assert_eq!(folder.media(&key, &digest).as_deref(), Some("text/plain"));
        let secret = bivouac_spec::node::Content("Basic eA==".to_owned());
        let somebody = Upstream { authorization: Some(secret), ..upstream };
        assert_eq!(folder.media(&Key::of(&question, &[somebody]), &digest), None);

        let tagged = Tagged { digest: digest.to_string(), media: "a/b".to_owned(), size: 1 };
        folder.keep_tag(&key, "1", &tagged).unwrap();
        assert_eq!(folder.tag(&key, "1"), Some(tagged));
        folder.forget_tag(&key, "1");
        assert_eq!(folder.tag(&key, "1"), None);

        put(&folder, b"x");
        let usage = CacheUsage { images: vec!["a.test/team/a".to_owned()], blobs: 1, size: 1 };
        assert_eq!(cache_usage(&root).unwrap(), usage);
        assert_eq!(empty_cache(&root).unwrap(), usage);
        assert_eq!(cache_usage(&root).unwrap(), CacheUsage::default());
        assert_eq!(cache_usage(&root.join("none")).unwrap(), CacheUsage::default());
    }
}
