//! Room on the disk of a folder, which others use too.

use std::io;
use std::time::{Duration, Instant};

use bivouac_sys::filesystem::FileLock;
use camino::Utf8Path;

use super::folder::Folder;

/// What is left to others who use the disk: this much, or a part of a small one.
const RESERVE: u64 = 1 << 30;
const PART: u64 = 20;

/// How long a node waits for another that is fetching the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// While nothing more of it comes.
    pub(super) quiet: Duration,
    /// However much of it comes.
    pub(super) longest: Duration,
}

/// What went, so that there is room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gone {
    /// How many that were whole.
    pub(super) blobs: usize,
    /// Bytes of all that went.
    pub(super) bytes: u64,
}

impl Folder {
    /// Keeps to this size, and to what the disk has room for.
    pub(super) fn fit(&self, size: u64) -> io::Result<Gone> {
        self.tidy(|used| {
            let space = rustix::fs::statvfs(self.root.as_std_path())?;
            let (total, free) = (space.f_blocks * space.f_frsize, space.f_bavail * space.f_frsize);
            Ok(size.min(bound(used, total, free)))
        })
    }

    /// Makes room for so many bytes more on a disk that is full. What would not be enough stays.
    pub(super) fn make_room(&self, needed: u64) -> io::Result<Gone> {
        let left = self.clear()?;
        let more = needed.saturating_sub(left.bytes);
        if more == 0 {
            return Ok(left);
        }
        let gone = self.tidy(|used| Ok(used.checked_sub(more).unwrap_or(used)))?;
        Ok(Gone { bytes: gone.bytes + left.bytes, ..gone })
    }
}

/// How much may be used of a disk on which so much is used by us and so much is free.
fn bound(used: u64, total: u64, free: u64) -> u64 {
    used.saturating_add(free).saturating_sub(RESERVE.min(total / PART))
}

/// Whether there was no room for it.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Takes a lock, waiting as long as its holder gets on with what it fetches, of which there is so much.
pub(super) fn wait(
    lock: &Utf8Path,
    patience: Patience,
    mut size: impl FnMut() -> u64,
) -> io::Result<FileLock> {
    let deadline = Instant::now() + patience.longest;
    let mut before = size();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match FileLock::acquire(lock, "fetch", patience.quiet.min(left)) {
            Ok(lock) => return Ok(lock),
            Err(error) => error,
        };
        let now = size();
        if !error.is_timeout() || now == before || left.is_zero() {
            return Err(of_the_system(&error));
        }
        before = now;
    }
}

fn of_the_system(error: &bivouac_sys::Error) -> io::Error {
    error.errno().map_or_else(
        || io::Error::other(format!("{error}: {}", error.cause())),
        io::Error::from_raw_os_error,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bivouac_sys::mount::{Attributes, Filesystem, Propagation, mount, set_propagation};
    use bivouac_sys::namespace::{Namespace, unshare};
    use camino::Utf8PathBuf;

    use super::super::folder::tests::{NOT, folder, put};
    use super::super::question::Digest;
    use super::*;

    #[test]
    fn others_on_the_disk_have_room() {
        const GIB: u64 = 1 << 30;
        assert_eq!(bound(30 * GIB, 100 * GIB, 50 * GIB), 79 * GIB);
        assert_eq!(bound(30 * GIB, 100 * GIB, 0), 29 * GIB, "others have filled it");
        assert_eq!(bound(0, 100 * GIB, 0), 0);
        assert_eq!(bound(5, 200, 20), 15, "a small disk");
    }

    #[test]
    fn whoever_waits_does_so_while_it_grows() {
        let temporary = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(temporary.path().join("lock")).unwrap();
        let held = || FileLock::acquire(&path, "fetch", Duration::ZERO).unwrap();
        let patient = Patience { quiet: Duration::ZERO, longest: Duration::from_secs(3600) };

        let (mut holder, mut size) = (Some(held()), 0);
        let got = wait(&path, patient, || {
            size += 1;
            if size == 5 {
                holder = None;
            }
            size
        });
        assert!(got.is_ok() && size == 5, "{size}: {got:?}");
        drop(got);

        let _holder = held();
        assert!(wait(&path, patient, || 7).is_err(), "nothing comes");
        let mut size = 0;
        let endless = wait(&path, NOT, || {
            size += 1;
            size
        });
        assert!(endless.is_err() && size == 2, "it takes too long");
    }

    #[test]
    fn room_is_made_of_what_was_left_and_then_of_what_was_not_used() {
        let (_temporary, root, folder) = folder();
        let old = put(&folder, b"old");
        let file = folder.blob(&old).unwrap().0;
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let new = put(&folder, b"new");
        let left = || fs::write(root.join("incoming/killed.part"), "half").unwrap();
        let there = || [&old, &new].map(|digest| folder.blob_path(digest).exists());

        left();
        assert_eq!(folder.make_room(4).unwrap(), Gone { blobs: 0, bytes: 4 });
        assert_eq!(there(), [true, true]);
        assert_eq!(folder.make_room(7).unwrap(), Gone::default(), "all would not be enough");
        assert_eq!(there(), [true, true]);
        left();
        assert_eq!(folder.make_room(5).unwrap(), Gone { blobs: 1, bytes: 7 });
        assert_eq!(there(), [false, true]);
    }

    /// Only root can mount; whoever else runs this sees that they cannot.
    #[test]
    fn a_full_disk_makes_room_for_what_comes() {
        const SIZE: usize = 1 << 20;
        let test = || -> bivouac_sys::Result<()> {
            unshare(&[Namespace::Mount])?;
            set_propagation("/", Propagation::Private, true)?;
            let (_temporary, root, _) = folder();
            let disk = Filesystem::Tmpfs { size: Some(SIZE as u64), mode: 0o700 };
            mount(&disk, &root, Attributes::default())?;
            let folder = Folder::open(&root).unwrap();
            let old = put(&folder, &vec![1; SIZE / 2]);
            let new = Digest::of(b"new");
            let mut incoming = folder.receive(&new, NOT).unwrap();
            incoming.write(&vec![2; SIZE / 4]).unwrap();
            let rest = vec![3; SIZE / 2];
            let error = incoming.write(&rest).unwrap_err();
            assert!(is_full(&error), "{error}");
            assert_eq!(folder.make_room(rest.len() as u64).unwrap().blobs, 1);
            // What came of it before counts for nothing.
            incoming.write(&rest).unwrap();
            folder.keep(&incoming, &new).unwrap();
            drop(incoming);
            assert!(folder.blob(&old).is_none());
            let kept = fs::read(folder.blob_path(&new)).unwrap();
            assert!(kept == [vec![2; SIZE / 4], rest].concat());
            // The disk is fuller than it may be, of us alone.
            fs::write(root.join("of another"), vec![0; SIZE / 5]).unwrap();
            assert_eq!(folder.fit(u64::MAX).unwrap().blobs, 1);
            Ok(())
        };
        let outcome = std::thread::spawn(test).join().unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(outcome.is_ok(), is_root, "{outcome:?}");
    }
}
