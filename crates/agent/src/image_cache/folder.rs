//! What is kept, in a folder that several nodes of several clusters use at once.
//!
//! ```text
//! blobs/<digits>                     layers, configs and manifests by their SHA-256; their time is that of their last use
//! origins/<origin>/<digits>          who sent it: whoever did can tell who else may have it
//! rights/<key>/about                 registry and name of an image, for people
//! rights/<key>/manifests/<digits>    its media type: those with this key were given it, and get it from here from now on
//! rights/<key>/blobs/<digits>        the same
//! rights/<key>/tags/<cluster>/<tag>  what the registry said last: its name may lead each cluster to another
//! incoming/<digits>.part, .lock      what is being fetched, and by one node only
//! ```
//!
//! Whatever is there is there as a whole: it is written beside and put in place by a rename. All of it may be removed at any time, and goes
//! as [`super::tidy`] has it. The folder may be another user's: all is done as its [`Owner`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::time::SystemTime;

use bivouac_spec::ClusterName;
use bivouac_spec::node::Upstream;
use bivouac_sys::filesystem::FileLock;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::owner::{Owner, no_folder};
use super::question::{Digest, Kind, Question};
use super::room::{self, Patience};
use super::trust::Trust;

/// The folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) root: Utf8PathBuf,
    pub(super) owner: Owner,
}

/// Who may have what: those who ask the same registries, verified by the same, as the same users, for the same image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(String);

/// Who sends what: the API that is asked, what makes sure of it, and the registry that it is asked for, because some mirrors ask others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(String);

/// A tag of an image as one cluster knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tag<'a> {
    pub(super) key: &'a Key,
    pub(super) cluster: &'a ClusterName,
    pub(super) name: &'a str,
}

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
    /// How much of it there is.
    size: u64,
    path: Utf8PathBuf,
    lock: FileLock,
    owner: Owner,
}

impl Key {
    pub(super) fn of(question: &Question, upstreams: &[Upstream], cluster: &ClusterName) -> Self {
        let trust = |one: &Upstream| Trust::of(one, one.url.as_deref(), cluster);
        let trusts: Vec<Trust> = upstreams.iter().map(trust).collect();
        Self(hash(&(&question.registry, &question.name, upstreams, trusts)))
    }
}

impl Origin {
    pub(super) fn of(api: &str, registry: &str, trust: &Trust) -> Self {
        Self(hash(&(api, registry, trust)))
    }
}

fn hash(parts: &impl Serialize) -> String {
    let text = serde_json::to_vec(parts).expect("what is asked has string keys only");
    Digest::of(&text).digits().to_owned()
}

impl Folder {
    /// The folder, where there is one.
    pub(super) fn open(root: &Utf8Path) -> io::Result<Self> {
        let folder = Self { root: root.to_owned(), owner: Owner::of(root)? };
        let acting = folder.owner.act()?;
        for name in ["blobs", "origins", "rights", "incoming"] {
            ensure(&root.join(name))?;
        }
        drop(acting);
        Ok(folder)
    }

    /// A blob and its size; whoever opens it uses it.
    pub(super) fn blob(&self, digest: &Digest) -> Option<(File, u64)> {
        let _acting = self.owner.act().ok()?;
        let file = File::open(self.blob_path(digest)).ok()?;
        let size = file.metadata().ok()?.len();
        // Without it, the blob only goes earlier.
        let _ = file.set_modified(SystemTime::now());
        Some((file, size))
    }

    pub(super) fn remove_blob(&self, digest: &Digest) {
        self.remove(&self.blob_path(digest));
    }

    /// The media type of what those with this key may have.
    pub(super) fn media(&self, key: &Key, kind: Kind, digest: &Digest) -> Option<String> {
        let _acting = self.owner.act().ok()?;
        fs::read_to_string(self.rights(key).join(kind.word()).join(digest.digits())).ok()
    }

    /// From now on, those with this key get it from here.
    pub(super) fn allow(
        &self,
        key: &Key,
        question: &Question,
        digest: &Digest,
        media: &str,
    ) -> io::Result<()> {
        let _acting = self.owner.act()?;
        let folder = self.rights(key);
        let about = folder.join("about");
        if !about.exists() {
            self.write(&about, format!("{}/{}\n", question.registry, question.name).as_bytes())?;
        }
        self.write(&folder.join(question.kind.word()).join(digest.digits()), media.as_bytes())
    }

    /// Whether this is who sent it.
    pub(super) fn is_from(&self, origin: &Origin, digest: &Digest) -> bool {
        self.owner.act().is_ok_and(|_acting| self.origin(origin, digest).exists())
    }

    /// Keeps who sent it.
    pub(super) fn keep_origin(&self, origin: &Origin, digest: &Digest) -> io::Result<()> {
        let _acting = self.owner.act()?;
        self.write(&self.origin(origin, digest), &[])
    }

    pub(super) fn tag(&self, tag: Tag<'_>) -> Option<Tagged> {
        let _acting = self.owner.act().ok()?;
        Tagged::read(&self.tag_path(tag))
    }

    pub(super) fn keep_tag(&self, tag: Tag<'_>, tagged: &Tagged) -> io::Result<()> {
        let _acting = self.owner.act()?;
        let text = serde_json::to_vec(tagged).expect("what is said of a tag has string keys only");
        self.write(&self.tag_path(tag), &text)
    }

    pub(super) fn forget_tag(&self, tag: Tag<'_>) {
        self.remove(&self.tag_path(tag));
    }

    /// Begins to fetch, or waits until whoever does so has ended: then it may be there.
    pub(super) fn receive(&self, digest: &Digest, patience: Patience) -> io::Result<Incoming> {
        let _acting = self.owner.act()?;
        let folder = self.root.join("incoming");
        ensure(&folder)?;
        let path = |end: &str| folder.join(format!("{}.{end}", digest.digits()));
        let (lock, path) = (path("lock"), path("part"));
        let size = || path.symlink_metadata().map_or(0, |metadata| metadata.len());
        let lock = room::wait(&lock, patience, size)?;
        let file = create(&path)?;
        Ok(Incoming { file, size: 0, path, lock, owner: self.owner })
    }

    /// Puts what was fetched in its place.
    pub(super) fn keep(&self, incoming: &Incoming, digest: &Digest) -> io::Result<()> {
        let _acting = self.owner.act()?;
        incoming.file.sync_data()?;
        ensure(&self.root.join("blobs"))?;
        fs::rename(&incoming.path, self.blob_path(digest))
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> Utf8PathBuf {
        self.root.join("blobs").join(digest.digits())
    }

    fn rights(&self, key: &Key) -> Utf8PathBuf {
        self.root.join("rights").join(&key.0)
    }

    fn origin(&self, origin: &Origin, digest: &Digest) -> Utf8PathBuf {
        self.root.join("origins").join(&origin.0).join(digest.digits())
    }

    fn tag_path(&self, tag: Tag<'_>) -> Utf8PathBuf {
        self.rights(tag.key).join("tags").join(tag.cluster.as_str()).join(tag.name)
    }

    fn remove(&self, path: &Utf8Path) {
        if let Ok(_acting) = self.owner.act() {
            let _ = fs::remove_file(path);
        }
    }

    /// Writes a small file as a whole. Its folder may not be there yet, or not any more.
    fn write(&self, path: &Utf8Path, content: &[u8]) -> io::Result<()> {
        match place(path, content) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            written => return written,
        }
        let below = path.strip_prefix(&self.root).expect("it is below the folder");
        let parents: Vec<_> = below.ancestors().skip(1).collect();
        for parent in parents.iter().rev().filter(|parent| !parent.as_str().is_empty()) {
            ensure(&self.root.join(parent))?;
        }
        place(path, content)
    }
}

impl Tagged {
    pub(super) fn read(path: &Utf8Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }
}

impl Incoming {
    /// Adds these. Where that fails, nothing counts of them, and it can be tried again.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.size)?;
        self.size += bytes.len() as u64;
        Ok(())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // It is at its place, or of no use. Whoever opened the lock meanwhile sees that it is not the one any more.
        if let Ok(_acting) = self.owner.act() {
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_file(self.lock.path());
        }
    }
}

fn place(path: &Utf8Path, content: &[u8]) -> io::Result<()> {
    let (parent, name) = (path.parent(), path.file_name());
    let (parent, name) = parent.zip(name).expect("it is below the folder");
    // Several nodes may write the same at once, and each counts its processes from 1.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let beside = parent.join(format!(".{name}-{}-{}", std::process::id(), now.as_nanos()));
    let written = create(&beside).and_then(|mut file| file.write_all(content));
    written.and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        let _ = fs::remove_file(&beside);
    })
}

fn create(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn ensure(path: &Utf8Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_folder = fs::symlink_metadata(path)?.is_dir();
            if is_folder { Ok(()) } else { Err(no_folder(path)) }
        }
        made => made,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::fs::symlink;
    use std::time::Duration;

    use super::*;

    pub(in crate::image_cache) const NOT: Patience =
        Patience { quiet: Duration::ZERO, longest: Duration::ZERO };

    pub(in crate::image_cache) fn folder() -> (tempfile::TempDir, Utf8PathBuf, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(temporary.path().join("cache")).unwrap();
        assert!(Folder::open(&root).is_err(), "who has none makes none");
        fs::create_dir(&root).unwrap();
        let folder = Folder::open(&root).unwrap();
        (temporary, root, folder)
    }

    pub(in crate::image_cache) fn put(folder: &Folder, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        let mut incoming = folder.receive(&digest, NOT).unwrap();
        incoming.write(content).unwrap();
        folder.keep(&incoming, &digest).unwrap();
        digest
    }

    pub(in crate::image_cache) fn question() -> Question {
        Question::parse("/v2/team/a/manifests/1?ns=a.test").unwrap()
    }

    pub(in crate::image_cache) fn key(authorization: Option<&str>) -> Key {
        let authorization = authorization.map(|it| bivouac_spec::node::Content(it.to_owned()));
        let own = Upstream { url: None, authorization, authorities: None, insecure: false };
        Key::of(&question(), &[own], &"one".parse().unwrap())
    }

    #[test]
    fn one_fetches_and_others_wait_for_it() {
        let (_temporary, root, folder) = folder();
        let digest = Digest::of(b"layer");
        let incoming = folder.receive(&digest, NOT).unwrap();
        assert!(folder.receive(&digest, NOT).unwrap_err().to_string().contains("fetch"));
        drop(incoming);
        assert!(folder.blob(&digest).is_none(), "half of it is nothing");
        put(&folder, b"layer");
        assert_eq!(folder.blob(&digest).unwrap().1, 5);
        assert_eq!(root.join("incoming").read_dir_utf8().unwrap().count(), 0);
    }

    #[test]
    fn rights_are_those_of_one_image_and_one_way_to_it() {
        let (_temporary, _root, folder) = folder();
        let digest = Digest::of(b"x");
        folder.allow(&key(None), &question(), &digest, "text/plain").unwrap();
        let media = |key, kind| folder.media(&key, kind, &digest);
        assert_eq!(media(key(None), Kind::Manifest).as_deref(), Some("text/plain"));
        assert_eq!(media(key(None), Kind::Blob), None);
        assert_eq!(media(key(Some("Basic eA==")), Kind::Manifest), None);

        let mirror = |registry| Origin::of("https://m.test/v2", registry, &Trust::Everybody);
        let origin = mirror("a.test");
        folder.keep_origin(&origin, &digest).unwrap();
        assert!(folder.is_from(&origin, &digest));
        assert!(!folder.is_from(&origin, &Digest::of(b"y")));
        let other = mirror("evil.test");
        assert!(!folder.is_from(&other, &digest), "the mirror asks somebody else for these");
    }

    #[test]
    fn a_tag_is_that_of_one_cluster() {
        let (_temporary, _root, folder) = folder();
        let (key, clusters) = (key(None), ["one", "two"].map(|name| name.parse().unwrap()));
        let [one, two] = clusters.each_ref().map(|cluster| Tag { key: &key, cluster, name: "1" });
        let tagged = Tagged { digest: "sha256:a".to_owned(), media: "a/b".to_owned(), size: 1 };
        folder.keep_tag(one, &tagged).unwrap();
        assert_eq!((folder.tag(one), folder.tag(two)), (Some(tagged.clone()), None));
        folder.forget_tag(two);
        assert_eq!(folder.tag(one), Some(tagged));
        folder.forget_tag(one);
        assert_eq!(folder.tag(one), None);
    }

    #[test]
    fn what_somebody_removed_by_hand_is_made_again() {
        let (_temporary, root, folder) = folder();
        for name in ["blobs", "origins", "rights", "incoming"] {
            fs::remove_dir_all(root.join(name)).unwrap();
        }
        let digest = put(&folder, b"x");
        folder.allow(&key(None), &question(), &digest, "text/plain").unwrap();
        folder.keep_origin(&Origin::of("a", "b", &Trust::Everybody), &digest).unwrap();
        assert!(folder.media(&key(None), Kind::Manifest, &digest).is_some());
    }

    #[test]
    fn links_lead_nowhere() {
        let (temporary, root, folder) = folder();
        let outside = Utf8PathBuf::from_path_buf(temporary.path().join("outside")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&root, outside.join("link")).unwrap();
        assert!(Folder::open(&outside.join("link")).is_err());
        fs::remove_dir(root.join("incoming")).unwrap();
        symlink(&outside, root.join("incoming")).unwrap();
        let error = folder.receive(&Digest::of(b"x"), NOT).unwrap_err();
        assert!(error.to_string().contains("folder"), "{error}");
        assert!(Folder::open(&root).is_err());
    }
}
