//! Kernel parameters of the host that change while there are clusters: each change is written down first, and undone when the last cluster
//! goes. Clusters may be kept in several state folders, and the machine has its parameters once: so the note is the machine's.

use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_sys::filesystem::FileLock;
use bivouac_sys::process::boot_id;
use bivouac_sys::sysctl;
use camino::Utf8PathBuf;
use serde::{Deserialize, Serialize};

use super::folder::{self, StateFolder};
use super::problem::{OrProblem as _, acquire};
use super::record::write_secret;
use super::{forwarding, inotify};

/// How long another command may hold the lock on what clusters share: it does a few kernel calls under it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes the lock on what clusters share.
pub(super) fn lock(state: &StateFolder, verb: &str) -> Result<FileLock, Problem> {
    folder::ensure(&state.0)?;
    acquire(&state.lock(), verb, PATIENCE, "what clusters share")
}

/// The folder in which it is noted what was changed.
#[derive(Debug)]
pub(super) struct Notes(pub(super) Utf8PathBuf);

impl Notes {
    /// Those of this machine. A restart removes them, and undoes the changes as well.
    pub(super) fn of_machine() -> Self {
        Self("/run/bivouac".into())
    }

    /// Takes the lock on parameters, and so on notes of them.
    pub(super) fn lock(&self, verb: &str) -> Result<FileLock, Problem> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            folder::ensure(&self.0)?;
            let locked =
                acquire(&self.lock_file(), verb, PATIENCE, "the note of kernel parameters");
            // Its last holder may remove the folder at any moment, also while this waits.
            if locked.is_ok() || self.0.exists() || Instant::now() > deadline {
                return locked;
            }
        }
    }

    fn lock_file(&self) -> Utf8PathBuf {
        self.0.join("parameters.lock")
    }

    /// The note. Most parameters are those of a network namespace, so each has its own.
    pub(super) fn file(&self) -> Result<Utf8PathBuf, Problem> {
        let own = std::fs::metadata("/proc/thread-self/ns/net");
        let own = own.or_problem("parameter", "the own network namespace cannot be looked at")?;
        Ok(self.0.join(format!("parameters-{}.json", own.ino())))
    }

    /// Removes the folder if nothing is noted in it. The lock is held, and let go of by the caller.
    pub(super) fn tidy(&self) {
        let is_note = |entry: std::io::Result<camino::Utf8DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name().ends_with(".json"))
        };
        if self.0.read_dir_utf8().is_ok_and(|mut entries| !entries.any(is_note)) {
            let _ = std::fs::remove_file(self.lock_file());
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

/// Undoes what was changed. The lock of the notes is held, and no cluster is left.
pub(super) fn restore(notes: &Notes) -> Result<(), Problem> {
    let is_theirs =
        |parameter: &str| forwarding::is_theirs(parameter) || inotify::is_theirs(parameter);
    for Changed { parameter, before } in read(notes) {
        if is_theirs(&parameter) {
            continue;
        }
        match sysctl::ensure(&parameter, &before) {
            Err(error) if error.is_absent() => {}
            other => {
                let message = format!("{parameter} cannot be set back to {before}");
                other.or_problem("parameter", message)?;
            }
        }
    }
    match fs_err::remove_file(notes.file()?) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
            .or_problem("parameter", "the note of changed kernel parameters cannot be removed"),
        _ => Ok(()),
    }
}

/// A parameter to set.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) parameter: String,
    pub(super) value: &'static str,
    /// What is set again when this is undone, because that changes it.
    pub(super) also: Vec<Change>,
}

impl Change {
    pub(super) const fn new(parameter: String, value: &'static str) -> Self {
        Self { parameter, value, also: Vec::new() }
    }

    /// Sets it, and notes what it was. The lock of the notes is held.
    pub(super) fn make(&self, notes: &Notes) -> Result<(), Problem> {
        let parameter = &self.parameter;
        let before = sysctl::read(parameter).or_problem("parameter", parameter)?;
        if before == self.value {
            return Ok(());
        }
        let mut changed = read(notes);
        if !changed.iter().any(|one| one.parameter == *parameter) {
            // Written down first: a command that is killed in between leaves a note too many, which undoes nothing wrong. The one for
            // all interfaces goes before the others, so that it is undone before them.
            let also = self.also.iter().map(|one| (&one.parameter, one.value.to_owned()));
            let own = [(parameter, before)].into_iter().chain(also);
            let own =
                own.map(|(parameter, before)| Changed { parameter: parameter.clone(), before });
            changed.splice(0..0, own);
            note(notes, changed)?;
        }
        sysctl::write(parameter, self.value).or_problem("parameter", parameter)
    }
}

/// A parameter that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    parameter: String,
    before: String,
}

/// What was changed, in the order in which it is undone. A restart of the host undoes it as well, so a note counts for its own boot
/// only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    boot_id: String,
    changed: Vec<Changed>,
}

fn read(notes: &Notes) -> Vec<Changed> {
    let Ok(file) = notes.file() else { return Vec::new() };
    let text = std::fs::read(file).unwrap_or_default();
    let note = serde_json::from_slice::<Note>(&text).ok();
    let note = note.filter(|note| boot_id().is_ok_and(|own| own == note.boot_id));
    note.map(|note| note.changed).unwrap_or_default()
}

fn note(notes: &Notes, changed: Vec<Changed>) -> Result<(), Problem> {
    let message = "the note of changed kernel parameters cannot be written";
    let boot_id = boot_id().or_problem("parameter", message)?;
    let text = serde_json::to_vec(&Note { boot_id, changed }).or_problem("parameter", message)?;
    write_secret(&notes.file()?, &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::namespace::{Namespace, unshare};

    #[test]
    fn a_note_of_another_boot_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes(dir.path().to_owned().try_into().unwrap());
        assert_eq!(read(&notes), []);
        let parameter = "net/ipv4/conf/eth0/forwarding".to_owned();
        let changed = vec![Changed { parameter, before: "0".into() }];
        note(&notes, changed.clone()).unwrap();
        assert_eq!(read(&notes), changed);
        let text = std::fs::read_to_string(notes.file().unwrap()).unwrap();
        std::fs::write(notes.file().unwrap(), text.replace(&boot_id().unwrap(), "other")).unwrap();
        assert_eq!(read(&notes), []);
    }

    #[test]
    fn what_one_state_folder_changed_another_undoes_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(dir.path()).unwrap().join("notes");
        let thread = std::thread::spawn(move || {
            // Its parameters are those of this thread's network namespace.
            unshare(&[Namespace::Network]).unwrap();
            let parameter = "net/ipv6/conf/lo/hop_limit".to_owned();
            let before = sysctl::read(&parameter).unwrap();
            let notes = Notes(path.clone());
            let lock = notes.lock("one").unwrap();
            Change::new(parameter.clone(), "33").make(&notes).unwrap();
            notes.tidy();
            drop(lock);
            assert!(notes.file().unwrap().exists() && sysctl::read(&parameter).unwrap() == "33");

            let notes = Notes(path.clone());
            let _lock = notes.lock("another").unwrap();
            restore(&notes).unwrap();
            assert_eq!(sysctl::read(&parameter).unwrap(), before);
            notes.tidy();
            assert!(!path.exists());
        });
        thread.join().unwrap();
    }
}
