//! The content-addressed store: folders of finished pieces, made once, under a lock, and put in place by one rename.
//!
//! ```text
//! blobs/sha256/<hex>   OCI blobs                     locks/   one file a key, held with flock
//! programs/<key>/      what one recipe made          tmp/     work under way, resumable downloads
//! base/<key>/          Debian layers: the base, what packages add to it
//! images/<key>/        node images: oci/ rootfs/ manifest.json
//! containers/          container images that users loaded, see `containers`
//! ```
//!
//! A piece is there as a whole or not at all. Processes may share a store: who needs a piece that another is making
//! waits for it and finds it made.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{FlockOperation, flock};

use crate::cancel::Cancel;
use crate::digest::Sha256;
use crate::error::{At, Error};
use crate::event::Reporter;
use crate::files::{names, remove};

/// Folders with unpacked images: set-user-id programs and devices in them must not be within reach of the host's users.
const UNPACKED: [&str; 2] = ["images", "containers"];

/// The kinds of pieces that recipes make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Outputs of one program of the bundle.
    Program,
    /// A Debian layer: the base, or what packages add to it.
    Base,
    /// A node image.
    Image,
}

impl Kind {
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Self::Program => "programs",
            Self::Base => "base",
            Self::Image => "images",
        }
    }
}

/// An open store. Cheap to clone; holds no lock.
#[derive(Clone, Debug)]
pub struct Store {
    root: Utf8PathBuf,
}

/// A held lock; dropping it lets the next one in.
#[derive(Debug)]
pub struct StoreLock(fs::File);

impl StoreLock {
    /// The empty lock file as a child's stdin: the lock is held as long as any of both is open.
    pub(crate) fn as_stdin(&self) -> Result<std::process::Stdio, Error> {
        Ok(self.0.try_clone().at("share", "a lock of the store")?.into())
    }
}

impl Store {
    /// Opens the store at `root`, creating its folders where they are missing.
    ///
    /// # Errors
    /// When a folder cannot be created.
    pub fn open(root: &Utf8Path) -> Result<Self, Error> {
        let folders = ["blobs/sha256", "programs", "base", "images", "containers", "locks", "tmp"];
        for folder in folders {
            let path = root.join(folder);
            fs::create_dir_all(&path).at("create", &path)?;
        }
        let root = root.canonicalize_utf8().at("resolve", root)?;
        for folder in UNPACKED {
            keep_private(&root.join(folder))?;
        }
        Ok(Self { root })
    }

    /// The store's folder.
    pub fn root(&self) -> &Utf8Path {
        &self.root
    }

    /// Where a blob lies, whether it is there or not.
    pub fn blob(&self, digest: &Sha256) -> Utf8PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Where a piece lies, whether it is there or not.
    pub fn piece(&self, kind: Kind, key: &str) -> Utf8PathBuf {
        self.root.join(kind.folder()).join(key)
    }

    /// The container image directory of this store, for what users load.
    pub fn containers(&self) -> Utf8PathBuf {
        self.root.join("containers")
    }

    /// Bytes that may still be written here.
    pub(crate) fn free_space(&self) -> Result<u64, Error> {
        let stat = rustix::fs::statvfs(self.root.as_std_path()).at("examine", &self.root)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Keys of the pieces that are there, sorted.
    pub(crate) fn keys(&self, kind: Kind) -> Result<Vec<String>, Error> {
        names(&self.root.join(kind.folder()))
    }

    /// Makes a piece unless it is there and sound; returns its folder and whether it was made now.
    ///
    /// `is_sound` says what is wrong with a finished folder, if anything; then it is made again. `make` fills
    /// `out`, which becomes the piece; `work` is for intermediate files: those named `*.part` survive an
    /// interruption, all else is removed.
    ///
    /// # Errors
    /// What `make` fails with, [`Error::Cancelled`], or [`Error::Io`].
    pub fn ensure_piece(
        &self,
        kind: Kind,
        key: &str,
        context: &Context<'_>,
        is_sound: &dyn Fn(&Utf8Path) -> Result<(), Error>,
        make: &mut dyn FnMut(&Out<'_>) -> Result<(), Error>,
    ) -> Result<(Utf8PathBuf, bool), Error> {
        let path = self.piece(kind, key);
        if path.exists() && is_sound(&path).is_ok() {
            return Ok((path, false));
        }
        let name = format!("{}-{key}", kind.folder());
        let lock = self.lock(&name, context)?;
        let work = self.root.join("tmp").join(&name);
        clear(&work)?;
        if path.exists() {
            match is_sound(&path) {
                Ok(()) => return Ok((path, false)),
                Err(error) => context.reporter().note(format!("{error}; it is made again")),
            }
            self.discard(kind, key, &path)?;
        }
        let out = work.join("out");
        fs::create_dir(&out).at("create", &out)?;
        let result = make(&Out { out: &out, work: &work, lock: &lock });
        if let Err(error) = result {
            // What is not resumable goes now, for a full disk; the error of the work is the one that counts.
            let _ = clear(&work);
            return Err(error);
        }
        self.sync()?;
        fs::rename(&out, &path).at("put in place", &path)?;
        remove(&work)?;
        Ok((path, true))
    }

    /// Takes a damaged piece away. Nodes that run on an image keep what they have mounted: it is moved, and removed by
    /// a later `prune`.
    fn discard(&self, kind: Kind, key: &str, path: &Utf8Path) -> Result<(), Error> {
        let busy = kind == Kind::Image && crate::usage::in_use(&path.join("rootfs"));
        let away = self.root.join("tmp").join(format!("damaged-{key}.{}", std::process::id()));
        remove(&away)?;
        fs::rename(path, &away).at("move away", path)?;
        if busy { Ok(()) } else { remove(&away) }
    }

    /// Moves a finished file to its place among the blobs.
    pub(crate) fn adopt_blob(
        &self,
        file: &Utf8Path,
        digest: &Sha256,
    ) -> Result<Utf8PathBuf, Error> {
        let path = self.blob(digest);
        fs::rename(file, &path).at("put in place", &path)?;
        Ok(path)
    }

    /// Takes the lock of that name; while another holds it, says so once and waits.
    pub(crate) fn lock(&self, name: &str, context: &Context<'_>) -> Result<StoreLock, Error> {
        let path = self.root.join("locks").join(format!("{name}.lock"));
        lock_file(&path, FlockOperation::LockExclusive, context)
    }

    /// Held by builds among themselves; whoever removes shared pieces must have it alone.
    pub(crate) fn lock_building(&self, context: &Context<'_>) -> Result<StoreLock, Error> {
        lock_file(&self.root.join("locks/building.lock"), FlockOperation::LockShared, context)
    }

    /// The lock of that name, unless somebody holds it.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<OwnLock>, Error> {
        let path = self.root.join("locks").join(format!("{name}.lock"));
        OwnLock::try_exclusive(open_lock(&path)?).at("lock", &path)
    }

    fn sync(&self) -> Result<(), Error> {
        let root = fs::File::open(&self.root).at("open", &self.root)?;
        rustix::fs::syncfs(&root).at("sync", &self.root)
    }
}

/// A lock that no child is to hold, and that ends with this value.
#[derive(Debug)]
pub(crate) struct OwnLock(fs::File);

impl OwnLock {
    /// The lock on this file alone, unless somebody holds it.
    pub(crate) fn try_exclusive(file: fs::File) -> rustix::io::Result<Option<Self>> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Shares the lock from now on with others who do.
    pub(crate) fn share(file: fs::File) -> rustix::io::Result<Self> {
        flock(&file, FlockOperation::LockShared).map(|()| Self(file))
    }

    /// Waits until nobody else has the lock.
    pub(crate) fn exclusive(file: fs::File) -> rustix::io::Result<Self> {
        flock(&file, FlockOperation::LockExclusive).map(|()| Self(file))
    }
}

impl Drop for OwnLock {
    fn drop(&mut self) {
        // Explicitly: a child that another thread starts just now has the file open, too, until it executes.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

/// Where a piece is made.
#[derive(Debug)]
pub struct Out<'a> {
    /// Becomes the piece.
    pub out: &'a Utf8Path,
    /// For intermediate files, on the same file system.
    pub work: &'a Utf8Path,
    /// The piece's lock.
    pub lock: &'a StoreLock,
}

/// Who works on what, and how to stop it.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The step's id, for events.
    pub step: &'a str,
    /// Receives events.
    pub on_event: crate::event::OnEvent<'a>,
    /// Stops waits and child processes.
    pub cancel: &'a Cancel,
}

impl<'a> Context<'a> {
    pub(crate) fn reporter(&self) -> Reporter<'a> {
        Reporter { step: self.step, on_event: self.on_event }
    }
}

fn open_lock(path: &Utf8Path) -> Result<fs::File, Error> {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .at("open", path)
}

fn lock_file(
    path: &Utf8Path,
    operation: FlockOperation,
    context: &Context<'_>,
) -> Result<StoreLock, Error> {
    context.cancel.check()?;
    let at_once = match operation {
        FlockOperation::LockShared => FlockOperation::NonBlockingLockShared,
        _ => FlockOperation::NonBlockingLockExclusive,
    };
    let file = open_lock(path)?;
    match flock(&file, at_once) {
        Ok(()) => return Ok(StoreLock(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => context.reporter().waiting(),
        Err(error) => return Err(error).at("lock", path),
    }
    // flock cannot be interrupted from another thread, so a thread of its own waits. When nobody wants the lock any
    // more, it gets it some time and drops it.
    let (sender, receiver) = std::sync::mpsc::channel::<Option<io::Result<fs::File>>>();
    let wake = sender.clone();
    let _guard = context.cancel.on_cancel(move || {
        let _ = wake.send(None);
    });
    std::thread::spawn(move || {
        let result = loop {
            match flock(&file, operation) {
                Err(rustix::io::Errno::INTR) => {}
                result => break result,
            }
        };
        let _ = sender.send(Some(result.map(|()| file).map_err(Into::into)));
    });
    match receiver.recv() {
        Ok(Some(result)) => result.at("lock", path).map(StoreLock),
        Ok(None) | Err(_) => Err(Error::Cancelled),
    }
}

/// Takes the folder from everybody but its owner, where the caller is that.
fn keep_private(folder: &Utf8Path) -> Result<(), Error> {
    let metadata = fs::metadata(folder).at("examine", folder)?;
    let own = metadata.uid() == rustix::process::geteuid().as_raw();
    if own && metadata.mode() & 0o077 != 0 {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).at("change", folder)?;
    }
    Ok(())
}

/// Empties a work folder but for `*.part`, creating it where it is missing.
fn clear(work: &Utf8Path) -> Result<(), Error> {
    fs::create_dir_all(work).at("create", work)?;
    for name in names(work)? {
        if !name.ends_with(".part") {
            remove(&work.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const CHILD: &str = "BIVOUAC_TEST_STORE";

    fn temporary() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Utf8Path::from_path(folder.path()).unwrap()).unwrap();
        (folder, store)
    }

    fn context(cancel: &Cancel) -> Context<'_> {
        Context { step: "test", on_event: &|_| (), cancel }
    }

    fn sound(path: &Utf8Path) -> Result<(), Error> {
        match fs::read_to_string(path.join("data")).at("read", path)?.as_str() {
            "good" => Ok(()),
            _ => Err(Error::Damaged { what: path.into(), why: "not good".into() }),
        }
    }

    /// Leaves a line in `made` each time that it makes the piece.
    fn make_once(store: &Store) -> (Utf8PathBuf, bool) {
        let cancel = Cancel::new();
        store
            .ensure_piece(Kind::Program, "k", &context(&cancel), &sound, &mut |out| {
                let made = store.root().join("made");
                let mut log = fs::OpenOptions::new().append(true).create(true).open(&made).unwrap();
                io::Write::write_all(&mut log, b"x").unwrap();
                fs::write(out.out.join("data"), "good").at("write", out.out)
            })
            .unwrap()
    }

    #[test]
    fn a_piece_is_made_once_and_made_again_when_damaged() {
        let (_folder, store) = temporary();
        let (path, made) = make_once(&store);
        assert!(made);
        assert!(!make_once(&store).1);
        fs::write(path.join("data"), "bad").unwrap();
        assert!(make_once(&store).1);
        sound(&path).unwrap();
        assert_eq!(names(&store.root().join("tmp")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_failed_make_leaves_only_what_can_be_resumed() {
        let (_folder, store) = temporary();
        let cancel = Cancel::new();
        let error = store
            .ensure_piece(Kind::Program, "k", &context(&cancel), &sound, &mut |out| {
                fs::write(out.out.join("data"), "half").unwrap();
                fs::write(out.work.join("file.part"), "half").unwrap();
                Err(Error::Cancelled)
            })
            .unwrap_err();
        assert_eq!(error.code(), "image.interrupted");
        assert!(!store.piece(Kind::Program, "k").exists());
        assert_eq!(names(&store.root().join("tmp/programs-k")).unwrap(), ["file.part"]);
        assert!(make_once(&store).1);
    }

    #[test]
    fn threads_make_one_piece() {
        let (_folder, store) = temporary();
        let made = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    made.fetch_add(usize::from(make_once(&store).1), Ordering::Relaxed);
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }

    /// Does its work only as the child of the next test.
    #[test]
    fn child_process() {
        if let Ok(root) = std::env::var(CHILD) {
            make_once(&Store::open(Utf8Path::new(&root)).unwrap());
        }
    }

    #[test]
    fn processes_make_one_piece() {
        let (_folder, store) = temporary();
        let children: Vec<_> = (0..4)
            .map(|_| {
                std::process::Command::new(std::env::current_exe().unwrap())
                    .args(["store::tests::child_process", "--exact"])
                    .env(CHILD, store.root().as_str())
                    .stdout(std::process::Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(fs::read_to_string(store.root().join("made")).unwrap(), "x");
    }

    #[test]
    fn a_wait_for_a_lock_ends_when_cancelled() {
        let (_folder, store) = temporary();
        let cancel = Cancel::new();
        let held = store.try_lock("programs-k").unwrap().unwrap();
        let context = Context { step: "test", on_event: &|_| cancel.cancel(), cancel: &cancel };
        let error = store.lock("programs-k", &context).unwrap_err();
        assert_eq!(error.code(), "image.interrupted");
        drop(held);
    }
}
