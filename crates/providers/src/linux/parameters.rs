//! Kernel parameters of the host that change while there are clusters: each change is written down first, and undone when the last cluster
//! goes.

use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_sys::filesystem::FileLock;
use bivouac_sys::process::boot_id;
use bivouac_sys::sysctl;
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

/// Undoes what was changed. The lock is held, and no cluster is left.
pub(super) fn restore(state: &StateFolder) -> Result<(), Problem> {
    let is_theirs =
        |parameter: &str| forwarding::is_theirs(parameter) || inotify::is_theirs(parameter);
    for Changed { parameter, before } in read(state) {
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
    match fs_err::remove_file(state.parameters()) {
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

    /// Sets it, and notes what it was. The lock is held.
    pub(super) fn make(&self, state: &StateFolder) -> Result<(), Problem> {
        let parameter = &self.parameter;
        let before = sysctl::read(parameter).or_problem("parameter", parameter)?;
        if before == self.value {
            return Ok(());
        }
        let mut changed = read(state);
        if !changed.iter().any(|one| one.parameter == *parameter) {
            // Written down first: a command that is killed in between leaves a note too many, which undoes nothing wrong. The one for
            // all interfaces goes before the others, so that it is undone before them.
            let also = self.also.iter().map(|one| (&one.parameter, one.value.to_owned()));
            let own = [(parameter, before)].into_iter().chain(also);
            let own =
                own.map(|(parameter, before)| Changed { parameter: parameter.clone(), before });
            changed.splice(0..0, own);
            note(state, changed)?;
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

fn read(state: &StateFolder) -> Vec<Changed> {
    let text = std::fs::read(state.parameters()).unwrap_or_default();
    let note = serde_json::from_slice::<Note>(&text).ok();
    let note = note.filter(|note| boot_id().is_ok_and(|own| own == note.boot_id));
    note.map(|note| note.changed).unwrap_or_default()
}

fn note(state: &StateFolder, changed: Vec<Changed>) -> Result<(), Problem> {
    let message = "the note of changed kernel parameters cannot be written";
    let boot_id = boot_id().or_problem("parameter", message)?;
    let text = serde_json::to_vec(&Note { boot_id, changed }).or_problem("parameter", message)?;
    write_secret(&state.parameters(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_another_boot_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder(dir.path().to_owned().try_into().unwrap());
        assert_eq!(read(&state), []);
        let parameter = "net/ipv4/conf/eth0/forwarding".to_owned();
        let changed = vec![Changed { parameter, before: "0".into() }];
        note(&state, changed.clone()).unwrap();
        assert_eq!(read(&state), changed);
        let text = std::fs::read_to_string(state.parameters()).unwrap();
        std::fs::write(state.parameters(), text.replace(&boot_id().unwrap(), "other")).unwrap();
        assert_eq!(read(&state), []);
    }
}
