//! A lock that processes hold on a file, and that says who holds it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Context;
use crate::{Cause, Error, Result};

/// How often a lock is asked for while another holds it: flock(2) has no deadline.
const PROBE: Duration = Duration::from_millis(20);

/// An exclusive lock (flock(2)), held until dropped; the kernel lets go of it when the process dies. The file stays and
/// is not inherited by programs that are executed.
#[derive(Debug)]
pub struct FileLock {
    file: File,
    path: PathBuf,
}

/// Who holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Process, in the pid namespace in which it runs; `None` if it has not written it yet.
    pub pid: Option<u32>,
    /// What it is doing, such as `up`.
    pub verb: String,
}

/// The answer to an attempt.
#[derive(Debug)]
pub enum Attempt {
    /// The lock is the caller's.
    Acquired(FileLock),
    /// It is another's.
    Held(Holder),
}

impl FileLock {
    /// Takes the lock if it is free. `verb` tells others what for.
    pub fn try_acquire(path: impl AsRef<Path>, verb: &str) -> Result<Attempt> {
        let path = path.as_ref();
        loop {
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
                .at("open", path.display())?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(Attempt::Held(read_holder(&mut file))),
                other => other.at("lock", path.display())?,
            }
            // Its last holder may have removed the file after it was opened here: then nobody else would find this lock.
            if !is_at(&file, path) {
                continue;
            }
            let text = format!("{} {verb}\n", std::process::id());
            file.set_len(0).at("write", path.display())?;
            file.write_all(text.as_bytes()).at("write", path.display())?;
            return Ok(Attempt::Acquired(Self { file, path: path.to_owned() }));
        }
    }

    /// Takes the lock, waiting for it until the timeout has passed; the error then names the holder.
    pub fn acquire(path: impl AsRef<Path>, verb: &str, timeout: Duration) -> Result<Self> {
        let path = path.as_ref();
        let deadline = Instant::now() + timeout;
        loop {
            let holder = match Self::try_acquire(path, verb)? {
                Attempt::Acquired(lock) => return Ok(lock),
                Attempt::Held(holder) => holder,
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let pid = holder
                    .pid
                    .map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                let text = format!("{pid} holds it for `{}`", holder.verb);
                return Err(Error::new("lock", path.display(), Cause::TimedOut(text)));
            }
            thread::sleep(PROBE.min(left));
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Explicitly, because a forked child may still have the file open and would keep the lock alive.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(found)) => identity(open) == identity(found),
        _ => false,
    }
}

fn read_holder(file: &mut File) -> Holder {
    let mut text = String::new();
    // Unreadable only in the moment in which the holder writes it.
    let _ = file.rewind();
    let _ = file.read_to_string(&mut text);
    let (pid, verb) = text.trim().split_once(' ').unwrap_or_default();
    Holder { pid: pid.parse().ok(), verb: verb.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_other_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = FileLock::acquire(&path, "up demo", Duration::ZERO).unwrap();
        let Attempt::Held(holder) = FileLock::try_acquire(&path, "down").unwrap() else {
            panic!("two hold it")
        };
        assert_eq!(holder, Holder { pid: Some(std::process::id()), verb: "up demo".into() });
        let error = FileLock::acquire(&path, "down", Duration::from_millis(1)).unwrap_err();
        assert!(error.is_timeout());
        let expected = format!("timed out: process {} holds it for `up demo`", std::process::id());
        assert_eq!(error.cause().to_string(), expected);
        let waiting = {
            let path = path.clone();
            thread::spawn(move || {
                FileLock::acquire(path, "down", Duration::from_secs(120)).unwrap()
            })
        };
        drop(lock);
        assert_eq!(waiting.join().unwrap().path(), path);
    }
}
